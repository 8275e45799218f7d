"""Meta-World's tasks as `TaskEnv`. This module loads no simulator, `MetaWorld` does."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

import numpy as np

from rlcore.errors import EnvironmentProblem, QuintetWarning, renderer_fix, why
from rlcore.provenance import version_of

Array = np.ndarray[Any, Any]
CHECKED = "3.1.1"  # of metaworld: the tests compare every task with it


def needed(task: str) -> None:
    """EnvironmentProblem with what to install, where Meta-World is missing; a warning where it is another version."""
    try:
        import metaworld  # noqa: F401
    except ImportError as error:
        raise EnvironmentProblem(f"{task} needs pip install 'collective[metaworld]' ({error})") from error
    except AttributeError as error:  # PyOpenGL's, where the library that MUJOCO_GL names is missing
        if not renderer_fix(what := why(error)):
            raise
        raise EnvironmentProblem(f"{task} cannot be built: {what}") from error
    if (found := version_of("metaworld")) != CHECKED:
        text = f"metaworld {found} is installed: our envs were checked to equal {CHECKED}"
        warnings.warn(text, QuintetWarning, stacklevel=3)


class MetaWorld:
    """One env of one task; `info` is what Meta-World itself said of the last step."""

    def __init__(
        self, task: str, goal_seed: int, reward_version: str = "v2", goal_hidden: bool = False, render: bool = False
    ) -> None:
        needed(task)
        from collective.envs.goals import goals_of
        from collective.envs.lean import lean_env

        self.env: Any = lean_env(task, reward_version, goal_hidden, pictures=render)
        self.goals = goals_of(task, goal_seed, self.env)
        self.info: dict[str, Any] = {}
        self.camera = open_camera(self.env.model) if render else None

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
        """(320, 480, 3) uint8: the table from its front right corner."""
        if self.camera is None:
            raise EnvironmentProblem("the env was opened without render=True: no picture can be drawn")
        self.camera.update_scene(self.env.data.raw, camera="corner4")
        return np.asarray(self.camera.render()[::-1, ::-1]).copy()  # the camera hangs upside down

    def close(self) -> None:
        if self.camera is not None:
            self.camera.close()
            self.camera = None


def open_camera(model: Any) -> Any:
    """mujoco's renderer. EnvironmentProblem with what to install, where it finds nothing to draw with."""
    import mujoco

    how = "apt-get install libosmesa6 and set MUJOCO_GL=osmesa, or MUJOCO_GL=egl where there is a GPU"
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform != "linux"
    if not screen and os.environ.get("MUJOCO_GL", "glfw") in ("", "glfw", "on", "1"):
        raise EnvironmentProblem(f"pictures need a renderer, and there is no screen: {how}")
    try:
        return mujoco.Renderer(model, 320, 480)
    except Exception as error:  # of any kind, as GL's loaders are
        raise EnvironmentProblem(f"pictures need a renderer: {how} ({type(error).__name__}: {error})") from error
