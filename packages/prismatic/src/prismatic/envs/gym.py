"""Any Gymnasium env with a Box of actions, and `module:factory`: actions always rescaled to [-1, 1]."""

from __future__ import annotations

import functools
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from rlcore.envs import make_env
from rlcore.errors import EnvironmentProblem


def make(name: str, **options: Any) -> gymnasium.Env[Any, Any]:
    """The env, made with `options`, with 1-D observations. EnvironmentProblem for discrete or unbounded actions."""
    env = make_env(name, **options)
    action, obs = env.action_space, env.observation_space
    if not isinstance(action, Box) or not np.isfinite([action.low, action.high]).all():
        env.close()
        raise EnvironmentProblem(f"{name} has actions {action}: a bounded Box is needed")
    if not (np.all(action.low == -1.0) and np.all(action.high == 1.0)):
        env = gymnasium.wrappers.RescaleAction(env, np.float32(-1.0), np.float32(1.0))
    return env if len(obs.shape or ()) == 1 else gymnasium.wrappers.FlattenObservation(env)


def __getattr__(name: str) -> Any:
    """Factories by id, as rlcore looks them up: `prismatic.envs.gym:Pendulum-v1`."""
    if name.startswith("__"):
        raise AttributeError(name)
    return functools.partial(make, name)
