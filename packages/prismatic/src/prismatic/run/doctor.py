"""`prismatic doctor`: is the installation sound; and with --task, does that environment open and step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial

from prismatic.config import DoctorConfig
from rlcore.doctor import Check, check, report
from rlcore.errors import QuintetError

EXTRAS = {"dmc": ["dm_control", "mujoco"], "video": ["imageio", "PIL"], "tb": ["tensorboardX"], "wandb": ["wandb"]}


def doctor(cfg: DoctorConfig) -> int:
    """Print the findings; exit code 5 when something needed is broken."""
    more: list[Callable[[], Check]] = [partial(task_check, task) for task in tasks_of(cfg.task)]
    return report(check("prismatic", EXTRAS, more), as_json=cfg.json)


def tasks_of(text: str | None) -> tuple[str, ...]:
    """The tasks that were named, with commas between or as a set."""
    if text is None:
        return ()
    with contextlib.suppress(ImportError):  # `task_check` finds it, too
        from prismatic import envs

        return envs.expand([name.strip() for name in text.split(",")])
    return (text,)


def task_check(task: str) -> Check:
    """Open the task and take ten random steps."""
    import numpy as np  # here, so that a broken installation is a finding of the doctor's and not its death

    from prismatic import envs

    try:
        spec = envs.describe(task)
        vec = envs.make([spec], 1, seed=0)
        vec.reset()
        finite = all(bool(np.isfinite(vec.step(vec.sample()).obs).all()) for _ in range(10))
        vec.close()
    except QuintetError as error:
        return Check("fail", f"{task}: {error}", "`prismatic envs` lists the tasks")
    what = (
        f"{task}: {spec.obs_dim} observations, {spec.action_dim} actions, episodes of {spec.episode_length} agent "
        f"steps{', can terminate' if spec.episodic else ''}"
    )
    return Check("ok", what) if finite else Check("fail", f"{task}: observations are not finite", "look at the env")
