"""`gasp doctor`: is the installation sound, does the kitchen fit its mujoco, how fast do environments step."""

from __future__ import annotations

import contextlib
import time
from functools import partial
from importlib.util import find_spec

from gasp.config import DoctorConfig
from rlcore.doctor import Check, check, probe, report
from rlcore.errors import QuintetError

EXTRAS = {
    "robotics": ["gymnasium_robotics", "mujoco"], "video": ["imageio"], "tb": ["tensorboardX"], "wandb": ["wandb"],
}  # fmt: skip
TASKS = ("toy", "maze-medium", "kitchen")
SECONDS = 0.5  # of stepping each


def doctor(cfg: DoctorConfig) -> int:
    """Print the findings; exit code 5 when something needed is broken."""
    tasks = TASKS if find_spec("gymnasium_robotics") and find_spec("mujoco") else TASKS[:1]
    return report(check("gasp", EXTRAS, [files, *(partial(stepping, task) for task in tasks)]), as_json=cfg.json)


def files() -> Check:
    """Whether demonstrations can be read."""
    works, (first, *_) = probe("h5py")
    return Check("ok", f"h5py {first}") if works else Check("fail", f"h5py: {first}", "pip install 'h5py>=3.11'")


def stepping(task: str) -> Check:
    """Whether a task opens and steps, and how fast with random actions."""
    from gasp import envs

    try:
        with contextlib.closing(envs.make(task, 1, seed=0)) as vec:
            vec.reset()
            begin, steps = time.perf_counter(), 0
            while (taken := time.perf_counter() - begin) < SECONDS:
                vec.step(vec.sample())
                steps += 1
    except QuintetError as error:
        return Check("fail", f"{task}: {error}", "in a checkout: uv pip install './packages/gasp[robotics]'")
    return Check("ok", f"{task}: {steps / taken:,.0f} steps/s in one process")
