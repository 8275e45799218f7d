"""Pictures of hierarchical reinforcement learning: curves, which components were chosen, where skills began."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rlcore.plots import PALETTE, axes_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]
POINTS = 20_000  # more than these are thinned
NUMBERED = 12  # cells of a matrix have their numbers written in up to this size

PANELS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("evaluation: success", ("success_rate", "drawn_success_rate"), "eval"),
    ("success of the last 20 training episodes", ("success_last20",), "train"),
    ("divergence from the prior (nats)", ("divergence",), "train"),
    ("entropy, negated (nats)", ("neg_entropy",), "train"),
    ("temperature", ("alpha",), "train"),
    ("mean value of the critics", ("q",), "train"),
    ("components that make up 95 % of the choices", ("components_used",), "train"),
)


def panels(subtasks: Sequence[str]) -> tuple[tuple[str, tuple[str, ...], str], ...]:
    """What `rlcore.plots.training_panels` draws of a run."""
    if not subtasks:
        return PANELS
    done = tuple(f"done_{name.replace(' ', '_')}" for name in subtasks)
    return (
        ("evaluation: subtasks done", ("subtasks_mean", "drawn_subtasks_mean"), "eval"),
        ("training episodes: share with each subtask done", done, "train"),
        *PANELS[2:],
    )


def colours(number: int) -> list[str]:
    """A colour a component; they repeat after seven, and numbers tell the rest apart."""
    return list(itertools.islice(itertools.cycle(PALETTE), number))


def usage(counts: Array, weights: Array, title: str) -> Figure:
    """Bars: how often each component was chosen, counts (K,), beside its weight (K,) in the demonstrations."""
    figure, (axes,) = axes_grid(1, 1, max(5.0, 0.32 * len(counts) + 2.0), 3.4)
    where, total = np.arange(len(counts)), max(1, counts.sum())
    axes.bar(where, counts / total, width=0.75, color=colours(len(counts)), label="chosen by the policy")
    axes.plot(where, weights, ls="", marker="_", ms=14, mew=2, color="black", label="weight in the demonstrations")
    axes.set(title=title, xlabel="component of the mixture", ylabel="share")
    axes.set_xticks(where, [str(k) for k in where])
    axes.legend(frameon=False, fontsize=8)
    return figure


def transition_matrix(counts: Array, title: str) -> Figure:
    """Which component followed which: counts (K, K) from row to column; each row is shown as shares of it."""
    share = counts / np.maximum(1, counts.sum(1, keepdims=True))
    size = max(3.6, 0.3 * len(counts) + 1.6)
    figure, (axes,) = axes_grid(1, 1, size + 0.8, size)
    image = axes.imshow(share, cmap="Blues", vmin=0.0, vmax=1.0)
    axes.grid(False)
    ticks = np.arange(len(counts))
    axes.set_xticks(ticks, [str(k) for k in ticks])
    axes.set_yticks(ticks, [str(k) for k in ticks])
    axes.tick_params(labelsize=8)
    axes.set(title=title, xlabel="next component", ylabel="component")
    if len(counts) <= NUMBERED:
        _write_numbers(axes, share)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the row")
    return figure


def _write_numbers(axes: Axes, share: Array) -> None:
    for (i, j), value in np.ndenumerate(share):
        if value >= 0.005:
            axes.text(
                j, i, f"{value:.0%}", ha="center", va="center", fontsize=7, color="white" if value > 0.5 else "0.2"
            )


def visits(points: Array, labels: Array | None, title: str) -> Figure:
    """Points (n, 2) in the plane, m, where skills began; labels (n,): their components."""
    shown = np.linspace(0, len(points) - 1, min(len(points), POINTS)).astype(int)
    points = points[shown]
    figure, (axes,) = axes_grid(1, 1, 5.4, 4.6)
    if labels is None:
        axes.scatter(points[:, 0], points[:, 1], s=4, color=PALETTE[0], alpha=0.35, linewidths=0, rasterized=True)
    else:
        labels, shades = labels[shown], colours(int(labels.max()) + 1)
        for k in np.unique(labels):
            own = points[labels == k]
            axes.scatter(own[:, 0], own[:, 1], 4, shades[k], alpha=0.5, linewidths=0, rasterized=True, label=str(k))
        legend = axes.legend(title="component", frameon=False, fontsize=7, markerscale=3, loc="upper left",
                             bbox_to_anchor=(1.0, 1.0), ncols=-(-len(np.unique(labels)) // 18))  # fmt: skip
        legend.get_title().set_fontsize(8)
        for handle in legend.legend_handles:
            if handle is not None:
                handle.set_alpha(1.0)
    axes.set(title=title, xlabel="x (m)", ylabel="y (m)")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_aspect("equal")
    return figure
