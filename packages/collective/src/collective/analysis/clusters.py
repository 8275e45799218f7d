"""How well points fall into the groups they should. numpy only; points (N, D), labels (N,) from 0."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def directions(points: Array) -> Array:
    """Points scaled to length 1: the contrast of codes knows nothing of their length."""
    found: Array = points / np.maximum(np.linalg.norm(points, axis=-1, keepdims=True), 1e-12)
    return found


def centroids(points: Array, labels: Array, groups: int) -> Array:
    """(groups, D) means; of a group without points, NaN."""
    sums = np.zeros((groups, points.shape[1]))
    np.add.at(sums, labels, points)
    with np.errstate(invalid="ignore"):
        found: Array = sums / np.bincount(labels, minlength=groups)[:, None]
    return found


def nearest(points: Array, centres: Array) -> Array:
    """(N,) the nearest of the centres (K, D) to each point; one that is NaN is never it."""
    distance = np.square(points[:, None] - centres).sum(-1)
    found: Array = np.where(np.isnan(distance), np.inf, distance).argmin(1)
    return found


def silhouette(points: Array, labels: Array) -> float:
    """Mean of (b - a) / max(a, b): a is a point's mean distance to its group, b that to the nearest other group.

    In [-1, 1] (Rousseeuw 1987). A point alone in its group counts 0; with one group only, all do. O(N^2): subsample.
    """
    names, group = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        return 0.0
    distance = np.sqrt(np.maximum(_squares(points, points), 0.0))  # (N, N)
    member = np.eye(len(names))[group]  # (N, K)
    size = member.sum(0)
    sums = distance @ member  # (N, K)
    own = np.arange(len(points)), group
    a = sums[own] / np.maximum(size[group] - 1, 1)
    means = sums / size
    means[own] = np.inf
    b = means.min(1)
    scores = np.where(size[group] > 1, (b - a) / np.maximum(np.maximum(a, b), 1e-12), 0.0)
    return float(scores.mean())


def kmeans(points: Array, groups: int, rng: np.random.Generator, starts: int = 10, rounds: int = 100) -> Array:
    """(N,) groups by k-means, the best of several starts, each by k-means++ (Arthur & Vassilvitskii 2007)."""
    best, least = np.zeros(len(points), np.int64), np.inf
    for _ in range(starts):
        centres = points[[rng.integers(len(points))]]
        while len(centres) < groups:
            chance = np.maximum(_squares(points, centres).min(1), 0.0)
            total = chance.sum()
            chosen = rng.choice(len(points), p=chance / total if total > 0 else None)
            centres = np.concatenate((centres, points[[chosen]]))
        group = np.full(len(points), -1)
        for _ in range(rounds):
            before, group = group, _squares(points, centres).argmin(1)
            if (before == group).all():
                break
            means = centroids(points, group, groups)
            centres = np.where(np.isnan(means), centres, means)
        spread = float(_squares(points, centres).min(1).sum())
        if spread < least:
            best, least = group, spread
    return best


def matched_accuracy(found: Array, labels: Array) -> float:
    """Share of points whose group is their label's, with groups named as suits best (the Hungarian algorithm)."""
    size = int(max(found.max(), labels.max())) + 1
    counts = np.zeros((size, size))
    np.add.at(counts, (found, labels), 1)
    return float(counts[np.arange(size), assignment(-counts)].sum() / len(labels))


def assignment(cost: Array) -> Array:
    """(n,) the column of each row of a square `cost` (n, n) so that their sum is least, each column once.

    Shortest augmenting paths with potentials (Kuhn 1955, Munkres 1957), O(n^3).
    """
    n = len(cost)
    row_price, column_price = np.zeros(n), np.zeros(n + 1)
    row_of = np.full(n + 1, -1)  # of each column; the last column is a place to begin from
    for row in range(n):
        row_of[n] = row
        slack, back, visited = np.full(n, np.inf), np.full(n, n), np.zeros(n + 1, bool)
        column = n
        while row_of[column] >= 0:
            visited[column] = True
            now, free = row_of[column], ~visited[:n]
            reduced = cost[now] - row_price[now] - column_price[:n]
            closer = free & (reduced < slack)
            slack[closer], back[closer] = reduced[closer], column
            following = int(np.where(free, slack, np.inf).argmin())
            step = slack[following]
            row_price[row_of[visited]] += step
            column_price[visited] -= step
            slack[free] -= step
            column = following
        while column != n:
            row_of[column] = row_of[back[column]]
            column = int(back[column])
    found = np.empty(n, np.int64)
    found[row_of[:n]] = np.arange(n)
    return found


def _squares(a: Array, b: Array) -> Array:
    """(N, M) squared distances."""
    found: Array = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2.0 * a @ b.T
    return found
