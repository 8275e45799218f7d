"""What the figures share: as many colours as there are components, panels with plain numbers."""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlcore.plots import PALETTE, axes_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]
GREY = "0.75"


def colours(count: int) -> list[str]:
    """`count` colours: first those that the colour-blind can tell apart, then hues a golden ratio apart."""
    found = list(PALETTE[:-1])  # its black is for texts
    for i in range(count - len(found)):
        r, g, b = colorsys.hls_to_rgb((0.61 + i * 0.6180339887) % 1.0, (0.38, 0.62)[i % 2], 0.6)
        found.append(f"#{round(255 * r):02x}{round(255 * g):02x}{round(255 * b):02x}")
    return found[:count]


def panels(count: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """`rlcore.plots.axes_grid` with plain numbers on the x axis, which is not of env steps."""
    from matplotlib.ticker import ScalarFormatter

    figure, grid = axes_grid(count, columns, width, height)
    for axes in grid:
        axes.xaxis.set_major_formatter(ScalarFormatter())
    return figure, grid


def plain(axes: Axes) -> None:
    """No ticks and no grid, for places without units."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)


def write_matrix(path: Path, matrix: Array, names: list[str]) -> None:
    """A square table as .csv with names in both margins, atomically."""
    from rlcore.files import write_atomic

    lines = [",".join(["", *names])]
    lines += [",".join([name, *(f"{value:.6g}" for value in row)]) for name, row in zip(names, matrix)]
    write_atomic(path, lambda file: file.write(("\n".join(lines) + "\n").encode()))
