"""Tasks that switch in the middle of an episode, and how soon they are known and done."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from taskinfer.record import Record, TasksAt
from taskinfer.tasks import Tasks

Array = np.ndarray[Any, Any]


def switching(choices: Tasks, num: int, steps: int, period: int, rng: np.random.Generator) -> TasksAt:
    """Each of `num` gets another of the choices every `period` steps; never the same twice running, if there are two.

    Their first tasks are the choices in turn.
    """
    turns, size = -(-steps // period), len(choices)
    picked = np.zeros((turns, num), np.int64)
    picked[0] = np.arange(num) % size
    for turn in range(1, turns):
        jump = rng.integers(1, size, num) if size > 1 else 0
        picked[turn] = (picked[turn - 1] + jump) % size
    made = [choices[rows] for rows in picked]
    return lambda t: made[t // period]


class Adaptation(NamedTuple):
    """For each of n episodes and S stretches of one task: how many steps of it were lived; NaN where it never was."""

    done: Array  # (n, S) from when on the error stays below the threshold
    known: Array  # (n, S) from when on the likeliest family is the true one


def adaptation(record: Record, period: int) -> Adaptation:
    """Both, within each stretch of `period` decisions; the last stretch may be shorter."""
    steps = record.reward.shape[1]
    good = record.error < record.thresholds()
    known = record.known()[0]
    columns = [
        (lasting(good[:, start : start + period]), lasting(known[:, start : start + period]))
        for start in range(0, steps, period)
    ]
    done, knows = (np.stack(column, 1) for column in zip(*columns))
    return Adaptation(done, knows)


def lasting(holds: Array) -> Array:
    """(n,) number, from 1, of the first step from which `holds` (n, T) is true to the end; NaN where it never is."""
    steps = holds.shape[1]
    tail = np.cumprod(holds[:, ::-1], 1).sum(1)  # how many of the last are true
    return np.where(tail > 0, steps - tail + 1, np.nan)


def summary(record: Record, period: int) -> dict[str, Any]:
    """Shares of stretches and median steps; apart, the first stretch, which begins from no belief at all."""
    found = adaptation(record, period)
    row: dict[str, Any] = {"return": float(record.reward.sum(1).mean()), "stretches": found.done.shape[1]}
    for when, part in (("first", slice(0, 1)), ("switched", slice(1, None))):
        for name, values in found._asdict().items():
            own = values[:, part]
            if not own.size:
                continue
            row[f"{when}_{name}"] = float(np.isfinite(own).mean())
            row[f"{when}_{name}_after"] = float(np.nanmedian(own)) if np.isfinite(own).any() else None
    family = record.known()[0]
    row["family_accuracy"] = float(family.mean())
    after = np.arange(family.shape[1]) % period
    for step in (5, 20, 40):
        if (after == step).any():
            row[f"family_accuracy_{step}"] = float(family[:, after == step].mean())
    return row
