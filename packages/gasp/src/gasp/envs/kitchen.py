"""FrankaKitchen-v1 of gymnasium-robotics: a robot arm and subtasks in a kitchen, a reward for each one done.

Differences from FrankaKitchen-v1: observations as one of three vectors (`kitchen_obs`); subtasks may have to be done in
the order given, as in D4RL's kitchen (task_order "enforced"); what was done is copied, never the live list.
"""

from __future__ import annotations

import functools
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from gasp.config import KITCHEN_SETS
from gasp.envs.options import Options
from gasp.envs.robotics import open_robotics
from gasp.kitchen_obs import SIZES, SUBTASKS, convert, done
from rlcore.config import nearest
from rlcore.errors import EnvironmentProblem, UsageError

Array = np.ndarray[Any, Any]
NOISE = {"v1": 0.01, "d4rl": 0.1}  # of the robot's observed joints, as a share of each joint's own amplitude
OPTIONS: dict[str, Any] = {"obs_mode": "state30", "task_order": "any", "noise": "v1", "episode_length": 280}


def subtasks_of(name: str) -> tuple[str, ...]:
    """Of a set's name, or of a list with commas in which _ is a space. UsageError with the nearest name."""
    found = KITCHEN_SETS.get(name) or tuple(part.replace("_", " ").strip() for part in name.split(","))
    for subtask in found:
        if subtask not in SUBTASKS:
            known = f"sets: {', '.join(KITCHEN_SETS)}; subtasks: {', '.join(SUBTASKS)}"
            raise UsageError(f"kitchen: no subtask {subtask!r}{nearest(subtask, SUBTASKS)} ({known})")
    if len(set(found)) < len(found):
        raise UsageError(f"kitchen: a subtask is named twice in {', '.join(found)}")
    return found


class Kitchen(gymnasium.Env[Array, Array]):
    """Do the subtasks: reward 1 for each, and the end when all are done.

    Args:
        subtasks: a set or a list, see `subtasks_of`. obs_mode: of `kitchen_obs.SIZES`.
        task_order: "any", or "enforced": a subtask counts once all before it do.
        noise: of what is observed, "v1", or "d4rl" (ten times as much on the robot's joints).
        episode_length: steps, then the episode is truncated.
    """

    def __init__(
        self, subtasks: str, obs_mode: str = "state30", task_order: str = "any", noise: str = "v1",
        episode_length: int = 280, render: bool = False,
    ) -> None:  # fmt: skip
        for what, value, known in (
            ("obs_mode", obs_mode, SIZES), ("task_order", task_order, ("any", "enforced")), ("noise", noise, NOISE),
        ):  # fmt: skip
            if value not in known:
                raise UsageError(f"kitchen: {what} must be one of {', '.join(known)}, got {value!r}")
        check_mujoco()
        self.subtasks, self.obs_mode, self.order = subtasks_of(subtasks), obs_mode, task_order
        self.render_mode = "rgb_array" if render else None
        self.raw: Any = open_robotics(
            "FrankaKitchen-v1", render_mode=self.render_mode, robot_noise_ratio=NOISE[noise],
            terminate_on_tasks_completed=False,
        )  # fmt: skip
        self.episode_length, self.t = episode_length, 0
        self.observation_space = Box(-np.inf, np.inf, (SIZES[obs_mode],), np.float32)
        self.action_space = Box(-1.0, 1.0, (9,), np.float32)
        self.completed = np.zeros(len(self.subtasks), bool)
        self.last_completed = self.completed  # after the last step; a reset leaves it alone

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """The same beginning always but for the noise on what is observed."""
        super().reset(seed=seed)
        obs, _ = self.raw.reset(seed=seed)
        self.t, self.completed = 0, np.zeros(len(self.subtasks), bool)
        return self._observe(obs), {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Move by joint velocities (9,), cut to [-1, 1] (2 rad/s). info: "success", all done; "completed" (n,)."""
        self.t += 1
        obs = self.raw.step(np.asarray(action, np.float64))[0]
        now = self.completed | done(self.raw.data.qpos, self.subtasks)
        if self.order == "enforced":
            now = np.logical_and.accumulate(now)
        reward = float(now.sum() - self.completed.sum())
        self.completed = self.last_completed = now
        success = bool(now.all())
        truncated = self.t >= self.episode_length and not success
        return self._observe(obs), reward, success, truncated, {"success": success, "completed": now.copy()}

    def _observe(self, obs: Any) -> Array:
        full = np.asarray(obs["observation"], np.float32)
        return convert(full, "full59", self.obs_mode, self.subtasks)

    def render(self) -> Any:
        """(480, 480, 3) uint8. Needs MUJOCO_GL=egl or osmesa."""
        return self.raw.render()

    def close(self) -> None:
        self.raw.close()


def check_mujoco() -> None:
    """EnvironmentProblem where mujoco is too new: gymnasium-robotics 1.4.2 would die of a bare AssertionError."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version("mujoco")
    except PackageNotFoundError:
        raise EnvironmentProblem("FrankaKitchen needs pip install 'gasp[robotics]' (no mujoco found)") from None
    if tuple(int(part) for part in found.split(".")[:2]) >= (3, 12):
        fix = "uv pip install 'mujoco<3.12' (we test 3.3.0)"
        raise EnvironmentProblem(f"FrankaKitchen needs mujoco<3.12, found {found}; run: {fix}")


def __getattr__(name: str) -> Any:
    """Factories by set and options, as rlcore looks them up: `gasp.envs.kitchen:mixed?obs_mode=state30`."""
    if name.startswith("__"):
        raise AttributeError(name)
    options = Options.read(name, OPTIONS)
    return functools.partial(Kitchen, options.name, **options.values)
