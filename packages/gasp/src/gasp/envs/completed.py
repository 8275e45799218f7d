"""A vector of kitchens that says which subtasks are done, which rlcore's contract does not carry."""

from __future__ import annotations

from typing import Any

import numpy as np

from rlcore.vecenv import VecEnv, VecStep
from rlcore.vecworkers import AsyncVec

Array = np.ndarray[Any, Any]


class Kitchens:
    """A `VecEnv` whose info has "completed" (N, n) bool as well: after the step, before any reset."""

    def __init__(self, vec: VecEnv) -> None:
        self.vec, self.num_envs = vec, vec.num_envs
        self.single_observation_space, self.single_action_space = vec.single_observation_space, vec.single_action_space

    @property
    def current_obs(self) -> Array:
        return self.vec.current_obs

    @current_obs.setter
    def current_obs(self, value: Array) -> None:
        self.vec.current_obs = value

    def reset(self) -> Array:
        return self.vec.reset()

    def step(self, action: Array) -> VecStep:
        moved = self.vec.step(action)
        if isinstance(self.vec, AsyncVec):
            flags = self.vec.vec.get_attr("last_completed")
        else:
            envs: Any = self.vec
            flags = [env.unwrapped.last_completed for env in envs.envs]
        return moved._replace(info={**moved.info, "completed": np.array(flags)})

    def sample(self) -> Array:
        return self.vec.sample()

    def state_dict(self) -> dict[str, Any]:
        return self.vec.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.vec.load_state_dict(state)

    def close(self) -> None:
        self.vec.close()
