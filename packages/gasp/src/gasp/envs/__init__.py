"""Tasks by name. Continuous actions in [-1, 1], float32 observations.

toy                              a point among walls, no simulator needed; "toy:3,5" names the goal cell
maze-umaze maze-medium maze-large    PointMaze; "maze-medium:3,4" names the goal cell
kitchen (or kitchen-complete) kitchen-partial kitchen-mixed kitchen-all    FrankaKitchen with a set of subtasks
kitchen:microwave,hinge_cabinet,...    FrankaKitchen with other subtasks
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import gymnasium

from gasp.config import KITCHEN_SETS, EnvSpec
from gasp.envs import kitchen, maze, toy
from gasp.envs.completed import Kitchens
from gasp.envs.options import Options
from gasp.kitchen_obs import SIZES
from rlcore.config import nearest
from rlcore.envs import make_env
from rlcore.errors import EnvironmentProblem, QuintetError, UsageError
from rlcore.vecenv import VecEnv, make_vec

NAMES = ("toy", *(f"maze-{name}" for name in maze.MAZES), "kitchen", *(f"kitchen-{name}" for name in KITCHEN_SETS))


def make(task: str, num_envs: int, *, seed: int, first_env: int = 0, backend: str = "sync", **options: Any) -> VecEnv:
    """`num_envs` envs of a task behind rlcore's contract; backend "sync" or "async" (a process an env).

    info has "success" (N,) bool, and of a kitchen "completed" (N, n) bool, in the order of `EnvSpec.subtasks`. Options
    are those of the suite (`gasp.envs.toy.OPTIONS` and so on). UsageError for an unknown task or option.
    """
    with _plain():
        vec = make_vec(env_id(task, options), num_envs, seed=seed, first_env=first_env, backend=backend)
    return Kitchens(vec) if task.startswith("kitchen") else vec


def single(task: str, *, render: bool = False, **options: Any) -> gymnasium.Env[Any, Any]:
    """One bare env, to be filmed or driven by a demonstrator; nothing resets it but its owner."""
    with _plain():
        return make_env(env_id(task, options), **({"render": True} if render else {}))


@contextlib.contextmanager
def _plain() -> Iterator[None]:
    """What a suite itself found wrong, as it said it: rlcore wraps whatever a factory raises."""
    try:
        yield
    except EnvironmentProblem as error:
        if isinstance(error.__cause__, QuintetError):
            raise error.__cause__ from None
        raise


def describe(task: str, **options: Any) -> EnvSpec:
    """Sizes of a task, without opening it."""
    suite, name, values = parse(task, options)
    length = values["episode_length"]
    if suite == "kitchen":
        mode = values["obs_mode"]
        if mode not in SIZES:
            raise UsageError(f"kitchen: obs_mode must be one of {', '.join(SIZES)}, got {mode!r}")
        return EnvSpec(task, SIZES[mode], 9, length, kitchen.subtasks_of(name), mode)
    # Both show (x, y, vx, vy), but not in the same units: skills of one are none of the other.
    return EnvSpec(task, 4, 2, length or maze.LENGTHS[name], (), "toy" if suite == "toy" else "point")


def env_id(task: str, options: dict[str, Any]) -> str:
    """What rlcore opens."""
    suite, name, values = parse(task, options)
    return f"gasp.envs.{suite}:{Options(name, values)}"


def parse(task: str, options: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """Suite, name within it and all options. UsageError with the nearest name where there is no such task."""
    full, colon, rest = task.partition(":")
    if full not in NAMES or (colon and full.startswith("kitchen-")):
        raise UsageError(f"no task {task!r}{nearest(full, NAMES)} (known: {', '.join(NAMES)})")
    suite, _, name = full.partition("-")
    if suite == "kitchen":
        chosen = rest if colon else name or "complete"
        kitchen.subtasks_of(chosen)
        return suite, chosen.replace(" ", "_"), Options.of(name, options, kitchen.OPTIONS).values
    defaults = toy.OPTIONS if suite == "toy" else maze.OPTIONS
    return suite, name, Options.of(name, {**({"goal": rest} if colon else {}), **options}, defaults).values
