"""Task codes in the plane, and how well they tell tasks apart, as one figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from collective.analysis.telling import Told, by_task, confusion
from rlcore.errors import EnvironmentProblem
from rlcore.plots import PALETTE, axes_grid
from rlcore.seeding import derive

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]
MARKS = "os^DvPX<>"  # with the palette's seven colours: 63 kinds of points


class Plane(NamedTuple):
    """Points in the plane and what its axes are."""

    places: Array  # (N, 2)
    names: tuple[str, str]


def pca(points: Array) -> Plane:
    """The two directions in which points (N, D) vary most, by singular values; a missing second one is 0."""
    centred = points - points.mean(0)
    _, size, rows = np.linalg.svd(centred, full_matrices=False)
    rows = rows * np.sign(rows[np.arange(len(rows)), np.abs(rows).argmax(1)])[:, None]  # svd leaves signs open
    places = np.zeros((len(points), 2))
    places[:, : min(2, len(rows))] = centred @ rows[:2].T
    share = np.pad(size**2 / max(float((size**2).sum()), 1e-12), (0, 2))[:2]
    first, second = (f"PC {i + 1} ({part:.0%} of the variance)" for i, part in enumerate(share))
    return Plane(places, (first, second))


def tsne(points: Array, seed: int) -> Plane:
    """t-SNE of points (N, D). EnvironmentProblem where scikit-learn is missing."""
    try:
        from sklearn.manifold import TSNE  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        raise EnvironmentProblem("--method tsne needs: pip install scikit-learn; --method pca needs nothing") from None
    place = TSNE(2, init="pca", perplexity=min(30.0, (len(points) - 1) / 3), random_state=derive(seed, "tsne") % 2**32)
    return Plane(np.asarray(place.fit_transform(points)), ("t-SNE 1", "t-SNE 2"))


def plane_of(method: str, codes: Array, seed: int) -> Plane:
    """Codes (N, C) in the plane, by "pca" or "tsne"."""
    return tsne(codes, seed) if method == "tsne" else pca(codes.astype(np.float64))


def draw(told: Told, plane: Plane, tasks: Sequence[str], title: str = "") -> Figure:
    """Left, codes of full windows by task; middle, what they are taken for; right, accuracy over the window's length.

    plane: places of the full windows, in order.
    """
    from matplotlib.ticker import ScalarFormatter

    figure, (left, middle, right) = axes_grid(3, 3, 4.9, 4.4)
    for axes in (left, right):
        axes.xaxis.set_major_formatter(ScalarFormatter())
    full = told.exam.lengths == told.exam.lengths.max()
    _points(left, plane, told.exam.task[full], tasks)
    _table(middle, confusion(told, full, len(tasks)), tasks)
    _lengths(right, told, tasks)
    figure.suptitle(title, fontsize=11)
    handles, labels = left.get_legend_handles_labels()
    width = max(map(len, tasks)) + 4
    columns = max(1, min(len(tasks), 150 // width))
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9, markerscale=1.6
    )
    return figure


def _look(number: int) -> tuple[str, str]:
    """Colour and mark of a task."""
    return PALETTE[number % len(PALETTE)], MARKS[number // len(PALETTE) % len(MARKS)]


def _points(axes: Axes, plane: Plane, task: Array, tasks: Sequence[str]) -> None:
    for number, name in enumerate(tasks):
        colour, mark = _look(number)
        x, y = plane.places[task == number].T
        axes.scatter(x, y, s=14, color=colour, marker=mark, alpha=0.6, lw=0, label=name, rasterized=True)
    axes.set(title="codes of full windows", xlabel=plane.names[0], ylabel=plane.names[1])


def _table(axes: Axes, shares: Array, tasks: Sequence[str]) -> None:
    """Rows: the task; columns: the task whose centroid is nearest. Numbers where they can be read."""
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.grid(visible=False)
    size = max(3.0, min(8.0, 65.0 / len(tasks)))
    places, short = np.arange(len(tasks)), [name.removesuffix("-v3") for name in tasks]
    axes.set_yticks(places, short, fontsize=max(size, 4.0))
    if few := len(tasks) <= 5:
        axes.set_xticks(places, short, rotation=30, fontsize=size, ha="right")
    else:
        axes.set_xticks(places, [""] * len(tasks))
    for row, column in zip(*np.nonzero(shares >= 0.005)) if len(tasks) <= 12 else ():
        shade = "white" if shares[row, column] > 0.6 else "black"
        text = f"{100 * shares[row, column]:.0f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color=shade)
    axes.set(title="taken for (% of full windows)", xlabel="" if few else "columns in the order of the rows")


def _lengths(axes: Axes, told: Told, tasks: Sequence[str]) -> None:
    """Accuracy at each length that was asked often enough; a thin line a task, a thick one over all."""
    lengths = np.unique(told.exam.lengths)
    table = np.full((len(lengths), len(tasks)), np.nan)
    for row, length in enumerate(lengths):
        shares = by_task(told, told.exam.lengths == length)
        table[row, : len(shares)] = shares
    for number in range(len(tasks)):
        axes.plot(lengths, table[:, number], color=_look(number)[0], lw=0.8, alpha=0.5)
    axes.plot(lengths, np.nanmean(table, 1), color="black", lw=2.4, label="all tasks")
    axes.axhline(1 / len(tasks), color="0.5", lw=0.8, ls="--", label="by chance")
    axes.set(title="told by the nearest centroid", xlabel="states in the window", ylabel="accuracy", ylim=(0, 1.03))
    axes.set_xticks([1, *range(5, told.length + 1, max(5, told.length // 20 * 5))])
    axes.legend(frameon=False, fontsize=9, loc="center right")
