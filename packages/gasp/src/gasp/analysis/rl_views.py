"""Pictures of hierarchical reinforcement learning: curves, which components were chosen, where skills began."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gasp.analysis.figures import colours, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]
POINTS = 20_000  # more than these are thinned

PANELS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("evaluation: success", ("success_rate", "drawn_success_rate"), "eval"),
    ("success of the last 20 training episodes", ("success_last20",), "train"),
    ("divergence from the prior (nats)", ("divergence",), "train"),
    ("entropy, negated (nats)", ("neg_entropy",), "train"),
    ("temperature", ("alpha",), "train"),
    ("mean value of the critics", ("q",), "train"),
    ("components that make up 95 % of the choices", ("components_used",), "train"),
)


def curves(subtasks: Sequence[str]) -> tuple[tuple[str, tuple[str, ...], str], ...]:
    """What `rlcore.plots.training_panels` draws of a run."""
    if not subtasks:
        return PANELS
    done = tuple(f"done_{name.replace(' ', '_')}" for name in subtasks)
    return (
        ("evaluation: subtasks done", ("subtasks_mean", "drawn_subtasks_mean"), "eval"),
        ("training episodes: share with each subtask done", done, "train"),
        *PANELS[2:],
    )


def usage(counts: Array, weights: Array, title: str) -> Figure:
    """Bars: how often each component was chosen, counts (K,), beside its weight (K,) in the demonstrations."""
    figure, (axes,) = panels(1, 1, max(5.0, 0.32 * len(counts) + 2.0), 3.4)
    where, total = np.arange(len(counts)), max(1, counts.sum())
    bars = axes.bar(where, counts / total, width=0.75, color=colours(len(counts)))
    (marks,) = axes.plot(where, weights, ls="", marker="_", ms=14, mew=2, color="black")
    axes.set(title=title, xlabel="component of the mixture", ylabel="share")
    axes.set_xticks(where, [str(k) for k in where])
    axes.grid(visible=False, axis="x")
    axes.legend([tuple(bars[:3]), marks], ["chosen", "weight in the demonstrations"], frameon=False, fontsize=8,
                handler_map={tuple: _together()})  # fmt: skip
    return figure


def _together() -> Any:
    """Several bars side by side as one entry of a legend."""
    from matplotlib.legend_handler import HandlerTuple

    return HandlerTuple(ndivide=None)


def transition_matrix(counts: Array, title: str) -> Figure:
    """Which component followed which, as shares of all: counts (K, K), from row to column. Those never met are left
    out.
    """
    met = np.flatnonzero(counts.sum(0) + counts.sum(1))
    share = counts[np.ix_(met, met)] / max(1, counts.sum())
    size = max(3.6, 0.36 * len(met) + 1.4)
    figure, (axes,) = panels(1, 1, size + 0.9, size)
    image = axes.imshow(share, cmap="Blues", vmin=0.0, vmax=max(float(share.max(initial=0.0)), 1e-9))
    axes.grid(visible=False)
    for set_ticks in (axes.set_xticks, axes.set_yticks):
        set_ticks(np.arange(len(met)), [str(k) for k in met])
    axes.tick_params(labelsize=8)
    axes.set(title=title, xlabel="next component", ylabel="component")
    for (i, j), value in np.ndenumerate(share):
        if value >= 0.005:
            shade = "white" if value > 0.6 * share.max() else "0.2"
            axes.text(j, i, f"{100 * value:.0f}", ha="center", va="center", fontsize=6.5, color=shade)
    figure.colorbar(image, ax=axes, shrink=0.8, format="{x:.0%}", label="share of all (numbers: %)")
    return figure


def visits(points: Array, labels: Array | None, number: int, free: Array, title: str) -> Figure:
    """Points (n, 2) in the plane, m, where skills began.

    labels: (n,) components, of `number` in all; free: (R, C) bool cells of 1 m around the origin, walls are grey.
    """
    shown = np.linspace(0, len(points) - 1, min(len(points), POINTS)).astype(int)
    points, (rows, columns) = points[shown], free.shape
    figure, (axes,) = panels(1, 1, 0.6 * columns + 1.8, 0.6 * rows + 1.0)
    extent = (-columns / 2, columns / 2, -rows / 2, rows / 2)
    axes.imshow(np.where(free, 1.0, 0.82), cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="nearest")
    labels = np.zeros(len(points), int) if labels is None else labels[shown]
    shades, found = colours(number), np.bincount(labels, minlength=number)
    for k in np.argsort(-found)[: np.count_nonzero(found)]:  # the most frequent first, below the others
        own = points[labels == k]
        axes.scatter(own[:, 0], own[:, 1], 4, shades[k], alpha=0.6, linewidths=0, rasterized=True, label=str(k))
    if number > 1:
        style: dict[str, Any] = {
            "frameon": False, "fontsize": 7, "title_fontsize": 8, "markerscale": 3, "bbox_to_anchor": (1.0, 1.0),
            "ncols": -(-np.count_nonzero(found) // 16),
        }  # fmt: skip
        axes.legend(title="component, most\nfrequent first", loc="upper left", **style)
    axes.set(title=title, xlabel="x (m)", ylabel="y (m)")
    axes.grid(visible=False)
    axes.set_aspect("equal")
    return figure
