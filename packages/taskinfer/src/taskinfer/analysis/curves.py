"""Learning curves of many runs: smoothed, with a band over the seeds."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rlcore.plots import PALETTE, axes_grid, middle_and_band
from taskinfer.analysis.records import Curve, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELS = {
    "test_return": "return, held-out tasks", "train_return": "return, training tasks",
    "test_success": "success, held-out tasks", "test_family_acc_40": "family known at step 40",
    "goal_reached": "goals reached", "velocity_reached": "velocities reached", "goal_error": "error of goals (m)",
    "velocity_error": "error of velocities (m/s)",
}  # fmt: skip


def smoothed(curve: Curve, width: int) -> Curve:
    """The mean of each row and `width // 2` neighbours on either side; of fewer at the ends."""
    steps, values = curve
    half, ones = width // 2, np.ones_like(values)
    kernel, inside = np.ones(2 * half + 1), slice(half, half + len(values))
    return steps, np.convolve(values, kernel)[inside] / np.convolve(ones, kernel)[inside]


def draw(named: Mapping[str, Sequence[Table]], columns: Sequence[str], smooth: int) -> Figure:
    """A panel a column, a line a group: IQM over its runs and a 95 % bootstrap band."""
    from matplotlib.lines import Line2D

    figure, grid = axes_grid(len(columns), min(len(columns), 3), 4.4, 3.3)
    shades = dict(zip(named, itertools.cycle(PALETTE)))
    for axes, column in zip(grid, columns):
        for name, tables in named.items():
            curves = [smoothed(table.columns[column], smooth) for table in tables if column in table.columns]
            if not curves:
                continue
            steps, middle, low, high = middle_and_band(curves)
            axes.plot(steps, middle, color=shades[name], lw=1.8, marker="o" if len(steps) == 1 else "")
            axes.fill_between(steps, low, high, color=shades[name], alpha=0.18 * (len(curves) > 1), lw=0)
        axes.set(ylabel=LABELS.get(column, column.replace("_", " ")))
        axes.set_xlim(left=0)
    several = max(map(len, named.values())) > 1
    how = "  (line: IQM of the seeds, band: its 95 % bootstrap interval)" if several else ""
    figure.supxlabel("env steps" + how, fontsize=9)
    lines = [Line2D([], [], color=shade, lw=1.8) for shade in shades.values()]
    names = [f"{name}, {len(tables)} seeds" if len(tables) > 1 else name for name, tables in named.items()]
    figure.legend(lines, names, loc="outside upper center", ncols=max(1, min(len(named), 4)), frameon=False, fontsize=9)
    return figure
