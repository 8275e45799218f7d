"""The peer: SAC of stable-baselines3 with its own default settings. One seed a call; writes one JSON file.

Runs in the peers' own environment (`make bench` sets it up). Scored by rlcore.evaluate on the same episodes as ours.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback

from rlcore.envs import make_env
from rlcore.evaluate import evaluate
from rlcore.files import write_json
from rlcore.provenance import describe_environment
from rlcore.vecenv import VecEnv, make_vec


class Greedy:
    """The peer's mean action as rlcore.evaluate wants it."""

    def __init__(self, model: SAC) -> None:
        self.model = model

    def initial_state(self, num_envs: int) -> None:
        return None

    def act(self, obs: Any, state: None) -> tuple[Any, None]:
        return self.model.predict(obs, deterministic=True)[0], None


class Scores(BaseCallback):
    """Greedy returns every `every` env steps."""

    def __init__(self, env_id: str, every: int, episodes: int, seed_base: int) -> None:
        super().__init__()
        self.env_id, self.every, self.episodes, self.seed_base = env_id, every, episodes, seed_base
        self.curve: list[dict[str, float]] = []
        self.away = 0.0  # CPU seconds spent scoring

    def _on_step(self) -> bool:
        if self.num_timesteps % self.every == 0:
            begin = time.process_time()
            result = evaluate(Greedy(self.model), self._envs, self.episodes)
            self.curve.append({"step": self.num_timesteps, **result.as_row()})
            self.away += time.process_time() - begin
        return True

    def _envs(self, num_envs: int, first_env: int) -> VecEnv:
        return make_vec(self.env_id, num_envs, seed=self.seed_base, first_env=first_env)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    option = parser.add_argument
    option("--json", type=Path, required=True, help="record to write")
    option("--env", default="HalfCheetah-v5", help="a Gymnasium id or module:factory")
    for name, number in (("--seed", 0), ("--steps", 30_000), ("--eval-every", 5_000), ("--eval-episodes", 10),
                         ("--seed-base", 20_000)):  # fmt: skip
        option(name, type=int, default=number)
    args = parser.parse_args()
    torch.set_num_threads(1)
    scores = Scores(args.env, args.eval_every, args.eval_episodes, args.seed_base)
    begin = time.process_time()
    SAC("MlpPolicy", make_env(args.env), seed=args.seed, device="cpu").learn(args.steps, callback=scores)
    cpu_s = time.process_time() - begin - scores.away
    options = {k: str(v) for k, v in vars(args).items() if k != "json"}
    record = {"program": "stable-baselines3 SAC", "options": options, "curve": scores.curve, "cpu_s": round(cpu_s, 1)}
    write_json(args.json, {**record, "env": describe_environment("stable-baselines3")})


if __name__ == "__main__":
    main()
