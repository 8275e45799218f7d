"""The peer: SAC of stable-baselines3 with its own default settings, behind the same two verbs and files as our methods.

Runs in the peers' own environment (`make bench` sets it up). `curve` trains one seed and writes one JSON file, for
benchmarks.blocks.sac_learn: scored by rlcore.evaluate on the same episodes as ours, scoring not timed.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from sb3_run import make_verbs, score
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback

from rlcore.envs import make_env
from rlcore.files import write_json
from rlcore.provenance import describe_environment


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
            result = score(self.model, self.env_id, self.episodes, self.seed_base)
            self.curve.append({"step": self.num_timesteps, **result.as_row()})
            self.away += time.process_time() - begin
        return True


def build(args: argparse.Namespace) -> SAC:
    return SAC("MlpPolicy", make_env(args.env), seed=args.seed, device="cpu")


def curve(args: argparse.Namespace) -> None:
    """Train on `--steps` and write the scores and the CPU time of it."""
    scores = Scores(args.env, args.eval_every, args.eval_episodes, args.seed_base)
    begin = time.process_time()
    build(args).learn(args.steps, callback=scores)
    cpu_s = time.process_time() - begin - scores.away
    options = {k: str(v) for k, v in vars(args).items() if k not in ("json", "run")}
    record = {"program": "stable-baselines3 SAC", "options": options, "curve": scores.curve, "cpu_s": round(cpu_s, 1)}
    write_json(args.json, {**record, "env": describe_environment("stable-baselines3")})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    verbs, _ = make_verbs(parser, "sb3_sac", SAC, build)
    once = verbs.add_parser("curve")
    once.set_defaults(run=curve)
    option = once.add_argument
    option("--json", type=Path, required=True, help="record to write")
    option("--env", default="HalfCheetah-v5", help="a Gymnasium id or module:factory")
    for name, number in (("--seed", 0), ("--steps", 30_000), ("--eval-every", 5_000), ("--eval-episodes", 10),
                         ("--seed-base", 20_000)):  # fmt: skip
        option(name, type=int, default=number)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.run(args)


if __name__ == "__main__":
    main()
