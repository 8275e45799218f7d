"""The native tasks as ordinary Gymnasium environments, so that other libraries can train on the very same episodes.

mpn.envs.gym.register(); gymnasium.make("mpn/TMaze-v0", length=20)      or as module:factory, mpn.envs.gym:t_maze
"""

from __future__ import annotations

from typing import Any, cast

import gymnasium
import numpy as np

from mpn.envs import NATIVE, make
from mpn.envs.native import NativeVec


class MemoryEnv(gymnasium.Env[Any, Any]):
    """One native env. reset(seed=s) begins the episode that the vector env has where its episode seed is s."""

    metadata = {"render_modes": []}  # noqa: RUF012 - gymnasium's own declaration

    def __init__(self, env_id: str = "mpn/TMaze-v0", **options: Any) -> None:
        self.vec = cast(NativeVec, make(env_id, 1, seed=0, **options))
        self.observation_space = self.vec.single_observation_space
        self.action_space = self.vec.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        chosen = int(self.np_random.integers(2**31)) if seed is None else seed
        return self.vec.start(0, chosen)[0].copy(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        step = self.vec.step(np.array([action]))
        terminated, truncated = bool(step.terminated[0]), bool(step.truncated[0])
        ended = terminated or truncated
        info = {"success": bool(step.info["success"][0])} if ended and step.info else {}
        obs = step.final_obs if ended else step.obs
        return obs[0].copy(), float(step.reward[0]), terminated, truncated, info


def t_maze(**options: Any) -> MemoryEnv:
    return MemoryEnv("mpn/TMaze-v0", **options)


def delayed_match(**options: Any) -> MemoryEnv:
    return MemoryEnv("mpn/DelayedMatch-v0", **options)


def temporal_order(**options: Any) -> MemoryEnv:
    return MemoryEnv("mpn/TemporalOrder-v0", **options)


def cartpole_masked(**options: Any) -> MemoryEnv:
    return MemoryEnv("mpn/CartPoleMasked-v0", **options)


def register() -> None:
    """Make the mpn/... ids known to `gymnasium.make`. Calling it again changes nothing."""
    for env_id in NATIVE:
        if env_id.startswith("mpn/") and env_id not in gymnasium.registry:
            gymnasium.register(env_id, entry_point=MemoryEnv, kwargs={"env_id": env_id})
