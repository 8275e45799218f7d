"""The last steps of many episodes: kept while acting, cut from a data set for learning. numpy only.

A window holds up to L states and the L - 1 actions and rewards between them. It is right-aligned: the newest state is
the last one, what is missing is zero on the left. Action j and reward j lie between states j and j + 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from collective.config import ACTION_DIM, STATE_COLUMNS, STATE_DIM, WINDOW

if TYPE_CHECKING:
    from collective.data import Dataset

Array = np.ndarray[Any, Any]
_COLUMNS = np.array(STATE_COLUMNS)


def compress(obs: Array) -> Array:
    """The state in an observation: (..., 39) -> (..., 21), this frame and the goal."""
    return obs[..., _COLUMNS]


class Rolling:
    """The windows of N running episodes.

    states (N, L, 21), actions (N, L-1, 4), rewards (N, L-1) raw, float32; lengths (N,) int64, states that count.
    """

    def __init__(self, num_envs: int, length: int = WINDOW) -> None:
        self.length = length
        self.states = np.zeros((num_envs, length, STATE_DIM), np.float32)
        self.actions = np.zeros((num_envs, length - 1, ACTION_DIM), np.float32)
        self.rewards = np.zeros((num_envs, length - 1), np.float32)
        self.lengths = np.ones(num_envs, np.int64)

    def begin(self, obs: Array, where: Array | None = None) -> None:
        """First observations (N, 39) of episodes, of all or `where` (N,) bool."""
        chosen = np.ones(len(self.lengths), bool) if where is None else where
        for kept in (self.states, self.actions, self.rewards):
            kept[chosen] = 0.0
        self.states[chosen, -1] = compress(obs)[chosen]
        self.lengths[chosen] = 1

    def advance(self, action: Array, reward: Array, obs: Array, done: Array | None = None) -> None:
        """One step of all: actions (N, 4), rewards (N,), observations (N, 39), of the next episode where `done`."""
        for kept, new in ((self.states, compress(obs)), (self.actions, action), (self.rewards, reward)):
            kept[:, :-1] = kept[:, 1:]
            kept[:, -1] = new
        np.minimum(self.lengths + 1, self.length, out=self.lengths)
        if done is not None and done.any():
            self.begin(obs, done)

    def arrays(self) -> tuple[Array, Array, Array, Array]:
        """states, actions, rewards, lengths, as an encoder takes them."""
        return self.states, self.actions, self.rewards, self.lengths

    def state_dict(self) -> dict[str, Any]:
        names = ("states", "actions", "rewards", "lengths")
        return {name: getattr(self, name).copy() for name in names}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            getattr(self, name)[...] = np.asarray(value)


def windows_of(data: Dataset, rows: Array, length: int = WINDOW) -> tuple[Array, Array, Array, Array]:
    """The windows that end with the observations of `rows` (B,), none reaching into another trajectory.

    Returns: states (B, L, 21), actions (B, L-1, 4), rewards (B, L-1), lengths (B,).
    """
    first = data.offsets[data.trajectory_of_rows[rows]]
    lengths = np.minimum(rows - first + 1, length)
    back = np.arange(length - 1, -1, -1)  # how many steps ago
    index = np.maximum(rows[:, None] - back, 0)
    inside = back < lengths[:, None]
    states = np.where(inside[..., None], compress(data.obs[index]), 0.0).astype(np.float32, copy=False)
    between = inside[:, :-1]  # action j leads from state j
    actions = np.where(between[..., None], data.action[index[:, :-1]], 0.0).astype(np.float32, copy=False)
    rewards = np.where(between, data.reward[index[:, :-1]], 0.0).astype(np.float32, copy=False)
    return states, actions, rewards, lengths.astype(np.int64)
