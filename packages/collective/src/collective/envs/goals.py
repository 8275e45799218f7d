"""The 50 goals of a Meta-World task: drawn as metaworld.MT1(task, seed) draws them, then kept in a small file.

Upstream resets an env 50 times for them, 100 s of simulator time; the numbers do not depend on the simulator. The
cache is the folder in COLLECTIVE_CACHE, else quintet/collective in XDG_CACHE_HOME or ~/.cache. A file that is damaged
or cannot be written costs a warning and the time to draw again.
"""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from collective.envs.single import GOALS
from rlcore.errors import QuintetWarning
from rlcore.files import write_atomic
from rlcore.provenance import version_of

Array = np.ndarray[Any, Any]
_told: set[str] = set()  # what this process has warned of


def goals_of(env: Any, task: str, goal_seed: int) -> Array:
    """(50, d) float64: the vectors that `env`, a lean env of `task`, begins with. Leaves env to be begun anew."""
    path = folder() / f"goals-{version_of('metaworld')}" / f"{task}-{goal_seed}.npz"
    try:
        with np.load(path) as file:  # a zip: it knows damage by its sums
            found = np.asarray(file["goals"])
        if found.shape != (GOALS, env._random_reset_space.low.size) or found.dtype != np.float64:
            raise ValueError(f"shape {found.shape}, {found.dtype}")
        return found
    except FileNotFoundError:
        pass
    except Exception as error:  # zipfile, zlib and numpy have many
        _warn("damaged", f"the goals in {path} cannot be read ({type(error).__name__}: {error}): drawn anew")
    found = draw(env, goal_seed)
    buffer = io.BytesIO()
    np.savez(buffer, goals=found)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, lambda file: file.write(buffer.getvalue()))
    except OSError as error:
        _warn(
            "unwritable", f"goals cannot be kept in {path.parent} ({error}): drawn at each start; set COLLECTIVE_CACHE"
        )
    return found


def folder() -> Path:
    """Where caches lie."""
    if given := os.environ.get("COLLECTIVE_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "quintet" / "collective"


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


def _warn(kind: str, text: str) -> None:
    if kind not in _told:
        _told.add(kind)
        warnings.warn(text, QuintetWarning, stacklevel=3)
