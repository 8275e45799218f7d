"""The toy: a point pushed along corridors, in closed form, no simulator.

v' = 0.5 v + 0.1 a, x' = x + v' in each axis, where a in [-1, 1]; a wall stops the axis that runs into it. So it moves
at most 0.2 m a step, and corridors are 1 m wide.
"""

from __future__ import annotations

import functools
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from gasp.envs.grid import GOAL_RADIUS, Array, Grid
from gasp.envs.options import Options

MAP = [
    "1111111",
    "1000001",
    "1011101",
    "1000001",
    "1111111",
]
START, GOAL = "1,1", "3,5"
DRAG, PUSH, RADIUS = 0.5, 0.1, 0.2  # of the speed kept a step; m a step gained by full push; of the point, m
OPTIONS: dict[str, Any] = {"goal": GOAL, "start": START, "episode_length": 100}


class Toy(gymnasium.Env[Array, Array]):
    """Reach the goal: reward 1 and the end. Observes (x, y, vx, vy), m and m a step.

    Args:
        goal, start: cells as "row,column". episode_length: steps, then the episode is truncated.
    """

    def __init__(self, goal: str = GOAL, start: str = START, episode_length: int = 100, render: bool = False) -> None:
        self.grid = Grid.of(MAP)
        self.goal = self.grid.xy(self.grid.checked(goal, "goal"))
        self.start = self.grid.xy(self.grid.checked(start, "start"))
        self.episode_length, self.t = episode_length, 0
        self.observation_space = Box(-np.inf, np.inf, (4,), np.float32)
        self.action_space = Box(-1.0, 1.0, (2,), np.float32)
        self.render_mode = "rgb_array" if render else None
        self.state = np.zeros(4)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Begin at the start, up to 0.25 m off in each axis. options: {"cell": (row, column)} for another start."""
        super().reset(seed=seed)
        start = self.grid.xy(options["cell"]) if options else self.start
        self.state[:2], self.state[2:] = start + self.np_random.uniform(-0.25, 0.25, 2), 0.0
        self.t = 0
        return self.state.astype(np.float32), {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Move by an action (2,), cut to [-1, 1]."""
        self.t += 1
        push = np.clip(np.asarray(action, np.float64), -1.0, 1.0)
        for axis in range(2):
            self._move(axis, push[axis])
        success = bool(np.hypot(*(self.state[:2] - self.goal)) <= GOAL_RADIUS)
        return (
            self.state.astype(np.float32), float(success), success, self.t >= self.episode_length and not success,
            {"success": success},
        )  # fmt: skip

    def _move(self, axis: int, push: float) -> None:
        speed = DRAG * self.state[2 + axis] + PUSH * push
        old = self.state[axis]
        self.state[axis] += speed
        ahead = self.state[:2].copy()
        ahead[axis] += RADIUS * np.sign(speed)
        if np.isfinite(ahead).all() and not self.grid.free[self.grid.cell(ahead)]:  # NaN goes on, for its maker to find
            centre = self.grid.xy(self.grid.cell(np.where(np.arange(2) == axis, old, self.state[:2])))[axis]
            self.state[axis] = centre + np.sign(speed) * (0.5 - RADIUS - 1e-9)
            speed = 0.0
        self.state[2 + axis] = speed

    def render(self) -> Any:
        """(200, 280, 3) uint8: walls grey, goal green, the point red."""
        scale = 40
        picture = np.where(self.grid.free[..., None], 255, 120).astype(np.uint8).repeat(3, -1)
        picture = picture.repeat(scale, 0).repeat(scale, 1)
        rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]] / scale
        height, width = self.grid.free.shape
        for xy, radius, colour in ((self.goal, GOAL_RADIUS, (120, 200, 120)), (self.state[:2], RADIUS, (200, 60, 60))):
            near = np.hypot(columns - width / 2 - xy[0], height / 2 - rows - xy[1]) < radius
            picture[near] = colour
        return picture


def __getattr__(name: str) -> Any:
    """Factories by their options, as rlcore looks them up: `gasp.envs.toy:?goal=3,5`."""
    if name.startswith("__"):
        raise AttributeError(name)
    return functools.partial(Toy, **Options.read(name, OPTIONS).values)
