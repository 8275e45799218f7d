"""Copies of several tasks stepped together, in this process or in others, with the same numbers either way."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from gymnasium.spaces import Box

from collective.config import ACTION_DIM, OBS_DIM
from collective.envs.crew import Crew
from collective.envs.single import Array, Plan
from collective.envs.slots import alone
from rlcore.errors import DataError, EnvironmentProblem, NumericalError, QuintetWarning
from rlcore.seeding import numpy_generator, numpy_state, set_numpy_state
from rlcore.vecenv import VecStep


class TaskVec:
    """rlcore's `VecEnv` over tasks: env i does tasks[i // copies]. Episodes end by truncation at the horizon alone.

    current_obs (N, 39) float32; task_index (N,) into tasks; goal_id (N,) of the running episodes, 0 .. 49; unstable:
    steps so far on which the simulator broke down; restarts: worker processes so far that had to be replaced.
    """

    def __init__(self, plan: Plan, workers: int = 0) -> None:
        self.plan, self.tasks, self.num_envs = plan, plan.tasks, plan.num_envs
        self.task_index = np.arange(self.num_envs) // plan.copies
        self.single_observation_space = Box(-np.inf, np.inf, (OBS_DIM,), np.float32)
        self.single_action_space = Box(-1.0, 1.0, (ACTION_DIM,), np.float32)
        self._random = numpy_generator(plan.seed, "random actions", plan.first_env)
        self.terminated = np.zeros(self.num_envs, bool)
        self._side = 0
        self.slots = Crew(plan, min(workers, plan.num_envs)) if workers > 0 else alone(plan)
        self.board = self.slots.board
        self.current_obs: Array = self.board.obs[0]

    @property
    def goal_id(self) -> Array:
        return self.board.goal_id

    @property
    def unstable(self) -> int:
        return int(self.board.unstable.sum())

    @property
    def restarts(self) -> int:
        return self.slots.restarts

    def _flip(self) -> int:
        self._side = 1 - self._side
        self.current_obs = self.board.obs[self._side]
        return self._side

    def reset(self) -> Array:
        """Begin the next episode of every env. Returns the first observations (N, 39)."""
        self.slots.reset(self._flip())
        return self.current_obs

    def step(self, action: Array, stop: Array | None = None) -> VecStep:
        """Do the actions (N, 4), cut to [-1, 1]. info: "success" (N,) of this step. NumericalError where one is NaN.

        Where `stop` (N,) holds, the episode ends with this step, as if it were its last.
        """
        if stop is None:
            self.board.stop.fill(False)
        else:
            self.board.stop[:] = stop
        shown = self.board.action
        np.minimum(np.maximum(action, -1.0, out=shown), 1.0, out=shown)
        flat = shown.reshape(-1)
        if (total := flat.dot(flat)) != total:
            i = int(np.isnan(shown).any(1).argmax())
            raise NumericalError(f"env {self.plan.first_env + i} was given an action with NaN in it")
        self.slots.step(self._flip())
        board = self.board
        info = {"success": board.success}
        return VecStep(self.current_obs, board.reward, self.terminated, board.truncated, board.final_obs, info)

    def sample(self) -> Array:
        """(N, 4) uniform random actions, from the vector's own generator."""
        return self._random.uniform(-1.0, 1.0, (self.num_envs, ACTION_DIM)).astype(np.float32)

    def state_dict(self) -> dict[str, Any]:
        """Episodes, their actions since the start, counters and the generator of `sample`."""
        board = self.board
        actions = [board.history[i, :t] for i, t in enumerate(board.t)]
        return {
            "episode": board.episode.copy(), "t": board.t.copy(), "unstable": board.unstable.copy(),
            "actions": np.concatenate(actions), "obs": self.current_obs.copy(), "random": numpy_state(self._random),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to the very step, by replaying each episode's actions; leaves the observation in current_obs."""
        board, t = self.board, np.asarray(state["t"])
        if t.shape != board.t.shape or t.max() >= self.plan.horizon:
            text = f"{len(t)} envs, at most at step {t.max()}; expected {self.num_envs} of {self.plan.horizon} steps"
            raise DataError(f"saved envs do not fit: {text}")
        board.t[:], board.episode[:] = t, np.asarray(state["episode"])
        board.unstable[:] = np.asarray(state["unstable"])
        for i, actions in enumerate(np.split(np.asarray(state["actions"]), np.cumsum(t)[:-1])):
            board.history[i, : len(actions)] = actions
        set_numpy_state(self._random, state["random"])
        self.slots.replay(self._flip())
        other = (self.current_obs != np.asarray(state["obs"])).any(1) & (board.episode >= 0)
        if other.any():
            text = "does not replay: another simulator or version than it was saved with?"
            warnings.warn(f"env {self.plan.first_env + other.argmax()} {text}", QuintetWarning, stacklevel=2)

    def render(self, i: int) -> Array:
        """(H, W, 3) uint8 of env i. EnvironmentProblem where it was opened without render=True."""
        if not self.plan.render:
            raise EnvironmentProblem("envs were opened without render=True: no picture can be drawn")
        return self.slots.render(i)

    def close(self) -> None:
        """End all envs; twice is once."""
        self.slots.close()
