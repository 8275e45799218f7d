"""Data sets without an environment: tasks are places that a point is pushed to, each in its own way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from collective.data import Dataset, Writer, held_out

Array = np.ndarray[Any, Any]
TASKS = ("toy-reach", "toy-push", "toy-lift")


def made_up(
    tasks: Sequence[str] = TASKS, trajectories: int = 10, steps: int = 40, seed: int = 100, arms: int = 1
) -> Dataset:
    """`trajectories` of each task, of different lengths up to `steps`.

    Task k pulls a point to a goal at a height of its own. From the first observation tasks differ in a goal's
    coordinate by a little more than it scatters; in actions and rewards they differ plainly.
    """
    rng = np.random.default_rng(seed)
    parts = [one(k, len(tasks), int(rng.integers(max(1, steps // 2), steps + 1)), rng) for k in range(len(tasks))
             for _ in range(trajectories)]  # fmt: skip
    lengths = [len(part["reward"]) for part in parts]
    rows = {
        name: np.concatenate([part[name] for part in parts]).astype(np.float32) for name in ("obs", "action", "reward")
    }
    n, e = sum(lengths), len(parts)
    task_id = np.repeat(np.arange(len(tasks)), trajectories).astype(np.int64)
    return Dataset(
        **rows, success=rows["reward"] > 9, expert_mean=np.clip(rows["action"], -1, 1),
        expert_log_std=np.full((n, 4), -2.3, np.float32), q_target=np.full(n, np.nan, np.float32),
        executed_expert=np.ones(n, bool), offsets=np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
        last_obs=np.stack([part["last"] for part in parts]).astype(np.float32), task_id=task_id,
        goal_id=np.arange(e, dtype=np.int64) % 50, arm_id=np.arange(e, dtype=np.int64) % arms,
        split=held_out(task_id), tasks=tuple(tasks), meta={"horizon": steps, "reward_version": "v2"},
    )  # fmt: skip


def one(task: int, tasks: int, steps: int, rng: np.random.Generator) -> dict[str, Array]:
    """A trajectory: obs (T, 39), action (T, 4), reward (T,), last (39,)."""
    angle = 2 * np.pi * task / tasks
    goal = np.array([0.3 * np.cos(angle), 0.6, 0.1 + 0.1 * task / tasks]) + rng.normal(0, 0.02, 3)
    hand, before = np.array([0.0, 0.4, 0.2]) + rng.normal(0, 0.02, 3), None
    rows: dict[str, list[Any]] = {"obs": [], "action": [], "reward": []}
    for _ in range(steps):
        obs = observation(hand, before, goal)
        action = np.clip(np.append(5 * (goal - hand), np.sin(angle)) + rng.normal(0, 0.2, 4), -1, 1)
        before, hand = hand, hand + 0.03 * action[:3]
        for name, value in (("obs", obs), ("action", action), ("reward", 10 * np.exp(-10 * np.abs(goal - hand).sum()))):
            rows[name].append(value)
    return {**{name: np.stack(values) for name, values in rows.items()}, "last": observation(hand, before, goal)}


def observation(hand: Array, before: Array | None, goal: Array) -> Array:
    """(39,) this frame, the one before, the goal."""
    frame = np.zeros(39)
    frame[:3], frame[18:21], frame[36:] = hand, hand if before is None else before, goal
    frame[3] = frame[21] = 1.0
    return frame


def written(folder: Path, data: Dataset | None = None) -> Path:
    """The same as a data set on disk."""
    data = made_up() if data is None else data
    Writer(folder, data.tasks, data.meta).append(data)
    return folder
