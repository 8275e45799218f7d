"""Curves from `metrics.jsonl`. Figures are plain objects: no global matplotlib state, no display needed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlcore.errors import DataError, UsageError
from rlcore.evaluate import Array, iqm
from rlcore.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = "#0072B2 #D55E00 #009E73 #CC79A7 #56B4E9 #E69F00 #000000".split()  # Okabe and Ito: safe for colour-blind
LABELS = {"return_mean": "return per episode", "length_mean": "episode length (env steps)", "rss_mib": "memory (MiB)"}


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """All rows of a run, less a last line without its newline: that one is still being written.

    Raises DataError with file and line for anything else that is not a JSON object with a step.
    """
    path = run_dir / "metrics.jsonl"
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
            rows[-1]["step"]
        except (ValueError, TypeError, KeyError):
            raise DataError(f"{path}:{number} is no metrics row: {line[:60].decode(errors='replace')!r}") from None
    return rows


def series(rows: Sequence[Mapping[str, Any]], key: str, kind: str) -> tuple[Array, Array]:
    """(steps, values) of `key` in the rows of `kind` that have a number there."""
    pairs = [(row["step"], row[key]) for row in rows if row.get("kind") == kind and row.get(key) is not None]
    steps, values = np.array(pairs, np.float64).reshape(-1, 2).T
    return steps, values


def middle_and_band(curves: Sequence[tuple[Array, Array]]) -> tuple[Array, Array, Array, Array]:
    """Steps that all runs have reached (<= 200), IQM over runs there, and the band: whole runs drawn 1,000 times."""
    first, last = max(steps[0] for steps, _ in curves), min(steps[-1] for steps, _ in curves)
    grid = np.unique(np.concatenate([np.clip(steps, first, max(first, last)) for steps, _ in curves]))
    grid = grid if grid.size <= 200 else np.linspace(first, last, 200)
    table = np.stack([np.interp(grid, steps, values) for steps, values in curves])  # (R, G)
    drawn = np.random.default_rng(0).integers(len(table), size=(1000, len(table)))
    low, high = np.quantile(iqm(table[drawn], axis=1), [0.025, 0.975], axis=0)
    return grid, iqm(table, axis=0), low, high


def training_panels(run_dir: Path, panels: Sequence[tuple[str, Sequence[str], str]]) -> Figure:
    """One run at a glance: a panel for each (title, keys, kind) of which the run has numbers."""
    rows = read_metrics(run_dir)
    found = [(title, {k: c for k in keys if (c := series(rows, k, kind))[0].size}) for title, keys, kind in panels]
    found = [(title, curves) for title, curves in found if curves]
    if not found:
        raise DataError(f"{run_dir} has no metrics to plot yet")
    columns = min(2 if len(found) < 7 else 3, len(found))
    figure, grid = axes_grid(len(found), columns, 4.6, 2.6)
    figure.suptitle(run_dir.name, fontsize=10, color="0.35")
    figure.supxlabel("env steps", fontsize=10)
    last = max(steps[-1] for _, curves in found for steps, _ in curves.values())
    for axes, (title, curves) in zip(grid, found):
        for colour, (key, (steps, values)) in zip(itertools.cycle(PALETTE), curves.items()):
            width = values.size // 60 * 2 + 1 if values.size > 100 else 1  # moving average over 1/30 of a long series
            smooth = np.convolve(np.pad(values, width // 2, mode="edge"), np.full(width, 1 / width), "valid")
            axes.plot(steps, values, color=colour, lw=0.5, alpha=0.3)
            mark = "o" * (values.size == 1)
            axes.plot(steps, smooth, color=colour, lw=1.6, label=LABELS.get(key, key), marker=mark)
        axes.set(title=title, xlim=(0, max(last, 1)))  # one time axis for all: panels can be read across
        axes.legend(frameon=False, fontsize=8)
    return figure


def axes_grid(count: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of `count` axes, at most `columns` a row, each width x height inches; x is in steps (10k, 1M)."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    grid = [figure.add_subplot(rows, columns, i + 1) for i in range(count)]
    for axes in grid:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.grid(alpha=0.25, lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, grid


def save(figure: Figure, path: Path) -> None:
    """Write the figure atomically; the suffix (png, svg, pdf) is the format. Makes the folder."""
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise UsageError(f"{path}: use .png, .svg or .pdf")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, lambda file: figure.savefig(file, format=path.suffix[1:], dpi=150))
