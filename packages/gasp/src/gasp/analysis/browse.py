"""What components are about, from demonstrations: how often, at which subtasks, what moves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gasp.analysis.figures import Array
from gasp.kitchen_obs import GOALS, convert


def counts(component: Array, label: Array, components: int, labels: int) -> Array:
    """(K, L) windows by component and label, of those whose label is known: component, label (N,)."""
    table = np.zeros((components, labels), np.int64)
    known = label >= 0
    np.add.at(table, (component[known], label[known]), 1)
    return table


def mutual_information(table: Array) -> tuple[float, float, Array]:
    """I(component; label) in nats, as a share of H(label), and (K,) what each component tells, from counts (K, L).

    What one component tells is KL(p(label | k) || p(label)) (DeWeese and Meister 1999); weighted by p(k) they sum to I.
    """
    total = table.sum()
    if not total:
        return 0.0, 0.0, np.zeros(len(table))
    joint = table / total
    p_component, p_label = joint.sum(1), joint.sum(0)
    given = joint / np.maximum(p_component, 1e-300)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(given > 0, given * np.log(given / p_label), 0.0)
        entropy = -np.where(p_label > 0, p_label * np.log(p_label), 0.0).sum()
    specific = terms.sum(1)
    information = float((p_component * specific).sum())
    return information, information / float(entropy) if entropy > 0 else 0.0, specific


def progress(obs: Array, mode: str) -> Array:
    """(N, 7) by how much each subtask of the kitchen came nearer to its goal in windows obs (N, H + 1, S); m or rad."""
    ends = convert(obs[:, [0, -1]], mode, "state30") if mode != "legacy60" else obs[:, [0, -1], :30]
    columns = []
    for indices, values in GOALS.values():
        distance = np.linalg.norm(ends[..., list(indices)] - np.array(values), axis=-1)  # (N, 2)
        columns.append(distance[:, 0] - distance[:, 1])
    return np.stack(columns, 1)


def by_component(values: Array, component: Array, components: int) -> Array:
    """(K, D) means of values (N, D); 0 where a component has none."""
    sums = np.zeros((components, values.shape[1]))
    np.add.at(sums, component, values)
    found: Array = sums / np.maximum(np.bincount(component, minlength=components), 1)[:, None]
    return found


def lines(weights: Array, component: Array, table: Array, names: Sequence[str], told: Array) -> list[str]:
    """A table for people: k, weight, windows, what it tells of the subtask, its two most frequent ones."""
    found = [f"{'k':>3} {'weight':>7} {'windows':>8} {'tells (nats)':>13}  subtasks"]
    windows = np.bincount(component, minlength=len(weights))
    for k, weight in enumerate(weights):
        share = table[k] / max(table[k].sum(), 1)
        main = [f"{names[i]} {share[i]:.0%}" for i in np.argsort(-share)[:2] if share[i] > 0]
        found.append(f"{k:>3} {weight:>7.1%} {windows[k]:>8,} {told[k]:>13.2f}  {', '.join(main) or '-'}")
    return found


def record(weights: Array, component: Array, table: Array, names: Sequence[str], told: Array) -> list[dict[str, Any]]:
    """The same as plain values."""
    windows = np.bincount(component, minlength=len(weights))
    return [
        {
            "component": k, "weight": float(weights[k]), "windows": int(windows[k]), "tells_nats": float(told[k]),
            "subtasks": {name: int(table[k, i]) for i, name in enumerate(names) if table[k, i]},
        }
        for k in range(len(weights))
    ]  # fmt: skip
