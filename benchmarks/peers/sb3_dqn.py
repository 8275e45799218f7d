"""The peer: DQN of stable-baselines3, behind the same two verbs and files as our methods.

Runs in the peers' own environment (`make bench` sets it up). Options default to the library's own; suite.py passes what
its zoo tuned for a task. It has no resume that continues a run, so the bench starts an interrupted one over.
Exploration is off and weights are the best ones when it is scored, as for our methods.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback

from rlcore.envs import make_env
from rlcore.evaluate import EvalResult, evaluate
from rlcore.files import write_json
from rlcore.provenance import describe_environment
from rlcore.vecenv import VecEnv, make_vec

TRAIN_EVAL_SEED_BASE = 10_000


class Greedy:
    """The peer's policy as rlcore.evaluate wants it, so that every method is scored by the same code and episodes."""

    def __init__(self, model: DQN) -> None:
        self.model = model

    def initial_state(self, num_envs: int) -> None:
        return None

    def act(self, obs: Any, state: None) -> tuple[Any, None]:
        return self.model.predict(obs, deterministic=True)[0], None


def score(model: DQN, env_id: str, episodes: int, seed_base: int) -> EvalResult:
    """Greedy episodes in env `env_id` under run seed `seed_base`."""

    def make_envs(num_envs: int, first_env: int) -> VecEnv:
        return make_vec(env_id, num_envs, seed=seed_base, first_env=first_env)

    return evaluate(Greedy(model), make_envs, episodes)


class Recorder(BaseCallback):
    """Writes metrics.jsonl and status.json, evaluates, keeps the best weights."""

    def __init__(self, folder: Path, args: argparse.Namespace) -> None:
        super().__init__()
        self.folder, self.args, self.best = folder, args, float("-inf")
        self.wall, self.cpu = time.monotonic(), time.process_time()
        self.last = (self.wall, 0, 0)
        self.episodes: list[dict[str, float]] = []
        self.finished = 0

    def write(self, kind: str, **row: Any) -> None:
        clocks = {"wall_s": time.monotonic() - self.wall, "cpu_s": time.process_time() - self.cpu}
        with open(self.folder / "metrics.jsonl", "a") as file:
            file.write(json.dumps({"kind": kind, "step": self.num_timesteps, **row, **clocks}) + "\n")

    def status(self, state: str) -> None:
        progress = {"state": state, "step": self.num_timesteps, "total_steps": self.args.total_steps}
        write_json(self.folder / "status.json", {**progress, "pid": os.getpid(), "host": socket.gethostname()})

    def train_row(self) -> None:
        (before, step, updates), now = self.last, time.monotonic()
        self.last = (now, self.num_timesteps, self.model._n_updates)
        seconds = max(now - before, 1e-9)
        means = {}
        if self.episodes:
            means["return_mean"] = statistics.fmean(float(e["r"]) for e in self.episodes)
            means["length_mean"] = statistics.fmean(float(e["l"]) for e in self.episodes)
        self.write(
            "train",
            updates=self.model._n_updates,
            episodes=self.finished,
            **means,
            env_steps_per_s=(self.num_timesteps - step) / seconds,
            updates_per_s=(self.model._n_updates - updates) / seconds,
        )
        self.episodes = []

    def _on_training_start(self) -> None:
        self.status("running")

    def _on_step(self) -> bool:
        done = [info["episode"] for info in self.locals["infos"] if "episode" in info]
        self.episodes += done
        self.finished += len(done)
        if self.num_timesteps % self.args.log_every == 0:
            self.train_row()
            self.status("running")
        if self.num_timesteps % self.args.eval_every == 0:
            row = score(self.model, self.args.env, self.args.eval_episodes, TRAIN_EVAL_SEED_BASE).as_row()
            self.write("eval", **row)
            if row["return_mean"] >= self.best:
                self.best = row["return_mean"]
                self.model.save(self.folder / "best_model.zip")
        return True

    def _on_training_end(self) -> None:
        self.train_row()
        self.status("finished")


def train(args: argparse.Namespace) -> None:
    folder = args.dir / args.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").unlink(missing_ok=True)
    write_json(folder / "config.json", {"program": "sb3_dqn", "config": {k: str(v) for k, v in vars(args).items()}})
    write_json(folder / "env.json", {**describe_environment("stable-baselines3"), "seed": args.seed, "env": args.env})
    model = DQN(
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
    model.learn(args.total_steps, callback=Recorder(folder, args))
    if not (folder / "best_model.zip").exists():  # a run too short for an evaluation
        model.save(folder / "best_model.zip")


def evaluate_run(args: argparse.Namespace) -> None:
    folder = args.dir / args.name
    result = score(DQN.load(folder / "best_model.zip", device="cpu"), args.env, args.num_eval_episodes, args.seed_base)
    row = result.as_row()
    write_json(folder / "eval.json", {"env": args.env, **row, "returns": result.returns.tolist()})
    print(f"return {row['return_mean']:.2f} ± {row['return_std']:.2f} over {row['episodes']} episodes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(required=True)
    parts = {"train": verbs.add_parser("train"), "eval": verbs.add_parser("eval")}
    for verb in parts.values():
        verb.add_argument("--name", required=True)
        verb.add_argument("--dir", type=Path, default=Path("experiments"))
        verb.add_argument("--env", default="CartPole-v1", help="a Gymnasium id or module:factory")
    option = parts["train"].add_argument
    for name, number in (("--seed", 0), ("--total-steps", 50_000), ("--eval-every", 5_000), ("--eval-episodes", 20),
                         ("--log-every", 1_000), ("--batch-size", 32), ("--buffer-size", 1_000_000),
                         ("--learning-starts", 100), ("--target-update", 10_000), ("--train-freq", 4),
                         ("--gradient-steps", 1)):  # fmt: skip
        option(name, type=int, default=number)
    for name, rate in (("--learning-rate", 1e-4), ("--gamma", 0.99), ("--exploration-fraction", 0.1),
                       ("--exploration-final", 0.05)):  # fmt: skip
        option(name, type=float, default=rate)
    option("--net", type=int, nargs="+", default=[256, 256])
    option("--activation", choices=("relu", "tanh"), default="relu")
    parts["train"].set_defaults(run=train)
    parts["eval"].add_argument("--num-eval-episodes", type=int, default=100)
    parts["eval"].add_argument("--seed-base", type=int, default=20_000)
    parts["eval"].set_defaults(run=evaluate_run)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.run(args)


if __name__ == "__main__":
    main()
