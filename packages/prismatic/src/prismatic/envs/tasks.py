"""Vector envs of several tasks as one: rows of different tasks, padded with zeros to the same widths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Box

from prismatic.config import TaskSpec
from rlcore.vecenv import VecEnv, VecStep

Array = np.ndarray[Any, Any]


class TaskEnvs:
    """A VecEnv (rlcore.vecenv) of E = tasks x envs rows, task by task.

    Args:
        parts: one vector env a task, with Box actions in [-1, 1].
        tasks: their sizes.
    """

    def __init__(self, parts: Sequence[VecEnv], tasks: Sequence[TaskSpec]) -> None:
        self.parts, self.tasks = list(parts), list(tasks)
        sizes = [part.num_envs for part in parts]
        self.num_envs = sum(sizes)
        self.task_id = np.repeat(np.arange(len(parts)), sizes)  # (E,)
        ends = np.cumsum(sizes)
        self.rows = [slice(int(end) - size, int(end)) for end, size in zip(ends, sizes)]
        width = max(t.obs_dim for t in tasks), max(t.action_dim for t in tasks)
        self.single_observation_space = Box(-np.inf, np.inf, (width[0],), np.float32)
        self.single_action_space = Box(-1.0, 1.0, (width[1],), np.float32)
        self._pair = [np.zeros((self.num_envs, width[0]), np.float32) for _ in range(2)]
        self.current_obs, self.final_obs = self._pair[0], np.zeros_like(self._pair[0])
        self.reward = np.zeros(self.num_envs, np.float32)
        self.not_replayed = np.zeros(self.num_envs, bool)  # whose episode could not be brought back
        self._random, self._drawn = np.zeros((self.num_envs, width[1]), np.float32), 0
        self.terminated, self.truncated, self.success = np.zeros((3, self.num_envs), bool)

    def reset(self) -> Array:
        return self._observe([part.reset() for part in self.parts])

    def step(self, action: Array) -> VecStep:
        """action (E, A); what a task has no use for is cut off."""
        moves = [
            part.step(action[rows, : task.action_dim]) for part, rows, task in zip(self.parts, self.rows, self.tasks)
        ]
        told = all("success" in moved.info for moved in moves)
        for rows, task, moved in zip(self.rows, self.tasks, moves):
            self.reward[rows], self.terminated[rows], self.truncated[rows] = moved[1:4]
            self.final_obs[rows, : task.obs_dim] = moved.final_obs
            if told:
                self.success[rows] = moved.info["success"]
        obs = self._observe([moved.obs for moved in moves])
        info = {"success": self.success} if told else {}
        return VecStep(obs, self.reward, self.terminated, self.truncated, self.final_obs, info)

    def _observe(self, parts: Sequence[Array]) -> Array:
        self._pair.reverse()  # the observation before stays whole for one more step
        self.current_obs = self._pair[0]
        for rows, task, obs in zip(self.rows, self.tasks, parts):
            self.current_obs[rows, : task.obs_dim] = obs
        return self.current_obs

    def sample(self, hold: int = 1, at_limits: bool = False) -> Array:
        """Random actions (E, A), zero where a task has no use for them; new ones at every `hold`-th call.

        With `at_limits` each value is -1 or 1, which takes a body furthest (Seyde et al. 2021, arXiv:2111.02552).
        """
        if self._drawn % hold == 0:
            self._random = np.zeros_like(self._random)
            for part, rows, task in zip(self.parts, self.rows, self.tasks):
                drawn = part.sample()
                self._random[rows, : task.action_dim] = np.where(drawn < 0, -1, 1) if at_limits else drawn
        self._drawn += 1
        return self._random

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts], "random": self._random, "drawn": self._drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for part, rows, saved in zip(self.parts, self.rows, state["parts"], strict=True):
            part.load_state_dict(saved)
            self.not_replayed[rows] = (part.current_obs != np.asarray(saved["obs"])).any(1)
        self._random, self._drawn = np.asarray(state["random"]).copy(), int(state["drawn"])
        self._observe([part.current_obs for part in self.parts])

    def close(self) -> None:
        for part in self.parts:
            part.close()
