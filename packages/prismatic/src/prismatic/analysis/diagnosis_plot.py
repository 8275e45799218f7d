"""The picture of `prismatic diagnose`: a row of panels a measure, a panel a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rlcore.plots import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROWS = (
    ("latent_error", "latent_static", "latent error\n(share of variance)", "nothing moves"),
    ("reward_rmse", "reward_mean", "RMSE of the reward\nh steps ahead", "mean reward"),
    ("return_rmse", "return_mean", "RMSE of the return\nover h steps", "mean reward"),
)
RATIO = "B / A (95 % interval\nover episodes)"
NAMES = {"latent_error": "latent error", "return_rmse": "return RMSE"}


def open_loop_figure(report: Mapping[str, Any]) -> Figure:
    """Scores over the horizon from what `prismatic diagnose` writes, each with the guess to beat, dashed.

    Rewards have each task's own scale; the latent error, and B / A of two runs, are on one scale for all tasks. Axes
    are logarithmic.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    tasks, horizon = list(report["episodes"]), report["horizon"]
    rows = len(ROWS) + bool(report["ratio"])
    figure = Figure(figsize=(1.6 + 2.9 * max(len(tasks), 1.6), 0.7 + 2.1 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle("\n".join(_named(label, run, report) for label, run in report["runs"].items()), fontsize=10)
    grid = figure.subplots(rows, len(tasks), squeeze=False, sharex=True)
    for (key, guess, label, name), line in zip(ROWS, grid):
        line[0].set_ylabel(label)
        for task, axes in zip(tasks, line):
            _scores(axes, report, task, key, guess, name)
    if report["ratio"]:
        grid[-1, 0].set_ylabel(RATIO)
        for task, axes in zip(tasks, grid[-1]):
            _ratio(axes, horizon, report["ratio"][task])
    for row, line in enumerate(grid):
        _log_scale(line, shared=row in (0, len(ROWS)))
    for task, top, bottom in zip(tasks, grid[0], grid[-1]):
        top.set_title(task, fontsize=10)
        bottom.set(xlabel="steps ahead, h", xlim=(1, horizon[-1]) if len(horizon) > 1 else (0.5, 1.5))
    for axes in grid.flat:
        axes.grid(alpha=0.25, lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8, which="both")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in grid[:, -1]:
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _named(label: str, run: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    name = run["run"].rsplit("/", 1)[-1]
    head = f"{label}: " if len(report["runs"]) > 1 else ""
    return f"{head}{name} ({run['variant']}, step {run['step']:,})"


def _scores(axes: Axes, report: Mapping[str, Any], task: str, key: str, guess: str, name: str) -> None:
    """A line a model, then the guess to beat, dashed: one in each model's own latent space, else one for both."""
    runs, horizon = report["runs"], report["horizon"]
    style: Any = {"marker": "o" if len(horizon) == 1 else None}
    colours = dict(zip(runs, PALETTE))
    for label, run in runs.items():
        who = f"model {label}" if len(runs) > 1 else "model"
        axes.plot(horizon, _numbers(run["tasks"][task][key]), color=colours[label], lw=1.8, label=who, **style)
    own = guess == "latent_static" and len(runs) > 1
    for label in runs if own else list(runs)[:1]:
        colour, who = (colours[label], f"{name}, {label}") if own else ("0.4", name)
        line = _numbers(runs[label]["tasks"][task][guess])
        axes.plot(horizon, line, color=colour, lw=1.2, ls="--", label=who, **style)


def _ratio(axes: Axes, horizon: list[int], ratio: Mapping[str, Any]) -> None:
    axes.axhline(1, color="0.4", lw=1, ls="--")
    for (key, row), colour in zip(ratio.items(), PALETTE[2:]):
        low, middle, high = (_numbers(row[name]) for name in ("low", "ratio", "high"))
        axes.fill_between(horizon, low, high, color=colour, alpha=0.18, lw=0)
        axes.plot(horizon, middle, color=colour, lw=1.8, label=NAMES[key], marker="o" if len(horizon) == 1 else None)


def _log_scale(line: Sequence[Axes], shared: bool) -> None:
    """Errors grow by factors, and half is as far from 1 as double. Zeros are not drawn; nothing but zeros stays linear.

    shared: one scale for the row.
    """
    for axes in line:
        if any((np.asarray(curve.get_ydata(), float) > 0).any() for curve in axes.lines):
            axes.set_yscale("log")
    limits = [axes.get_ylim() for axes in line if axes.get_yscale() == "log"]
    for axes in line:
        if axes.get_yscale() == "log":
            low, high = (min(x for x, _ in limits), max(x for _, x in limits)) if shared else axes.get_ylim()
            axes.set_ylim(low, high)
            _number_ticks(axes, low, high)


def _number_ticks(axes: Axes, low: float, high: float) -> None:
    """Plain numbers; more than the powers of ten where these would be too few."""
    from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

    axes.yaxis.set_major_formatter("{x:.3g}")
    if high / low < 30:
        decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
        steps = (1, 1.5, 2, 3, 5, 7) if high / low < 8 else (1, 2, 5)
        fixed = FixedLocator((decades[:, None] * steps).ravel().tolist())
        axes.yaxis.set_major_locator(fixed if high / low > 3 else MaxNLocator(4))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylim(low, high)  # ticks beyond would widen it


def _numbers(values: list[float | None]) -> Any:
    return np.array([np.nan if x is None else x for x in values])
