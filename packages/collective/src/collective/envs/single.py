"""One task by its name: what every suite's env can do, how it is opened, who demonstrates it. Loads no simulator."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np

from collective.config import task_name
from rlcore.errors import UsageError

Array = np.ndarray[Any, Any]
Goals = Literal["random", "cycle", "fixed"]
GOALS = 50  # of a task


class TaskEnv(Protocol):
    """One env. Its observation (39,) float64 is overwritten by the next call."""

    unstable: int  # steps on which the simulator broke down, since it was opened

    def reset(self, goal: int) -> Array: ...
    def step(self, action: Array) -> tuple[Array, float, bool]: ...  # action (4,) float32; observation, reward, success
    def render(self) -> Array: ...  # (H, W, 3) uint8
    def close(self) -> None: ...


@dataclass(frozen=True)
class Plan:
    """All that a vector of envs is made from. UsageError for an unknown task or option."""

    tasks: tuple[str, ...]
    copies: int
    seed: int
    first_env: int
    goals: Goals
    goal_seed: int
    horizon: int
    reward_version: str = "v2"
    render: bool = False
    goal_hidden: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "tasks", tuple(map(task_name, self.tasks)))
        if not self.tasks or self.copies < 1 or self.horizon < 1 or self.first_env < 0 or self.goal_seed < 0:
            text = f"{len(self.tasks)} tasks x {self.copies} copies of {self.horizon} steps"
            raise UsageError(
                f"envs: {text}, first_env {self.first_env}, goal_seed {self.goal_seed}: too few or negative"
            )
        if self.goals not in get_args(Goals):
            raise UsageError(f"goals must be random, cycle or fixed, got {self.goals!r}")
        if self.reward_version not in ("v1", "v2"):
            raise UsageError(f"reward_version must be v1 or v2, got {self.reward_version!r}")

    @property
    def num_envs(self) -> int:
        return len(self.tasks) * self.copies


def open_env(task: str, plan: Plan) -> TaskEnv:
    """One env of `task`. EnvironmentProblem where its simulator is missing."""
    if task.startswith("toy-"):
        from collective.envs import toy

        return toy.Toy(task, toy.draw_goals(GOALS, plan.goal_seed), plan.goal_hidden)
    from collective.envs.metaworld import MetaWorld

    return MetaWorld(task, plan.goal_seed, plan.reward_version, plan.goal_hidden, plan.render)


def scripted(task: str) -> Callable[[Array], Array]:
    """The scripted expert of `task`: observation (39,) -> action (4,) float32 in [-1, 1]; keeps nothing in mind."""
    act = unclipped(task_name(task))
    return lambda obs: np.minimum(np.maximum(act(obs.astype(np.float64)), -1.0), 1.0)


@functools.cache
def unclipped(task: str) -> Callable[[Array], Array]:
    """The same for observations in float64, its actions not yet cut to [-1, 1]."""
    if task.startswith("toy-"):
        from collective.envs import toy

        return functools.partial(toy.script, task)
    from collective.envs.metaworld import needed

    needed(task)
    from collective.envs.scripts import expert

    return expert(task)
