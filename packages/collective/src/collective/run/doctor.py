"""`collective doctor`: is the installation sound, do scripted experts work, how fast; which tasks are there."""

from __future__ import annotations

import contextlib
import os
import time
from functools import partial
from importlib.util import find_spec

import numpy as np

from collective.config import BENCHMARKS
from collective.config_use import DoctorConfig
from rlcore.doctor import Check, check, report
from rlcore.errors import QuintetError

EXTRAS = {
    "metaworld": ["metaworld", "mujoco", "packaging"], "video": ["imageio"], "tb": ["tensorboardX"],
    "wandb": ["wandb"],
}  # fmt: skip
SECONDS = 2.5  # of stepping each
INSTALL = "in a checkout: uv pip install './packages/collective[metaworld]'"


def doctor(cfg: DoctorConfig) -> int:
    """Print the findings; exit code 5 when something needed is broken."""
    if cfg.tasks:
        for name, tasks in BENCHMARKS.items():
            print(f"{name} ({len(tasks)}): {' '.join(tasks)}")
        return 0
    tasks = ("toy-push", "reach-v3") if find_spec("metaworld") and find_spec("mujoco") else ("toy-push",)
    return report(check("collective", EXTRAS, [cores, *(partial(stepping, task) for task in tasks)]), as_json=cfg.json)


def cores() -> Check:
    """How many processes may step envs."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Check("ok", f"{count} cores", "" if count > 1 else "envs and learning share one core: --workers 0")


def stepping(task: str) -> Check:
    """Whether the scripted expert of a task does it, and how fast."""
    from collective import envs

    try:
        with contextlib.closing(envs.make((task,), seed=0, horizon=150)) as vec:
            obs, begin, steps, solved, episodes = vec.reset(), time.perf_counter(), 0, False, list[bool]()
            while (taken := time.perf_counter() - begin) < SECONDS:
                moved = vec.step(envs.script_actions(vec.tasks, vec.task_index, obs))
                obs, steps, solved = moved.obs, steps + 1, solved or bool(moved.info["success"][0])
                if moved.truncated[0]:
                    episodes, solved = [*episodes, solved], False
    except QuintetError as error:
        return Check("fail", f"{task}: {error}", INSTALL)
    rate = f"{task}: {steps / taken:,.0f} steps/s, scripted expert included"
    if episodes and np.mean(episodes) < 0.5:
        return Check("fail", f"{rate}; it succeeds in {np.mean(episodes):.0%} of the episodes", "another version?")
    return Check("ok", f"{rate}; it succeeds in {np.mean(episodes):.0%} of {len(episodes)} episodes")
