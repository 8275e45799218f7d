"""`collective video`: one episode a task as a film, played by the same loop as evaluations."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from collective import envs, experts
from collective.agent import Collective
from collective.config_use import VideoConfig
from collective.rollout import Acting, Scripted, play
from collective.run.evaluate import facts_of
from collective.run.told import Experts, Told
from rlcore import device, video
from rlcore.errors import DataError, UsageError

AFTER = 20  # steps that a film goes on after the first success


def film(cfg: VideoConfig) -> int:
    """Write the films. EnvironmentProblem where nothing can be drawn here, naming what to install."""
    tasks, policy = subject(cfg)
    for task in tasks:
        print(film_task(cfg, task, policy))
    return 0


def subject(cfg: VideoConfig) -> tuple[tuple[str, ...], Any]:
    """The tasks, and a function of a task that gives its actor."""
    asked = bool(cfg.tasks or cfg.benchmark)
    if cfg.policy == "scripted":
        return cfg.chosen, lambda task: Scripted((task,))
    if cfg.run is None:
        raise UsageError(f"--run: which {cfg.policy}? Give the folder of its run")
    if cfg.policy == "expert":
        folder, tasks = cfg.run, cfg.chosen if asked else experts.tasks_of(cfg.run)
        if not tasks:
            raise DataError(f"{folder} holds no experts: `collective train-worker` makes some")
        return tasks, lambda task: Experts(folder, (task,))
    loaded = Collective.load(cfg.run, cfg.arm, device.resolve(cfg.device))
    return (cfg.chosen if asked else loaded.tasks), lambda task: Told(loaded, (task,))


def film_task(cfg: VideoConfig, task: str, policy: Any) -> Path:
    """The film of one task; its name says how it went."""
    frames: list[Any] = []
    vec = envs.make(
        (task,), seed=0, first_env=cfg.goal, goals="cycle", goal_seed=cfg.goal_seed, horizon=cfg.horizon, render=True,
        reward_version=str((facts_of(cfg.run) if cfg.run else {}).get("reward_version") or "v2"),
    )  # fmt: skip
    count = 0

    def watch() -> None:
        nonlocal count
        if count % cfg.every == 0:
            frames.append(vec.render(0))
        count += 1

    with contextlib.closing(vec):
        actor: Acting = policy(task)
        played = play(actor, vec, 1, stop_after_success=AFTER, watch=watch)
    how = "success" if played.success[0] else "failure"
    path = cfg.output / f"{task}-{how}-return{played.returns[0]:.0f}.{cfg.format}"
    video.write(path, frames, cfg.fps)
    return path
