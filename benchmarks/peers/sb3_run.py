"""What a peer of stable-baselines3 needs to stand beside our methods: the same two verbs, files and episodes.

Runs in the peers' own environment (`make bench` sets it up). It has no resume that continues a run, so the bench starts
an interrupted one over. Exploration is off and weights are the best ones when it is scored, as for our methods.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from rlcore.evaluate import EvalResult, evaluate
from rlcore.files import write_json
from rlcore.provenance import describe_environment
from rlcore.seeding import derive
from rlcore.vecenv import VecEnv, make_vec

TRAIN_EVAL_SEED_BASE = 10_000
FOREVER = 10**9  # env steps
Build = Callable[[argparse.Namespace], BaseAlgorithm]


class Greedy:
    """The peer's policy as rlcore.evaluate wants it, so that every method is scored by the same code and episodes."""

    def __init__(self, model: BaseAlgorithm) -> None:
        self.model = model

    def initial_state(self, num_envs: int) -> None:
        return None

    def act(self, obs: Any, state: None) -> tuple[Any, None]:
        return self.model.predict(obs, deterministic=True)[0], None


def score(model: BaseAlgorithm, env_id: str, episodes: int, seed_base: int) -> EvalResult:
    """Greedy episodes in env `env_id` under run seed `seed_base`."""

    def make_envs(num_envs: int, first_env: int) -> VecEnv:
        return make_vec(env_id, num_envs, seed=seed_base, first_env=first_env)

    return evaluate(Greedy(model), make_envs, episodes)


class Recorder(BaseCallback):
    """Writes metrics.jsonl and status.json, evaluates, keeps the best weights; stops after `cpu_limit` CPU seconds."""

    def __init__(self, folder: Path, args: argparse.Namespace, cpu_limit: float | None = None) -> None:
        super().__init__()
        self.folder, self.args, self.cpu_limit, self.best = folder, args, cpu_limit, float("-inf")
        self.wall, self.cpu = time.monotonic(), time.process_time()
        self.last = (self.wall, 0, 0)
        self.episodes: list[dict[str, float]] = []
        self.finished = 0

    def cpu_s(self) -> float:
        return time.process_time() - self.cpu

    def write(self, kind: str, **row: Any) -> None:
        clocks = {"wall_s": time.monotonic() - self.wall, "cpu_s": self.cpu_s()}
        with open(self.folder / "metrics.jsonl", "a") as file:
            file.write(json.dumps({"kind": kind, "step": self.num_timesteps, **row, **clocks}) + "\n")

    def status(self, state: str) -> None:
        total = self.args.total_steps
        if self.cpu_limit:  # as many as it will be at this rate
            total = max(round(self.num_timesteps * self.cpu_limit / max(self.cpu_s(), 1e-9)), self.num_timesteps)
        progress = {"state": state, "step": self.num_timesteps, "total_steps": total}
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
        spent = self.cpu_limit is not None and self.cpu_s() >= self.cpu_limit
        if self.num_timesteps % self.args.eval_every == 0 or spent:
            row = score(self.model, self.args.env, self.args.eval_episodes, TRAIN_EVAL_SEED_BASE).as_row()
            self.write("eval", **row)
            if row["return_mean"] >= self.best:
                self.best = row["return_mean"]
                self.model.save(self.folder / "best_model.zip")
        return not spent

    def _on_training_end(self) -> None:
        self.train_row()
        self.status("finished")


def cpu_seconds_of(folder: Path) -> float:
    """What training a finished run has cost, by its own clock. SystemExit in one line where it is not finished."""
    with contextlib.suppress(OSError, ValueError):
        if json.loads((folder / "status.json").read_text())["state"] == "finished":
            rows = (folder / "metrics.jsonl").read_text().splitlines()
            return max(float(json.loads(row)["cpu_s"]) for row in rows)
    raise SystemExit(f"--cpu-of {folder}: no finished run is there: train it first")


def train(args: argparse.Namespace, program: str, build: Build) -> None:
    """Learn until the steps, or the CPU seconds, are used up."""
    folder = args.dir / args.name
    limit = max(map(cpu_seconds_of, args.cpu_of)) if args.cpu_of else None
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").unlink(missing_ok=True)
    config = {k: str(v) for k, v in vars(args).items() if k != "run"} | {"cpu_limit": limit}
    write_json(folder / "config.json", {"program": program, "config": config})
    write_json(folder / "env.json", {**describe_environment("stable-baselines3"), "seed": args.seed, "env": args.env})
    model = build(args)
    model.learn(FOREVER if limit else args.total_steps, callback=Recorder(folder, args, limit))
    if not (folder / "best_model.zip").exists():  # a run too short for an evaluation
        model.save(folder / "best_model.zip")


def evaluate_run(args: argparse.Namespace, kind: type[BaseAlgorithm]) -> None:
    """Score the best weights on the episodes that our methods are scored on."""
    folder = args.dir / args.name
    model = kind.load(folder / "best_model.zip", device="cpu")
    result = score(model, args.env, args.num_eval_episodes, derive(args.seed_base, "evaluation"))
    row = result.as_row()
    write_json(folder / "eval.json", {"env": args.env, **row, "returns": result.returns.tolist()})
    print(f"return {row['return_mean']:.2f} ± {row['return_std']:.2f} over {row['episodes']} episodes")


def make_verbs(parser: argparse.ArgumentParser, program: str, kind: type[BaseAlgorithm], build: Build) -> Any:
    """Give the parser both verbs; returns its subparsers and train's, for the program's own options."""
    verbs = parser.add_subparsers(required=True)
    parts = {"train": verbs.add_parser("train"), "eval": verbs.add_parser("eval")}
    for verb in parts.values():
        verb.add_argument("--name", required=True)
        verb.add_argument("--dir", type=Path, default=Path("experiments"))
        verb.add_argument("--env", required=True, help="a Gymnasium id or module:factory")
    for name, number in (("--seed", 0), ("--total-steps", 50_000), ("--eval-every", 5_000), ("--log-every", 1_000)):
        parts["train"].add_argument(name, type=int, default=number)
    parts["train"].add_argument("--eval-episodes", type=int, default=20)
    parts["train"].add_argument(
        "--cpu-of", type=Path, nargs="+", default=[], metavar="RUN",
        help="run directories: train as many CPU seconds as the dearest of them took, instead of --total-steps",
    )  # fmt: skip
    parts["train"].set_defaults(run=lambda args: train(args, program, build))
    parts["eval"].add_argument("--num-eval-episodes", type=int, default=100)
    parts["eval"].add_argument("--seed-base", type=int, default=20_000)
    parts["eval"].set_defaults(run=lambda args: evaluate_run(args, kind))
    return verbs, parts["train"]
