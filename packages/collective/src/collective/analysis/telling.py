"""How well an encoder's codes tell tasks apart: by the nearest centroid, by silhouette, by clusters without labels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from collective.analysis import clusters
from collective.data import Dataset
from collective.encoder import Encoder
from collective.prefixes import Exam, batch_of, exam, ranges

Array = np.ndarray[Any, Any]
SILHOUETTE = 600  # points that a silhouette looks at, at most
BATCH = 4_096  # windows cut from the data at once


class Told(NamedTuple):
    """Codes of examined windows, and the task that each is taken for."""

    exam: Exam
    codes: Array  # (W, C)
    guess: Array  # (W,) the task of the nearest centroid
    length: int  # L


def codes_of(encoder: Encoder, data: Dataset, rows: Array, lengths: Array) -> Array:
    """(W, C) codes of the windows of `lengths` (W,) states that end at `rows` (W,)."""
    parts = [np.zeros((0, encoder.code_dim), np.float32)]
    for begin in range(0, len(rows), BATCH):
        span = slice(begin, begin + BATCH)
        windows = batch_of(data, rows[span], lengths[span], encoder.length).windows
        states, actions, rewards, counts = (value.numpy() for value in windows[:4])
        parts.append(encoder.codes(states, actions, rewards[..., 0], counts))
    return np.concatenate(parts)


def task_centres(encoder: Encoder, known: Dataset, each: int, rng: np.random.Generator) -> Array:
    """(tasks, C) the mean direction of codes of `each` windows a task, of any steps of the trajectories `known`."""
    cells = [rows[np.sort(rng.permutation(len(rows))[:each])] for rows in known.rows_of_task()]
    rows = np.concatenate(cells)
    since = rows - known.offsets[known.trajectory_of_rows[rows]]
    found = clusters.directions(codes_of(encoder, known, rows, np.minimum(since + 1, encoder.length)))
    return clusters.centroids(found, known.task_of_rows[rows], len(known.tasks))


def tell(encoder: Encoder, known: Dataset, asked: Dataset, each: int, rng: np.random.Generator) -> Told:
    """Examine the encoder on windows of `asked`, with centroids of `known`: `each` windows a task and range."""
    centres = task_centres(encoder, known, 4 * each, rng)
    questions = exam(asked, encoder.length, each, rng)
    codes = codes_of(encoder, asked, questions.rows, questions.lengths)
    guess = clusters.nearest(clusters.directions(codes), clusters.directions(centres))
    return Told(questions, codes, guess, encoder.length)


def scores(told: Told) -> dict[str, float]:
    """Accuracy of the nearest centroid, for each range of lengths and over all, and the silhouette of full windows.

    Tasks count alike. Over all, ranges count as often as acting meets them: most windows are full.
    """
    found: dict[str, float] = {}
    right, total = 0.0, 0.0
    for number, (low, high) in enumerate(ranges(told.length)):
        here = told.exam.span == number
        if here.any():
            value = float(np.nanmean(by_task(told, here)))
            found[f"accuracy_{low}" if low == high else f"accuracy_{low}_{high}"] = value
            right, total = right + told.exam.weights[number] * value, total + told.exam.weights[number]
    full = told.exam.lengths == told.exam.lengths.max()
    picked = np.flatnonzero(full)[:: max(1, int(np.ceil(full.sum() / SILHOUETTE)))]
    apart = clusters.silhouette(clusters.directions(told.codes[picked]).astype(np.float64), told.exam.task[picked])
    return {"accuracy": float(right / total), **found, "silhouette": apart}


def by_task(told: Told, chosen: Array) -> Array:
    """(tasks,) share of each task's `chosen` windows (W,) that are taken for it; NaN where it has none."""
    tasks = int(told.exam.task.max()) + 1
    asked = np.bincount(told.exam.task[chosen], minlength=tasks)
    right = np.bincount(told.exam.task[chosen], (told.guess == told.exam.task)[chosen], minlength=tasks)
    with np.errstate(invalid="ignore"):
        found: Array = right / asked
    return found


def confusion(told: Told, chosen: Array, tasks: int) -> Array:
    """(tasks, tasks) share of the `chosen` windows of each task (row) that are taken for each (column)."""
    counts = np.zeros((tasks, tasks))
    np.add.at(counts, (told.exam.task[chosen], told.guess[chosen]), 1)
    found: Array = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return found


def unnamed(told: Told, tasks: int, rng: np.random.Generator) -> float:
    """Accuracy of k-means of the full windows' codes, clusters named as suits best: tasks found without labels."""
    full = told.exam.lengths == told.exam.lengths.max()
    points = clusters.directions(told.codes[full]).astype(np.float64)
    return clusters.matched_accuracy(clusters.kmeans(points, tasks, rng), told.exam.task[full])
