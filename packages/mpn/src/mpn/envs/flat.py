"""Vector envs whose observations are not 1-D float32, made so."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box

from rlcore.vecenv import VecEnv, VecStep

Array = np.ndarray[Any, Any]


class FlatVec:
    """`vec` with observations (N, ...) as (N, O) float32."""

    def __init__(self, vec: VecEnv) -> None:
        self.vec, self.num_envs, self.single_action_space = vec, vec.num_envs, vec.single_action_space
        space = vec.single_observation_space
        low, high = space.low.ravel().astype(np.float32), space.high.ravel().astype(np.float32)
        self.single_observation_space: Box[Any] = Box(low, high, dtype=np.float32)
        self.current_obs = self._flat(vec.current_obs)
        self.sample, self.state_dict, self.close = vec.sample, vec.state_dict, vec.close

    def reset(self) -> Array:
        self.current_obs = self._flat(self.vec.reset())
        return self.current_obs

    def step(self, action: Array) -> VecStep:
        step = self.vec.step(action)
        self.current_obs = self._flat(step.obs)
        return step._replace(obs=self.current_obs, final_obs=self._flat(step.final_obs))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.vec.load_state_dict(state)
        self.current_obs = self._flat(self.vec.current_obs)

    def _flat(self, obs: Array) -> Array:
        return obs.reshape(self.num_envs, -1).astype(np.float32)
