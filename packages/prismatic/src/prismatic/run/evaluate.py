"""`prismatic eval`: planned episodes that training never saw; each line can be repeated from its seed."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from prismatic import envs
from prismatic.config import EvalConfig, TaskSpec
from prismatic.run.film import film
from prismatic.run.saved import Saved, open_run
from rlcore.errors import EnvironmentProblem, UsageError
from rlcore.evaluate import EvalResult, evaluate
from rlcore.files import explained, write_json
from rlcore.seeding import derive
from rlcore.vecenv import VecEnv


def evaluate_run(cfg: EvalConfig) -> int:
    """Score the run's agent on its tasks, print a line an episode, write eval.json."""
    saved = open_run(cfg, cfg.checkpoint, cfg.device, {"true": True, "false": False}.get(cfg.mpc))
    names = [task.name for task in saved.tasks]
    if cfg.task is not None and cfg.task not in names:
        raise UsageError(f"--task {cfg.task}: this run knows {', '.join(names)}")
    chosen = names if cfg.task is None else [cfg.task]
    results = {name: score(saved, names.index(name), cfg) for name in chosen}
    report = {
        "checkpoint": saved.checkpoint.name, "step": saved.step, "variant": saved.cfg.variant, "mpc": saved.cfg.mpc,
        "seed_base": cfg.seed_base, "tasks": {name: as_json(result) for name, result in results.items()},
    }  # fmt: skip
    print(json.dumps(report) if cfg.json else to_text(saved, results), flush=True)
    path = saved.folder / "eval.json"
    with explained(saved.folder):
        write_json(path, report)
    told = sys.stderr if cfg.json else sys.stdout
    print(f"written to {path}", file=told)
    for name in chosen if cfg.save_video else ():
        path = saved.folder / "videos" / f"eval_{re.sub('[^A-Za-z0-9_.-]', '_', name)}.mp4"
        film(saved, names.index(name), seed_of(cfg), path)
        print(f"written to {path}", file=told)
    return 0


def to_text(saved: Saved, results: Mapping[str, EvalResult]) -> str:
    """A line an episode, and the mean of each task."""
    how = "planning" if saved.cfg.mpc else "policy"
    lines = [f"{saved.folder}: {saved.checkpoint.name} of {saved.cfg.variant}, {how}"]
    for name, result in results.items():
        for episode, (total, length) in enumerate(zip(result.returns, result.lengths), 1):
            lines.append(f"  {name} {episode:3d}: return {total:8.2f}   length {int(length):5d}")
        row = result.as_row()
        success = f"   success {row['success_rate']:.0%}" if "success_rate" in row else ""
        lines.append(f"{name}: return {row['return_mean']:.2f} ± {row['return_std']:.2f}{success}")
    return "\n".join(lines)


def score(saved: Saved, task: int, cfg: EvalConfig) -> EvalResult:
    """Episodes of one task, from a stream of their own: no training run, whatever its seed, has met them."""
    seed = seed_of(cfg)

    def make_envs(num_envs: int, first_env: int) -> VecEnv:
        check_fits(saved.tasks[task])
        return cast(VecEnv, envs.make([saved.tasks[task]], num_envs, seed=seed, first_env=first_env))

    result = evaluate(saved.agent.policy(task, seed, "planning"), make_envs, cfg.eval_episodes)
    if not np.isfinite(result.returns).all():
        raise EnvironmentProblem(f"{saved.tasks[task].name} gave a reward that is not finite: look at the env")
    return result


def seed_of(cfg: EvalConfig) -> int:
    """The run seed of the episodes."""
    return derive(cfg.seed_base, "evaluation")


def check_fits(task: TaskSpec) -> None:
    """UsageError unless the env still has the sizes that the agent was trained on."""
    now = envs.describe(task.name)
    if (now.obs_dim, now.action_dim) != (task.obs_dim, task.action_dim):
        raise UsageError(
            f"{task.name} now has {now.obs_dim} observations and {now.action_dim} actions, "
            f"the agent was trained on {task.obs_dim} and {task.action_dim}"
        )


def as_json(result: EvalResult) -> dict[str, Any]:
    return {**result.as_row(), "returns": result.returns.tolist(), "lengths": result.lengths.tolist()}
