"""Meta-World's tasks as `TaskEnv`. This module loads no simulator, `MetaWorld` does."""

from __future__ import annotations

from typing import Any

import numpy as np

from rlcore.errors import EnvironmentProblem

Array = np.ndarray[Any, Any]


def needed(task: str) -> None:
    """EnvironmentProblem with what to install, where Meta-World is missing."""
    try:
        import metaworld  # noqa: F401
    except ImportError as error:
        raise EnvironmentProblem(f"{task} needs pip install 'collective[metaworld]' ({error})") from error


class MetaWorld:
    """One env of one task; `info` is what Meta-World itself said of the last step."""

    def __init__(
        self, task: str, goal_seed: int, reward_version: str = "v2", goal_hidden: bool = False, render: bool = False
    ) -> None:
        needed(task)
        from collective.envs.goals import goals_of
        from collective.envs.lean import lean_env

        self.env: Any = lean_env(task, reward_version, goal_hidden)
        self.goals = goals_of(self.env, task, goal_seed)
        self.info: dict[str, Any] = {}

    @property
    def unstable(self) -> int:
        return int(self.env.unstable)

    @unstable.setter
    def unstable(self, value: int) -> None:
        self.env.unstable = value

    def reset(self, goal: int) -> Array:
        return np.asarray(self.env.begin(self.goals[goal]))

    def step(self, action: Array) -> tuple[Array, float, bool]:
        obs, reward, self.info = self.env.advance(action)
        return obs, float(reward), bool(self.info["success"])

    def render(self) -> Array:
        raise NotImplementedError

    def close(self) -> None:
        self.env.close()
