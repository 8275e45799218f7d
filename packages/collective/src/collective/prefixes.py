"""Windows to learn from and to be examined on: of every task alike, full ones and the short ones of an episode's start.

Acting begins with windows of one state, of two, ...; learning from full windows alone would leave those to chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from collective.data import Dataset
from collective.model import Group, Windows
from collective.windows import windows_of
from rlcore.seeding import numpy_state, set_numpy_state

Array = np.ndarray[Any, Any]


class Batch(NamedTuple):
    """Windows and what they are of."""

    windows: Windows  # raw
    task: Tensor  # (B,) int64
    arm: Tensor  # (B,) int64


class WindowSampler:
    """Endless batches of windows with as many of each task: no task comes again before all have come.

    Args:
        full_share: of the windows that are full; the others have 1 .. length - 1 states, all as likely.
        start_share: of the shorter ones that begin with their trajectory.
        rng: decides everything.
    """

    def __init__(
        self, data: Dataset, length: int, batch: int, full_share: float, start_share: float, rng: np.random.Generator,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        self.data, self.length, self.batch, self.rng = data, length, batch, rng
        self.device = torch.device(device)
        self.full_share, self.start_share = full_share, start_share
        self.by_task = np.argsort(data.task_id, kind="stable")  # trajectories, task after task
        self.count = np.bincount(data.task_id, minlength=len(data.tasks))  # (tasks,)
        self.first = np.cumsum(self.count) - self.count
        self.order = np.zeros(0, np.int64)  # tasks left of this round

    def sample(self) -> Batch:
        """A batch, the longest windows first. They are right-aligned, with zeros where they are shorter."""
        rng, count = self.rng, self.batch
        while len(self.order) < count:
            self.order = np.concatenate((self.order, rng.permutation(np.flatnonzero(self.count))))
        task, self.order = self.order[:count], self.order[count:]
        trajectory = self.by_task[self.first[task] + rng.integers(self.count[task])]
        steps = self.data.lengths[trajectory]
        lengths = np.where(rng.random(count) < self.full_share, self.length, rng.integers(1, self.length, count))
        lengths = np.minimum(lengths, steps)
        order = np.argsort(-lengths, kind="stable")  # longest first: `groups_of` cuts there
        trajectory, steps, lengths = trajectory[order], steps[order], lengths[order]
        anywhere = (lengths == self.length) | (rng.random(count) >= self.start_share)
        last = np.where(anywhere, rng.integers(lengths - 1, steps), lengths - 1)
        batch = batch_of(self.data, self.data.offsets[trajectory] + last, lengths, self.length, self.device)
        groups = groups_of(lengths) if self.device.type == "cpu" else ()  # a GPU would rather have it in one piece
        return batch._replace(windows=batch.windows._replace(groups=groups))

    def state_dict(self) -> dict[str, Any]:
        """Place in this round of tasks, and the generator."""
        return {"order": torch.from_numpy(self.order.copy()), "rng": numpy_state(self.rng)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.order = state["order"].numpy().copy()
        set_numpy_state(self.rng, state["rng"])


def batch_of(data: Dataset, rows: Array, lengths: Array, length: int, device: torch.device | str = "cpu") -> Batch:
    """The windows of `lengths` (B,) states that end with the observations of `rows` (B,), in room for `length`."""
    states, actions, rewards, there = windows_of(data, rows, length)
    assert (lengths <= there).all(), "a window would reach into another trajectory"
    kept = np.arange(length) >= length - lengths[:, None]
    states, actions = states * kept[..., None], actions * kept[:, :-1, None]
    trajectory = data.trajectory_of_rows[rows]
    parts = (
        states,
        actions,
        (rewards * kept[:, :-1])[..., None],
        lengths,
        data.task_id[trajectory],
        data.arm_id[trajectory],
    )
    s, a, r, count, task, arm = (torch.from_numpy(part).to(device) for part in parts)
    return Batch(Windows(s, a, r, count), task, arm)


def groups_of(lengths: Array, parts: int = 3) -> tuple[Group, ...]:
    """Windows of falling `lengths` (B,), in groups that are read apart: those that are full, the others in halves."""
    full = int((lengths == lengths[0]).sum())
    cuts = np.unique(np.linspace(full, len(lengths), parts).astype(int)).tolist()
    runs = [lengths[low:high] for low, high in zip([0, *cuts], cuts) if high > low]
    return tuple(Group(len(run), int(run[0]), bool(run[0] == run[-1])) for run in runs)


def ranges(length: int) -> list[tuple[int, int]]:
    """Ranges of window lengths that are looked at apart: 1, 2 to 5, 6 to L - 1, L; each with its first and last."""
    found = [(1, 1), (2, min(5, length - 1)), (6, length - 1), (length, length)]
    return [(low, high) for low, high in found if low <= high]


class Exam(NamedTuple):
    """Windows to be told apart: the newest `lengths` states up to each of `rows`."""

    rows: Array  # (W,)
    lengths: Array  # (W,)
    task: Array  # (W,)
    span: Array  # (W,) which of `ranges`
    weights: Array  # (ranges,) share of each range among all steps of the data: what acting meets


def exam(data: Dataset, length: int, each: int, rng: np.random.Generator) -> Exam:
    """Of each task and each range of lengths at most `each` windows, different ones, as acting meets them.

    A window of fewer than `length` states begins with its episode.
    """
    since = np.arange(len(data.obs)) - data.offsets[data.trajectory_of_rows]  # steps before this one
    lengths, spans = np.minimum(since + 1, length), ranges(length)
    span = np.searchsorted([high for _, high in spans], lengths)
    task = data.task_of_rows
    cells = [np.flatnonzero((task == k) & (span == s)) for s in range(len(spans)) for k in range(len(data.tasks))]
    rows = np.concatenate([np.sort(rng.permutation(cell)[:each]) for cell in cells])
    weights = np.bincount(span, minlength=len(spans)) / len(span)
    return Exam(rows, lengths[rows], task[rows], span[rows], weights)
