"""Meta-World's scripted experts, fast: the same actions, without the warnings about large ones. Imports Meta-World."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from metaworld.policies import ENV_POLICY_MAP

from collective.envs.rebind import rebound
from collective.envs.standins import GLOBALS, Array


class Action:
    """Of an expert: "delta_pos" is the first three numbers, anything else the last."""

    def __init__(self, _structure: Any) -> None:
        self.array = np.zeros(4, np.float32)

    def __setitem__(self, key: str, value: Any) -> None:
        if key == "delta_pos":
            self.array[:3] = value
        else:
            self.array[3] = value


def move(from_xyz: Array, to_xyz: Array, p: float) -> Array:
    """In proportion to what is left to go."""
    return p * (to_xyz - from_xyz)  # type: ignore[no-any-return]


def expert(task: str) -> Callable[[Array], Array]:
    """The expert of `task`: observation (39,) float64 -> action (4,) float32, not yet cut to [-1, 1]."""
    original = ENV_POLICY_MAP[task]
    functions, names = rebound(original, {"np": GLOBALS["np"], "Action": Action, "move": move})
    cls = type(f"Lean{original.__name__}", (original,), functions)
    names[original.__name__] = cls
    action: Callable[[Array], Array] = cls().get_action
    return action
