"""Environments by their names: native ones as arrays, all others through rlcore. Discrete actions, 1-D observations.

    CartPole-v1                            mpn/CartPoleMasked-v0                   positions only
    mpn/TMaze-v0:length=10                 mpn/DelayedMatch-v0:items=4,delay=6     mpn/TemporalOrder-v0:window=5

What follows the colon (the defaults are shown) can be given as keyword arguments instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from gymnasium.spaces import Discrete

from mpn.envs.cartpole import CartPole
from mpn.envs.flat import FlatVec
from mpn.envs.memory import MemoryTask, delayed_match, t_maze, temporal_order
from mpn.envs.native import NativeVec, Task
from rlcore.envs import nearest
from rlcore.errors import EnvironmentProblem, UsageError
from rlcore.vecenv import VecEnv, make_vec

NATIVE: dict[str, Callable[..., Task]] = {
    "CartPole-v1": CartPole,
    "mpn/CartPoleMasked-v0": lambda n: CartPole(n, hide_speeds=True),
    "mpn/TMaze-v0": lambda n, **options: MemoryTask(n, t_maze(**options)),
    "mpn/DelayedMatch-v0": lambda n, **options: MemoryTask(n, delayed_match(**options)),
    "mpn/TemporalOrder-v0": lambda n, **options: MemoryTask(n, temporal_order(**options)),
}


def make(
    env_id: str, num_envs: int, *, seed: int, first_env: int = 0, max_episode_steps: int | None = None, **options: Any
) -> VecEnv:
    """`num_envs` copies of `env_id`, numbered from `first_env` in the seeding rule of `rlcore.vecenv`.

    options: of the native task, or of `rlcore.vecenv.make_vec` (backend) for any other id.
    """
    name, _, suffix = env_id.partition(":")
    if name in NATIVE:
        try:
            task = NATIVE[name](num_envs, **_parse(suffix), **options)
        except (TypeError, ValueError) as error:
            raise UsageError(f"environment {env_id!r}: {error}; expected e.g. mpn/TMaze-v0:length=10") from error
        native = NativeVec(task, num_envs, seed=seed, first_env=first_env, max_episode_steps=max_episode_steps)
        return cast(VecEnv, native)
    if env_id.startswith("mpn/"):
        raise UsageError(f"no environment {env_id!r}: {nearest(name, NATIVE)}")
    vec = make_vec(env_id, num_envs, seed=seed, first_env=first_env, max_episode_steps=max_episode_steps, **options)
    space, action = vec.single_observation_space, vec.single_action_space
    is_image = len(space.shape) > 1 and (space.dtype == "uint8" or space.low.size > 4096)
    if is_image or not isinstance(action, Discrete) or action.start != 0:
        vec.close()
        raise EnvironmentProblem(
            f"{env_id} has observations {space} and actions {action}: Discrete actions and 1-D observations only"
        )
    return vec if len(space.shape) == 1 and space.dtype == "float32" else cast(VecEnv, FlatVec(vec))


def _parse(suffix: str) -> dict[str, int]:
    """length=10,delay=3 -> numbers by name."""
    pairs = [part.split("=") for part in suffix.split(",") if part]
    return {key: int(value) for key, value in pairs}
