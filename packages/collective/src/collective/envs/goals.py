"""The 50 goals of a Meta-World task, as metaworld.MT1(task, seed) draws them.

Upstream resets an env 50 times for them; but the numbers do not depend on the simulator, and are kept in the cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from collective.envs.cache import Array, kept
from collective.envs.single import GOALS
from rlcore.provenance import version_of


def goals_of(task: str, goal_seed: int, env: Any = None) -> Array:
    """(50, d) float64: the vectors that a lean env of `task` begins with.

    `env` is such an env, if there is one: where the goals are not in the cache it draws them, and is to be begun anew.
    """
    from collective.envs.lean import lean_env

    return kept(
        f"goals-{version_of('metaworld')}/{task}-{goal_seed}",
        lambda: {"goals": draw(env or lean_env(task), goal_seed)},
        lambda found: "goals" in found and found["goals"].ndim == 2 and len(found["goals"]) == GOALS,
    )["goals"]


def draw(env: Any, goal_seed: int) -> Array:
    """The goals by the task's own rules, some of which refuse what is too near; with a hand that stays where it is."""
    rng, space, drawn = np.random.RandomState(goal_seed), env._random_reset_space, []

    def vector() -> Array:
        env._last_rand_vec = rng.uniform(space.low, space.high, size=space.low.size)
        return env._last_rand_vec  # type: ignore[no-any-return]

    stubs = {"_get_state_rand_vec": vector, "_reset_hand": lambda steps=50: setattr(env, "init_tcp", env.tcp_center)}
    vars(env).update(stubs)
    try:
        for _ in range(GOALS):
            for _ in range(2):  # upstream's reset draws twice
                env.reset_model()
            drawn.append(env._last_rand_vec)
    finally:
        for name in stubs:
            del vars(env)[name]
    return np.array(drawn)
