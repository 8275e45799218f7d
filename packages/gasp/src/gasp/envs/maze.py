"""PointMaze of gymnasium-robotics as a goal-reaching task: one goal, its reaching ends the episode.

Differences from PointMaze_*-v3: `continuing_task=False`; the observation is (x, y, vx, vy) alone, so the goal does not
move between episodes (v3 shifts it by up to 0.25 m, unseen by a policy that is not told goals).
"""

from __future__ import annotations

import functools
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from gasp.envs.grid import Array, Grid
from gasp.envs.options import Options
from gasp.envs.robotics import open_robotics

MAZES = {"umaze": "UMaze", "medium": "Medium", "large": "Large"}
LENGTHS = {"umaze": 300, "medium": 300, "large": 800}  # steps; v3 gives the medium maze 600
GOALS = {"umaze": "3,1", "medium": "3,4", "large": "3,4"}  # cells that a walk of skills can stumble on
START = "1,1"
OPTIONS: dict[str, Any] = {"goal": "", "start": START, "episode_length": 0}  # empty and 0: as above, by maze


class Maze(gymnasium.Env[Array, Array]):
    """Reach the goal cell's centre within 0.45 m: reward 1 and the end. Observes (x, y, vx, vy), m and m/s.

    Args:
        size: umaze, medium or large. goal, start: cells as "row,column".
        episode_length: steps, then the episode is truncated.
    """

    def __init__(
        self, size: str, goal: str = "", start: str = START, episode_length: int = 0, render: bool = False
    ) -> None:
        mode = "rgb_array" if render else None
        self.raw: Any = open_robotics(f"PointMaze_{MAZES[size]}-v3", continuing_task=False, render_mode=mode)
        self.grid = Grid.of(self.raw.maze.maze_map)
        self.goal_cell = self.grid.checked(goal or GOALS[size], "goal")
        self.start_cell = self.grid.checked(start, "start")
        self.episode_length, self.t = episode_length or LENGTHS[size], 0
        self.observation_space = Box(-np.inf, np.inf, (4,), np.float32)
        self.action_space = Box(-1.0, 1.0, (2,), np.float32)
        self.render_mode = mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Begin at the start, up to 0.25 m off in each axis. options: {"cell": (row, column)} for another start."""
        start = options["cell"] if options else self.start_cell
        obs, _ = self.raw.reset(seed=seed, options={"goal_cell": self.goal_cell, "reset_cell": start})
        self.raw.goal = self.grid.xy(self.goal_cell)
        self.raw.update_target_site_pos()
        self.t = 0
        return np.asarray(obs["observation"], np.float32), {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Push by an action (2,), cut to [-1, 1]."""
        self.t += 1
        obs, reward, terminated, _, info = self.raw.step(action)
        truncated = self.t >= self.episode_length and not terminated
        return np.asarray(obs["observation"], np.float32), float(reward), terminated, truncated, info

    def render(self) -> Any:
        """(480, 480, 3) uint8. Needs MUJOCO_GL=egl or osmesa."""
        return self.raw.render()

    def close(self) -> None:
        self.raw.close()


def __getattr__(name: str) -> Any:
    """Factories by maze and options, as rlcore looks them up: `gasp.envs.maze:medium?goal=3,4`."""
    if name.startswith("__"):
        raise AttributeError(name)
    options = Options.read(name, OPTIONS)
    if options.name not in MAZES:
        raise AttributeError(name)
    return functools.partial(Maze, options.name, **options.values)
