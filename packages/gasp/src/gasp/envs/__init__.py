"""Tasks by name. Continuous actions in [-1, 1], float32 observations.

toy                              a point among walls, no simulator needed; "toy:3,5" names the goal cell
maze-umaze maze-medium maze-large    PointMaze; "maze-medium:3,4" names the goal cell
kitchen-complete (or kitchen) kitchen-partial kitchen-mixed    FrankaKitchen with four subtasks
kitchen:microwave,hinge_cabinet,...    FrankaKitchen with other subtasks
"""

from __future__ import annotations

from typing import Any

import gymnasium

from gasp.config import EnvSpec
from gasp.envs import maze, toy
from gasp.envs.options import Options
from rlcore.config import nearest
from rlcore.envs import make_env
from rlcore.errors import UsageError
from rlcore.vecenv import VecEnv, make_vec

NAMES = ("toy", *(f"maze-{name}" for name in maze.MAZES))


def make(task: str, num_envs: int, *, seed: int, first_env: int = 0, backend: str = "sync", **options: Any) -> VecEnv:
    """`num_envs` envs of a task behind rlcore's contract. info: "success" (N,) bool.

    Options are those of the suite (`gasp.envs.toy.OPTIONS` and so on). UsageError for an unknown task or option.
    """
    return make_vec(env_id(task, options), num_envs, seed=seed, first_env=first_env, backend=backend)


def single(task: str, *, render: bool = False, **options: Any) -> gymnasium.Env[Any, Any]:
    """One bare env, to be filmed or driven by a demonstrator; nothing resets it but its owner."""
    return make_env(env_id(task, options), **({"render": True} if render else {}))


def describe(task: str, **options: Any) -> EnvSpec:
    """Sizes of a task, without opening it."""
    suite, values = parse(task, options)
    length = values["episode_length"]
    if suite == "toy":
        return EnvSpec(task, 4, 2, length, (), "point")
    return EnvSpec(task, 4, 2, length or maze.LENGTHS[suite.removeprefix("maze-")], (), "point")


def env_id(task: str, options: dict[str, Any]) -> str:
    """What rlcore opens."""
    suite, values = parse(task, options)
    if suite == "toy":
        return f"gasp.envs.toy:{Options('', values)}"
    return f"gasp.envs.maze:{Options(suite.removeprefix('maze-'), values)}"


def parse(task: str, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The suite of a task and all of its options. UsageError with the nearest name where there is no such task."""
    name, colon, goal = task.partition(":")
    if name not in NAMES:
        raise UsageError(f"no task {task!r}{nearest(name, NAMES)} (known: {', '.join(NAMES)})")
    named = {"goal": goal} if colon else {}
    defaults = toy.OPTIONS if name == "toy" else maze.OPTIONS
    return name, Options.of(name, {**named, **options}, defaults).values
