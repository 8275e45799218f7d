"""What the kitchen shows, and where its subtasks want things to be. Plain numbers: needs no simulator.

full59     qpos of the robot 9, its qvel 9, qpos of the objects 21, their qvel 20: FrankaKitchen-v1
state30    qpos of robot and objects, no velocities
legacy60   state30 and the goal, 30 numbers, 0 where nothing is asked: D4RL's
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlcore.errors import DataError

Array = np.ndarray[Any, Any]
SIZES = {"full59": 59, "state30": 30, "legacy60": 60}
REACHED = 0.3  # Euclidean distance of an element from its goal below which a subtask is done
# Indices into the 30 numbers of qpos, and what they shall be (gymnasium-robotics 1.4.2, kitchen_env.py).
GOALS: dict[str, tuple[tuple[int, ...], tuple[float, ...]]] = {
    "microwave": ((22,), (-0.75,)),
    "kettle": ((23, 24, 25, 26, 27, 28, 29), (-0.23, 0.75, 1.62, 0.99, 0.0, 0.0, -0.06)),
    "bottom burner": ((11, 12), (-0.88, -0.01)),
    "top burner": ((15, 16), (-0.92, -0.01)),
    "light switch": ((17, 18), (-0.69, -0.05)),
    "slide cabinet": ((19,), (0.37,)),
    "hinge cabinet": ((20, 21), (0.0, 1.45)),
}
SUBTASKS = tuple(GOALS)


def done(qpos: Array, subtasks: Sequence[str]) -> Array:
    """(n,) bool: which of n subtasks are done where qpos is (30,)."""
    return np.array([np.linalg.norm(qpos[list(GOALS[s][0])] - GOALS[s][1]) < REACHED for s in subtasks])


def goal_vector(subtasks: Sequence[str]) -> Array:
    """(30,) float32: the goals of some subtasks, 0 elsewhere."""
    goal = np.zeros(30, np.float32)
    for subtask in subtasks:
        indices, values = GOALS[subtask]
        goal[list(indices)] = values
    return goal


def convert(obs: Array, have: str, want: str, subtasks: Sequence[str] = ()) -> Array:
    """Observations (..., S) of one mode in another one: legacy60 gets the goals of `subtasks`.

    Raises: DataError where velocities are asked for that were never recorded, or goals of nobody knows what.
    """
    if obs.shape[-1] != SIZES[have]:
        raise DataError(f"obs: {have} has {SIZES[have]} numbers, got {obs.shape[-1]}")
    if have == want:
        return obs
    if want == "full59":
        raise DataError(f"obs: {have} holds no velocities, full59 needs them; use obs_mode {have} or state30")
    state = np.concatenate((obs[..., :9], obs[..., 18:39]), -1) if have == "full59" else obs[..., :30]
    if want == "state30":
        return state
    if not subtasks:
        raise DataError("obs: legacy60 needs the goals of the subtasks, which are unknown here; use obs_mode state30")
    goal = np.broadcast_to(goal_vector(subtasks), (*state.shape[:-1], 30))
    return np.concatenate((state, goal), -1).astype(obs.dtype)
