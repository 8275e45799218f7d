"""Steps of N envs made into trajectories, in whatever order the envs end theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from collective.data import EACH, ROWS, Array, Dataset, held_out

WIDTHS = {name: int(np.prod(shape)) for name, (_, shape) in ROWS.items()}
ENDS = np.cumsum([0, *WIDTHS.values()]).tolist()
COLUMNS = {name: slice(a, b) for name, a, b in zip(WIDTHS, ENDS, ENDS[1:])}


class Recorder:
    """Rows of running trajectories, and the trajectories that are complete but not yet taken.

    Args:
        task_index: (N,) the task of each env, into `tasks`. horizon: steps of the longest trajectory.
        values: whether `add` is given q_target. Without, it is NaN in the data; a checkpoint may hold none.
    """

    def __init__(self, tasks: Sequence[str], task_index: Array, horizon: int, values: bool = False) -> None:
        self.tasks, self.task_index, self.values = tuple(tasks), task_index, values
        self.rows = np.zeros((len(task_index), horizon, ENDS[-1]), np.float32)
        self.filled = np.zeros(len(task_index), np.int64)
        self.done: list[tuple[Array, Array, Array]] = []  # rows (T, W), last observation, [task, goal]

    def add(self, after: Array, ended: Array, goal_id: Array, **columns: Array) -> None:
        """One step of all envs.

        Args:
            after: (N, 39) what it led to, before any reset. ended: (N,) bool, the trajectory is complete.
            goal_id: (N,) of the episode stepped. columns: the arrays of collective.data.ROWS, (N, ...) each.
        """
        env = np.arange(len(self.filled))
        if not self.values:
            columns["q_target"] = np.zeros(len(env))
        for name, column in COLUMNS.items():
            self.rows[env, self.filled, column] = np.asarray(columns[name], np.float32).reshape(len(env), -1)
        self.filled += 1
        for i in np.flatnonzero(ended):
            numbers = np.array([self.task_index[i], goal_id[i]])
            self.done.append((self.rows[i, : self.filled[i]].copy(), after[i].copy(), numbers))
            self.filled[i] = 0

    @property
    def transitions(self) -> int:
        """Rows of the complete trajectories that have not been taken."""
        return sum(len(rows) for rows, _, _ in self.done)

    def cut(self, obs: Array, goal_id: Array) -> None:
        """End the running trajectories here: obs (N, 39) is what their last steps led to."""
        for i in np.flatnonzero(self.filled):
            numbers = np.array([self.task_index[i], goal_id[i]])
            self.done.append((self.rows[i, : self.filled[i]].copy(), obs[i].copy(), numbers))
            self.filled[i] = 0

    def take(self, meta: Mapping[str, Any] | None = None) -> Dataset | None:
        """The complete trajectories since the last call, None where there are none."""
        done, self.done = self.done, []
        return dataset_of(done, self.tasks, self.values, meta or {}) if done else None

    def state_dict(self) -> dict[str, Any]:
        rows, last, numbers = (list(column) for column in zip(*self.done)) if self.done else ([], [], [])
        running = [self.rows[i, :n].copy() for i, n in enumerate(self.filled)]
        return {"running": running, "rows": rows, "last": last, "numbers": numbers}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for i, rows in enumerate(state["running"]):
            self.filled[i] = len(rows)
            self.rows[i, : len(rows)] = np.asarray(rows)
        columns = (map(np.asarray, state[name]) for name in ("rows", "last", "numbers"))
        self.done = list(zip(*columns))


def dataset_of(
    done: Sequence[tuple[Array, Array, Array]], tasks: Sequence[str], values: bool, meta: Mapping[str, Any]
) -> Dataset:
    """Trajectories as one data set."""
    rows = np.concatenate([each for each, _, _ in done])
    kinds = {name: (dtype, shape) for name, (dtype, shape) in ROWS.items()}
    columns: dict[str, Any] = {
        name: rows[:, COLUMNS[name]].reshape(-1, *shape).astype(dtype) for name, (dtype, shape) in kinds.items()
    }
    if not values:
        columns["q_target"][:] = np.nan
    numbers = np.stack([each for _, _, each in done]).astype(np.int64)
    each: dict[str, Any] = {
        "last_obs": np.stack([last for _, last, _ in done]).astype(np.float32),
        "arm_id": numbers[:, 0] * 0,
    }
    assert each.keys() | {"task_id", "goal_id"} == EACH.keys()
    offsets = np.cumsum([0, *(len(each) for each, _, _ in done)]).astype(np.int64)
    task_id, goal_id = numbers.T.copy()
    return Dataset(
        **columns, **each, task_id=task_id, goal_id=goal_id, offsets=offsets, split=held_out(task_id),
        tasks=tuple(tasks), meta=dict(meta),
    )  # fmt: skip
