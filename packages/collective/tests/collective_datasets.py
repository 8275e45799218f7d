"""Data sets of random numbers, and whether two are the same."""

from __future__ import annotations

import numpy as np

from collective.data import Dataset, held_out

TASKS = ("toy-reach", "toy-push")


def made(lengths: list[int], seed: int = 0, tasks: tuple[str, ...] = TASKS) -> Dataset:
    """Trajectories of random numbers, the tasks in turns."""
    rng, n, e = np.random.default_rng(seed), sum(lengths), len(lengths)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    task_id = np.arange(e) % len(tasks)
    return Dataset(
        obs=normal(n, 39), action=normal(n, 4), reward=normal(n), success=rng.random(n) < 0.5,
        expert_mean=np.tanh(normal(n, 4)), expert_log_std=normal(n, 4), q_target=normal(n),
        executed_expert=rng.random(n) < 0.5, offsets=np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
        last_obs=normal(e, 39), task_id=task_id, goal_id=np.arange(e), arm_id=np.zeros(e, np.int64),
        split=held_out(task_id), tasks=tasks,
    )  # fmt: skip


def equal(a: Dataset, b: Dataset) -> None:
    for name, value in vars(a).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, getattr(b, name), err_msg=name)
    assert a.tasks == b.tasks
