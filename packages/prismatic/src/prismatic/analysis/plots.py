"""Figures. matplotlib is imported when one is drawn."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rlcore.errors import DataError
from rlcore.files import write_atomic
from rlcore.plots import PALETTE, save


def plot_gating(history: np.ndarray, path: Path, tasks: Sequence[str] = ()) -> None:
    """Draw the experts' shares over updates to `path`, and write them to the .csv beside it.

    Args: history (n, K), or (n, T, K) with one panel a task, oldest first, as `MoE.recent` gives it.
    """
    if not len(history):
        raise DataError("there is no gating to draw yet: the history is empty until the first update")
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    panels = history[:, None] if history.ndim == 2 else history  # (n, T, K)
    count, rows, experts = panels.shape
    names = list(tasks) if len(tasks) == rows else [f"task {t}" for t in range(rows)]
    colours = PALETTE if experts <= len(PALETTE) else colormaps["turbo"](np.linspace(0.05, 0.95, experts))
    figure = Figure(figsize=(7, 1 + 2 * rows), layout="constrained")
    axes = figure.subplots(rows, squeeze=False)[:, 0]
    for t, axis in enumerate(axes):
        labels = [f"expert {k}" for k in range(experts)]
        axis.stackplot(np.arange(count), panels[:, t].T, labels=labels, colors=colours)
        axis.set(title=names[t], ylabel="share", ylim=(0, 1), xlim=(0, max(count - 1, 1)))
    axes[-1].set_xlabel(f"the last {count} updates")
    axes[0].legend(loc="upper left", bbox_to_anchor=(1, 1))
    save(figure, path)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["update", "task", *(f"expert_{k}" for k in range(experts))])
    for n in range(count):
        writer.writerows([n, names[t], *panels[n, t].tolist()] for t in range(rows))
    write_atomic(path.with_suffix(".csv"), lambda file: file.write(text.getvalue().encode()))
