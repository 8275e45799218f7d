"""What the figures share: a colour for each family, panels with plain numbers, one file for each format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlcore.config import nearest
from rlcore.errors import UsageError
from rlcore.plots import PALETTE, axes_grid, save
from taskinfer.tasks import Family

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, RED, GREEN, PINK, SKY, ORANGE, BLACK = PALETTE
FORMATS = ("png", "pdf", "svg")
# Forward and backward of one kind are shades of one hue, and safe for the colour-blind.
_COLOURS = {
    Family.velocity_forward: BLUE, Family.velocity_backward: SKY, Family.goal_forward: RED,
    Family.goal_backward: ORANGE, Family.stand_front: GREEN, Family.stand_back: "#66D6B5", Family.jump: PINK,
    Family.flip_forward: BLACK,
}  # fmt: skip


def colour(family: int | Family) -> str:
    """The colour of a family: the same in every figure."""
    chosen = Family(family)
    return _COLOURS[chosen] if chosen in _COLOURS else PALETTE[int(chosen) % len(PALETTE)]


def title_of(family: int | Family) -> str:
    """goal forward, for legends."""
    return Family(family).name.replace("_", " ")


def panels(count: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """`rlcore.plots.axes_grid` with plain numbers on the x axis, which is not of env steps."""
    from matplotlib.ticker import ScalarFormatter

    figure, grid = axes_grid(count, columns, width, height)
    for axes in grid:
        axes.xaxis.set_major_formatter(ScalarFormatter())
    return figure, grid


def formats_of(text: str) -> tuple[str, ...]:
    """`png,pdf` as a tuple. UsageError for what no figure is written as."""
    found = tuple(dict.fromkeys(part.strip().removeprefix(".") for part in text.split(",") if part.strip()))
    for name in found:
        if name not in FORMATS:
            raise UsageError(f"format: unknown {name!r}{nearest(name, FORMATS)} (known: {', '.join(FORMATS)})")
    if not found:
        raise UsageError(f"format: expected some of {', '.join(FORMATS)}, got {text!r}")
    return found


def save_all(figure: Figure, stem: Path, formats: Sequence[str]) -> list[Path]:
    """Write stem.png, ... atomically; makes the folder."""
    paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in formats]
    for path in paths:
        save(figure, path)
    return paths
