"""A task without a simulator: move a point to a place. For tests, and for a first look on any machine."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

Array = np.ndarray[Any, Any]
TASKS = ("toy-reach", "toy-cross")


class Reach(gymnasium.Env[Array, Array]):
    """A point with inertia in [-1, 1]^2 and a place to be at; `cross` turns the force around where x < 0.

    Observation: position, velocity, place (6). Action: force (2). Reward: 1 at the place, 0 from a distance of 1 on.
    50 steps, never terminates. The two halves of `cross` are the two modes that experts should find.
    """

    episode_length, can_terminate = 50, False
    metadata = {"render_fps": 20}  # noqa: RUF012 - Gymnasium's own name and form

    def __init__(self, cross: bool = False) -> None:
        self.observation_space = Box(-np.inf, np.inf, (6,), np.float32)
        self.action_space = Box(-1.0, 1.0, (2,), np.float32)
        self.cross, self.time = cross, 0
        self.position, self.velocity, self.place = np.zeros((3, 2))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self.position, self.place = self.np_random.uniform(-0.9, 0.9, (2, 2))
        self.velocity, self.time = np.zeros(2), 0
        return self._obs(), {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        force = np.clip(action, -1, 1) * (-1 if self.cross and self.position[0] < 0 else 1)
        self.velocity = 0.7 * self.velocity + 0.06 * force
        moved = self.position + self.velocity
        self.position = np.clip(moved, -1, 1)
        self.velocity[moved != self.position] = 0.0
        self.time += 1
        distance = float(np.linalg.norm(self.position - self.place))
        return (
            self._obs(),
            max(0.0, 1.0 - distance),
            False,
            self.time >= self.episode_length,
            {"success": distance < 0.1},
        )

    def render(self) -> Array:
        """(96, 96, 3) uint8: the place blue, the point orange."""
        picture = np.full((96, 96, 3), 255, np.uint8)
        for (x, y), colour in ((self.place, (40, 90, 200)), (self.position, (240, 140, 20))):
            column, row = int(47.5 * (1 + x)), int(47.5 * (1 - y))
            picture[max(row - 3, 0) : row + 4, max(column - 3, 0) : column + 4] = colour
        return picture

    def _obs(self) -> Array:
        return np.concatenate([self.position, self.velocity, self.place]).astype(np.float32)


def __getattr__(name: str) -> Any:
    """Factories by task name, as rlcore looks them up: `prismatic.envs.toy:toy-reach`."""
    if name in TASKS:
        return lambda: Reach(cross=name == "toy-cross")
    raise AttributeError(name)
