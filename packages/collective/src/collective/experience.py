"""What the envs of several tasks lived through: batches for a learner a task, the newest rows, whole episodes.

Env i is of task i // copies. `N` tasks, `C` copies of each, `B` rows of a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from collective.config import ACTION_DIM, OBS_DIM
from collective.data import EACH, ROWS, Dataset
from rlcore.buffer import Field, ReplayBuffer, predicted_bytes
from rlcore.device import free_bytes
from rlcore.seeding import numpy_state, set_numpy_state
from rlcore.vecenv import VecStep

Array = np.ndarray[Any, Any]
FIELDS = {
    "obs": Field((OBS_DIM,)), "action": Field((ACTION_DIM,)), "reward": Field(), "next_obs": Field((OBS_DIM,)),
    "success": Field((), "bool"), "age": Field((), "int64"), "over": Field((), "bool"), "goal": Field((), "int64"),
}  # fmt: skip
CHUNK = 4_096  # rows read at once: batches stay allocated


class Span(NamedTuple):
    """Steps `first` to `last`, both included, of one env: an episode, or what there is of it."""

    env: int
    first: int
    last: int


class Experience:
    """One ring for all envs, from which each learner draws its own task's transitions with its own generator.

    Args:
        capacity: transitions of each task.
        rngs: one a task.
        extra: fields besides FIELDS. `age` counts the steps of an episode, `over` says that it was its last one.

    Raises: UsageError where memory does not suffice.
    """

    def __init__(
        self, capacity: int, copies: int, rngs: Sequence[np.random.Generator],
        extra: Mapping[str, Field] | None = None, device: str | torch.device = "cpu",
    ) -> None:  # fmt: skip
        self.tasks, self.copies, self.rngs = len(rngs), copies, list(rngs)
        num_envs = self.tasks * copies
        fields = {**FIELDS, **(extra or {})}
        # Its own generator is never used: rows come from `rngs`.
        self.buffer = ReplayBuffer(fields, capacity * self.tasks, num_envs, device=device, rng=rngs[0])
        self.age = np.zeros(num_envs, np.int64)

    def add(self, obs: Array, action: Array, moved: VecStep, goal: Array, **extra: Array) -> None:
        """Store one step of all envs. An episode that was cut leads on to its true last observation."""
        over = moved.terminated | moved.truncated
        self.buffer.add(
            obs=obs, action=action, reward=moved.reward, success=moved.info["success"], age=self.age, over=over,
            next_obs=np.where(over[:, None], moved.final_obs, moved.obs), goal=goal, **extra,
        )  # fmt: skip
        self.age = np.where(over, 0, self.age + 1)

    def sample(self, batch: int) -> dict[str, Tensor]:
        """(N, B, ...) a field: B transitions of each task, uniform, in one gather. Valid until the next call."""
        filled = len(self.buffer) // self.buffer.num_envs
        picks = np.stack([rng.integers(self.copies * filled, size=batch) for rng in self.rngs])
        env, slot = np.divmod(picks, filled)
        env += np.arange(self.tasks)[:, None] * self.copies
        rows = self.buffer.windows(slot.reshape(-1), env.reshape(-1), 1)
        return {name: value[0].unflatten(0, (self.tasks, batch)) for name, value in rows.items()}

    @property
    def steps(self) -> int:
        """Steps that each env has taken, those that were overwritten included."""
        return self.buffer.total

    @property
    def oldest(self) -> int:
        """The first step that is still there."""
        return max(0, self.buffer.total - self.buffer.slots)

    def rows(self, span: Span) -> dict[str, Array]:
        """(T, ...) a field: the steps of a span in the order they were taken in, wherever in the ring they lie."""
        assert self.oldest <= span.first <= span.last < self.steps, (self.oldest, span, self.steps)
        parts = []
        for start in range(span.first, span.last + 1, CHUNK):
            slot = np.arange(start, min(start + CHUNK, span.last + 1)) % self.buffer.slots
            drawn = self.buffer.windows(slot, np.full(len(slot), span.env), 1)
            parts.append({name: value[0].cpu().numpy().copy() for name, value in drawn.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def episodes(self, env: int, first: int = 0, partial: bool = False) -> list[Span]:
        """The episodes that env `env` ended after step `first`, those whose beginning is gone left out.

        `partial`: and the one that is under way.
        """
        first = max(first, self.oldest)
        if first >= self.steps:
            return []
        rows = self.rows(Span(env, first, self.steps - 1))
        ends = np.flatnonzero(rows["over"])
        if partial and not rows["over"][-1]:
            ends = np.append(ends, len(rows["over"]) - 1)
        spans = [Span(env, first + int(end - rows["age"][end]), first + int(end)) for end in ends]
        return [span for span in spans if span.first >= first]

    def newest(self, task: int, least: int, horizon: int) -> list[Span]:
        """The fewest whole episodes of a task that hold at least `least` transitions, newest last; all if too few."""
        first = self.steps - (-(-least // self.copies) + 2 * horizon)
        envs = range(task * self.copies, (task + 1) * self.copies)
        found = sorted((span for env in envs for span in self.episodes(env, first)), key=lambda s: (s.last, s.env))
        held, chosen = 0, list[Span]()
        while found and held < least:
            chosen.append(found.pop())
            held += chosen[-1].last - chosen[-1].first + 1
        return chosen[::-1]

    def save(self, folder: Path) -> dict[str, Any]:
        """Append what is new to files in `folder`; returns the cursor for `load`."""
        state = {"rngs": [numpy_state(rng) for rng in self.rngs], "age": self.age.tolist()}
        return {**self.buffer.save(folder), **state}

    def load(self, folder: Path, cursor: Mapping[str, Any]) -> None:
        """Put back what `save` described. DataError where files are damaged or of another run."""
        self.buffer.load(folder, cursor)
        self.age[:] = cursor["age"]
        for rng, state in zip(self.rngs, cursor["rngs"]):
            set_numpy_state(rng, state)

    def prune(self, folder: Path, keep: Iterable[Mapping[str, Any]]) -> None:
        """Delete the files that no cursor in `keep` needs."""
        self.buffer.prune(folder, keep)


def memory(capacity: int, tasks: int, copies: int, extra: Mapping[str, Field] | None, device: torch.device) -> str:
    """What an `Experience` will need and what there is, in words."""
    needed = predicted_bytes({**FIELDS, **(extra or {})}, capacity * tasks, tasks * copies)
    free = free_bytes(device)
    return f"{tasks} x {capacity:,} transitions: {needed / 2**20:,.1f} of {free / 2**20:,.0f} MiB free on {device}"


def unlabelled(parts: Iterable[tuple[int, dict[str, Array]]], tasks: Sequence[str]) -> Dataset:
    """Trajectories (task number, rows of `Experience.rows`), not yet labelled: q is NaN, other labels are 0."""
    spans = list(parts)
    counts = [len(rows["obs"]) for _, rows in spans]
    n, e = sum(counts), len(spans)
    arrays: dict[str, Any] = {name: np.zeros((n, *shape), kind) for name, (kind, shape) in ROWS.items()}
    each: dict[str, Any] = {name: np.zeros((e, *shape), kind) for name, (kind, shape) in EACH.items()}
    arrays["q_target"][:] = np.nan
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    for k, (task, rows) in enumerate(spans):
        for name in arrays.keys() & rows.keys():
            arrays[name][offsets[k] : offsets[k + 1]] = rows[name]
        each["last_obs"][k], each["task_id"][k], each["goal_id"][k] = rows["next_obs"][-1], task, rows["goal"][0]
    return Dataset(**arrays, **each, offsets=offsets, split=np.zeros(e, np.int8), tasks=tuple(tasks))


def chunks(spans: Sequence[Span], rows: int) -> Iterator[list[Span]]:
    """The spans in groups of at most about `rows` steps."""
    group, held = list[Span](), 0
    for span in spans:
        group.append(span)
        held += span.last - span.first + 1
        if held >= rows:
            yield group
            group, held = [], 0
    if group:
        yield group
