"""What all native environments share: N episodes stepped as arrays, their seeds, ends and resets."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from gymnasium.spaces import Box, Discrete

from rlcore.errors import DataError
from rlcore.seeding import episode_seed, numpy_state, set_numpy_state
from rlcore.vecenv import Batch, VecStep

Array = np.ndarray[Any, Any]


class Task(Protocol):
    """The rules of N episodes. `elapsed` (N,) counts the steps each has taken."""

    observation_space: Box[Any]
    action_space: Discrete
    max_episode_steps: int
    has_success: bool  # a positive reward at a terminated step is a success
    arrays: dict[str, Array]  # what changes within an episode, beyond `begin` and `elapsed`

    def begin(self, env: int, seed: int) -> None: ...  # `seed` alone decides the episode
    def advance(
        self, action: Array, elapsed: Array, reward: Array, terminated: Array
    ) -> None: ...  # fills the last two
    def observe(self, elapsed: Array, out: Array) -> None: ...  # fills out (N, O)


class NativeVec(Batch):
    """A `Task` behind rlcore's `VecEnv` contract: same-step autoreset, true final observation, (s, i, k) seeds."""

    def __init__(
        self, task: Task, num_envs: int, *, seed: int, first_env: int = 0, max_episode_steps: int | None = None
    ) -> None:
        super().__init__(num_envs, task.observation_space, task.action_space, seed, first_env)
        self.task, self.limit = task, max_episode_steps or task.max_episode_steps
        self.episode, self.elapsed = np.full(num_envs, -1), np.zeros(num_envs, np.int64)

    def reset(self) -> Array:
        for i in range(self.num_envs):
            self._next_episode(i)
        return self._observe()

    def start(self, env: int, seed: int) -> Array:
        """Begin the episode of `seed` in `env`, outside the (s, i, k) rule. Returns all observations."""
        self.task.begin(env, seed)
        self.elapsed[env] = 0
        return self._observe()

    def step(self, action: Array) -> VecStep:
        out, task = self.flip(), self.task
        self.elapsed += 1
        task.advance(action, self.elapsed, self.reward, self.terminated)
        task.observe(self.elapsed, out)
        np.greater_equal(self.elapsed, self.limit, out=self.truncated)
        np.greater(self.truncated, self.terminated, out=self.truncated)  # and not terminated
        done = self.terminated | self.truncated
        self.success.fill(False)
        if np.count_nonzero(done):
            np.copyto(self.final_obs, out)
            if task.has_success:
                np.logical_and(self.terminated, self.reward > 0, out=self.success)
            for i in np.flatnonzero(done).tolist():
                self._next_episode(i)
            task.observe(self.elapsed, out)
        return self.outputs(task.has_success)

    def state_dict(self) -> dict[str, Any]:
        arrays = {"episode": self.episode, "elapsed": self.elapsed, **self.task.arrays}
        return {name: a.copy() for name, a in arrays.items()} | {"random": numpy_state(self.random.np_random)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        episode = np.asarray(state["episode"])
        if len(episode) != self.num_envs:
            raise DataError(f"the saved state is of {len(episode)} envs, this run has {self.num_envs}: use as many")
        self.episode[:], self.elapsed[:] = episode, np.asarray(state["elapsed"])
        for i, k in enumerate(episode.tolist()):
            if k >= 0:
                self.task.begin(i, episode_seed(self.seed, self.first_env + i, k))
        for name, array in self.task.arrays.items():
            array[:] = np.asarray(state[name])
        set_numpy_state(self.random.np_random, state["random"])
        self._observe()

    def close(self) -> None:
        pass

    def _next_episode(self, env: int) -> None:
        self.episode[env] += 1
        self.elapsed[env] = 0
        self.task.begin(env, episode_seed(self.seed, self.first_env + env, int(self.episode[env])))

    def _observe(self) -> Array:
        out = self.flip()
        self.task.observe(self.elapsed, out)
        return out
