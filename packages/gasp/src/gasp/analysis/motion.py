"""What components do, drawn: ways through a maze, or tables of what moves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gasp.analysis.figures import Array, colours, panels, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_plane(free: Array, ways: Sequence[Array], windows: Sequence[Array], weights: Array) -> Figure:
    """First, where every component's mean drives the point from the same cells; then one by one, from the same origin.

    free: (R, C) bool cells of 1 m. ways: by component, (starts, T + 1, 2) positions, m; windows: (n, H + 1, 2) of the
    demonstrations, thin.
    """
    columns = min(4, len(ways) + 1)
    figure, (chart, *grid) = panels(len(ways) + 1, columns, 2.9, 3.0)
    rows, width = free.shape
    extent = (-width / 2, width / 2, -rows / 2, rows / 2)
    chart.imshow(np.where(free, 1.0, 0.82), cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="nearest")
    shades = colours(len(ways))
    for way, shade in zip(ways, shades):
        _ways(chart, way, color=shade, lw=1.3)
    chart.plot(*ways[0][:, 0].T, ls="", marker="o", ms=2.5, color="black")
    chart.set_title(f"{ways[0].shape[1] - 1} steps from the same cells", fontsize=9)
    plain(chart)
    reach = max(0.05, *(float(np.abs(w - w[:, :1]).max()) for w in windows if len(w)))
    for k, (axes, shade) in enumerate(zip(grid, shades)):
        steps = windows[k].shape[1]
        _ways(axes, windows[k] - windows[k][:, :1], color="0.6", lw=0.7, alpha=0.7)
        _ways(axes, (ways[k] - ways[k][:, :1])[:, :steps], color=shade, lw=2.0)
        axes.set_title(f"component {k}, weight {weights[k]:.0%}", fontsize=9)
        axes.set(xlim=(-1.05 * reach, 1.05 * reach), ylim=(-1.05 * reach, 1.05 * reach))
        axes.tick_params(labelsize=7)
    for axes in (chart, *grid):
        axes.set_aspect("equal")
    grid[0].set_ylabel("m from where it began", fontsize=8)
    title = "what components do: each one's mean, from rest (colour), and its windows in the demonstrations (grey)"
    figure.suptitle(title, fontsize=10 if columns > 3 else 8)
    return figure


def _ways(axes: Axes, ways: Array, **style: Any) -> None:
    for way in ways:
        axes.plot(way[:, 0], way[:, 1], **style)


def draw_tables(tables: Sequence[tuple[str, Sequence[str], Array, str]], weights: Array) -> Figure:
    """Heat maps beside each other, a row a component: (title, names of columns, (K, D) values, what they count)."""
    from matplotlib.figure import Figure

    count = len(weights)
    widths = [max(2.4, 0.42 * len(names) + 1.2) for _, names, _, _ in tables]
    figure = Figure(figsize=(sum(widths) + 1.0, 0.3 * count + 2.4), layout="constrained")
    grid = figure.subplots(1, len(tables), squeeze=False, width_ratios=widths)[0]
    for axes, (title, names, values, unit) in zip(grid, tables):
        most = max(float(np.abs(values).max()), 1e-9)
        signed = bool((values < 0).any())
        image = axes.imshow(
            values, aspect="auto", cmap="RdBu_r" if signed else "Blues", vmin=-most if signed else 0, vmax=most
        )
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
        axes.set_yticks([])
        axes.set_title(title, fontsize=10)
        figure.colorbar(image, ax=axes, location="bottom", shrink=0.8, label=unit)
    labels = [f"{k}  ({weight:.0%})" for k, weight in enumerate(weights)]
    grid[0].set_yticks(range(count), labels, fontsize=8)
    grid[0].set_ylabel("component (weight)")
    return figure
