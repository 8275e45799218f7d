"""The peer: DQN of stable-baselines3, behind the same two verbs and files as our methods.

Runs in the peers' own environment (`make bench` sets it up). Options default to the library's own; suite.py passes what
its zoo tuned for a task.
"""

from __future__ import annotations

import argparse

import torch
from sb3_run import make_verbs
from stable_baselines3 import DQN

from rlcore.envs import make_env


def build(args: argparse.Namespace) -> DQN:
    return DQN(
        "MlpPolicy",
        make_env(args.env),
        seed=args.seed,
        device="cpu",
        learning_rate=args.learning_rate,
        batch_size=args.batch_size,
        buffer_size=args.buffer_size,
        learning_starts=args.learning_starts,
        gamma=args.gamma,
        target_update_interval=args.target_update,
        train_freq=args.train_freq,
        gradient_steps=args.gradient_steps,
        exploration_fraction=args.exploration_fraction,
        exploration_final_eps=args.exploration_final,
        policy_kwargs={
            "net_arch": args.net,
            "activation_fn": {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh}[args.activation],
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    _, train = make_verbs(parser, "sb3_dqn", DQN, build)
    option = train.add_argument
    for name, number in (("--batch-size", 32), ("--buffer-size", 1_000_000), ("--learning-starts", 100),
                         ("--target-update", 10_000), ("--train-freq", 4), ("--gradient-steps", 1)):  # fmt: skip
        option(name, type=int, default=number)
    for name, rate in (("--learning-rate", 1e-4), ("--gamma", 0.99), ("--exploration-fraction", 0.1),
                       ("--exploration-final", 0.05)):  # fmt: skip
        option(name, type=float, default=rate)
    option("--net", type=int, nargs="+", default=[256, 256])
    option("--activation", choices=("relu", "tanh"), default="relu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.run(args)


if __name__ == "__main__":
    main()
