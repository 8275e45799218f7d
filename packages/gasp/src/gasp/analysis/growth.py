"""How the mixture grew: components, their weights, and what the fits cost, from the rows of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gasp.analysis.figures import colours, panels
from rlcore.errors import DataError
from rlcore.plots import read_metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def fits_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's fits. DataError where it has none: a Gaussian prior, or too young."""
    rows = [row for row in read_metrics(folder) if row["kind"] == "mixture"]
    if not rows:
        raise DataError(f"{folder} has no fits of a mixture to show")
    return rows


def last_change(rows: Sequence[Mapping[str, Any]]) -> int:
    """By how many components the last fit of at least two differs from the one before."""
    before, last = (int(row["components"]) for row in rows[-2:])
    return abs(last - before)


def draw(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Components over updates, from the one that every mixture begins with; their weights after each fit."""
    figure, (top, bottom) = panels(2, 1, 6.4, 2.5)
    step = [0, *(row["step"] for row in rows)]
    count = [1, *(row["components"] for row in rows)]
    top.step(step, count, where="post", color="black", lw=1.6)
    top.plot(step[1:], count[1:], ls="", marker="o", color="black", ms=4)
    for kind, sign, shade in (("births", "+", "#009E73"), ("merges", "−", "#D55E00"), ("deletes", "×", "0.4")):
        for row in rows:
            if row[kind]:
                offset = {"births": (0, 7), "merges": (-9, -13), "deletes": (9, -13)}[kind]
                place = (row["step"], row["components"])
                top.annotate(
                    f"{sign}{row[kind]}", place, xytext=offset, textcoords="offset points", fontsize=7, color=shade,
                    ha="center",
                )  # fmt: skip
    top.set(ylabel="components K", ylim=(0, max(count) * 1.25 + 1))
    top.set_title("fits with + births, − merges, × deletes", fontsize=9, color="0.35")
    most = max(count)
    table = np.zeros((most, len(rows)))
    for i, row in enumerate(rows):
        table[: len(row["weights"]), i] = row["weights"]
    base = np.zeros(len(rows))
    for k, shade in enumerate(colours(most)):
        bottom.bar(range(len(rows)), table[k], bottom=base, color=shade, width=0.85)
        base += table[k]
    bottom.set(ylabel="weight of each", xlabel="updates", ylim=(0, 1), xticks=range(len(rows)))
    bottom.set_xticklabels([f"{row['step']:,}" for row in rows], fontsize=7, rotation=60 if len(rows) > 10 else 0)
    bottom.grid(visible=False)
    return figure
