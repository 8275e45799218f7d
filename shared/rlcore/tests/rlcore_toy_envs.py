"""Envs whose every number follows from the reset seed. Tests open them by name, as users do: `rlcore_toy_envs:Toy`."""

import importlib
import time

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete


def length(seed):
    return 1 + seed % 5


def ends(seed):
    """(terminated, truncated) that the last step of the episode reports: three of the four cases, both at once too."""
    return [(True, False), (False, True), (True, True)][seed // 5 % 3]


class Toy(gymnasium.Env):
    """Observation: the reset seed in two 16-bit halves, the step, the sum of actions. Success on even seeds."""

    observation_space = Box(-np.inf, np.inf, (4,), np.float64)
    action_space = Discrete(7)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed, self.step_count, self.sum = seed, 0, 0
        return self._obs(), {}

    def step(self, action):
        assert type(action) is int
        self.step_count += 1
        self.sum += action
        over = self.step_count == length(self.seed)
        terminated, truncated = ends(self.seed) if over else (False, False)
        return self._obs(), self.sum, terminated, truncated, {"is_success": self.seed % 2 == 0} if over else {}

    def _obs(self):
        return np.array([self.seed % 65536, self.seed // 65536, self.step_count, self.sum], np.float64)


class Endless(Toy):
    """Never ends by itself."""

    def step(self, action):
        obs, reward, _, _, _ = super().step(action)
        return obs, reward, False, False, {}


class Noisy(Endless):
    """Draws from a generator that reset(seed) does not reach: cannot be replayed."""

    noise = np.random.default_rng(0)

    def step(self, action):
        return (self.noise.random(4), *super().step(action)[1:])


class Fails(Endless):
    """Its third step raises, on action 6 only."""

    def step(self, action):
        if action == 6 and self.step_count == 2:
            raise ZeroDivisionError("the floor is gone")
        return super().step(action)


class Hangs(Endless):
    def step(self, action):
        if action == 6:
            time.sleep(3600)
        return super().step(action)


class WithDict(Endless):
    """Observation: a Dict of a Discrete (one-hot) and a Box; actions a Box."""

    observation_space = Dict({"at": Discrete(3), "x": Box(-1, 1, (2,), np.float32)})
    action_space = Box(-1, 1, (2,), np.float32)

    def step(self, action):
        return self._obs(), 0.0, False, False, {}

    def _obs(self):
        return {"at": 2, "x": np.array([0.25, 0.5], np.float32)}


class WithoutPackage(gymnasium.Env):
    def __init__(self):
        importlib.import_module("a_simulator_that_is_not_there")


class WithoutRenderer(gymnasium.Env):
    def __init__(self):
        raise AttributeError("'NoneType' object has no attribute 'eglQueryString'")  # PyOpenGL without its library
