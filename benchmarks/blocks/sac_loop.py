"""`python -m benchmarks.blocks.sac_loop`: rlblocks.sac on one environment, an update an env step. Writes a JSON file.

The counterpart of `benchmarks/peers/sb3_sac.py`, with the same settings, scored on the same episodes.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlblocks.config import SACConfig
from rlblocks.sac import SAC
from rlcore.buffer import Field, ReplayBuffer
from rlcore.evaluate import evaluate
from rlcore.files import write_json
from rlcore.provenance import describe_environment
from rlcore.seeding import numpy_generator
from rlcore.vecenv import VecEnv, make_vec

GAMMA, BATCH, CAPACITY, RANDOM_STEPS = 0.99, 256, 1_000_000, 100


class Greedy:
    """The squashed mean action in the env's units, as rlcore.evaluate wants it."""

    def __init__(self, agent: SAC, low: Any, high: Any) -> None:
        self.agent, self.low, self.high = agent, low, high

    def initial_state(self, num_envs: int) -> None:
        return None

    def act(self, obs: Any, state: None) -> tuple[Any, None]:
        return self.low + 0.5 * (self.agent.act(obs, deterministic=True) + 1.0) * (self.high - self.low), None


def learn(
    env_id: str, seed: int, steps: int, cfg: SACConfig, eval_every: int, eval_episodes: int, seed_base: int
) -> tuple[list[dict[str, float]], float]:
    """Train; return the curve of greedy returns and the CPU seconds spent, scoring apart."""
    envs = make_vec(env_id, 1, seed=seed)
    space: Any = envs.single_action_space
    obs_dim, action_dim = envs.single_observation_space.shape[0], space.shape[0]
    low, half = space.low, 0.5 * (space.high - space.low)
    shapes: dict[str, tuple[int, ...]] = {"obs": (obs_dim,), "next_obs": (obs_dim,), "action": (action_dim,)}
    fields = {name: Field(shape) for name, shape in (shapes | {"reward": (), "discount": ()}).items()}
    buffer = ReplayBuffer(fields, min(CAPACITY, steps), rng=numpy_generator(seed, "replay"))
    agent = SAC(cfg, obs_dim, action_dim, seeds=[seed])
    policy = Greedy(agent, space.low, space.high)

    def fresh(num_envs: int, first_env: int) -> VecEnv:
        return make_vec(env_id, num_envs, seed=seed_base, first_env=first_env)

    curve, away, begin, obs = list[dict[str, float]](), 0.0, time.process_time(), envs.reset()
    for step in range(1, steps + 1):
        action = (envs.sample() - low) / half - 1.0 if step <= RANDOM_STEPS else agent.act(obs)
        after = envs.step(low + (action + 1.0) * half)
        ended = after.terminated | after.truncated
        next_obs = np.where(ended[:, None], after.final_obs, after.obs) if ended.any() else after.obs
        discount = GAMMA * (1.0 - after.terminated)
        buffer.add(obs=obs, action=action, reward=after.reward, discount=discount, next_obs=next_obs)
        obs = after.obs
        if step > RANDOM_STEPS:
            agent.update(buffer.sample(BATCH))
        if step % eval_every == 0:
            paused = time.process_time()
            result = evaluate(policy, fresh, eval_episodes)
            curve.append({"step": step, **result.as_row()})
            away += time.process_time() - paused
    envs.close()
    return curve, time.process_time() - begin - away


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.blocks.sac_loop", description=__doc__)
    option = parser.add_argument
    option("--json", type=Path, required=True, help="record to write")
    option("--env", default="HalfCheetah-v5", help="a Gymnasium id or module:factory")
    option("--precision", choices=("float32", "bf16"), default="float32")
    for name, number in (("--seed", 0), ("--steps", 30_000), ("--eval-every", 5_000), ("--eval-episodes", 20),
                         ("--seed-base", 20_000)):  # fmt: skip
        option(name, type=int, default=number)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cfg = SACConfig(precision=args.precision)
    curve, cpu_s = learn(args.env, args.seed, args.steps, cfg, args.eval_every, args.eval_episodes, args.seed_base)
    options = {k: str(v) for k, v in vars(args).items() if k != "json"}
    record = {"program": "rlblocks SAC", "options": options, "curve": curve, "cpu_s": round(cpu_s, 1)}
    write_json(args.json, {**record, "env": describe_environment("rlblocks")})


if __name__ == "__main__":
    main()
