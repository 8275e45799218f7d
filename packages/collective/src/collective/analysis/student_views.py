"""A comparison of students as Markdown and as a figure."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from collective.analysis.students import Curve, Report, by_method
from rlcore.plots import PALETTE, axes_grid, middle_and_band

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def to_markdown(report: Report) -> str:
    """A table a task, one over all of them, and what the numbers are."""
    lines = []
    for task in report["tasks"]:
        heading = [
            "method", "seeds", "area", "against plain", "", f"success at {task['end']:,.0f}", "less plain", "CPU s",
        ]  # fmt: skip
        rows = [
            [
                row["method"], str(len(row["seeds"])), told(row["area"], 0), told(row["ratio"]), verdict(row),
                told(row["success"]), told(row["success_gain"]), f"{row['cpu_s']:,.0f}",
            ]
            for row in task["rows"]
        ]  # fmt: skip
        lines += [f"### {task['task']}", "", *table(heading, rows), ""]
    if report["overall"]:
        rows = [[row["method"], str(row["tasks"]), told(row["ratio"]), verdict(row)] for row in report["overall"]]
        lines += ["### Over all tasks", "", *table(["method", "tasks", "against plain", ""], rows), ""]
    return "\n".join([*lines, *(f"- {note}" for note in notes(report))]) + "\n"


def told(found: Mapping[str, Any] | None, digits: int = 2) -> str:
    """0.95 [0.90, 1.00]; without the interval for one seed."""
    if found is None:
        return "–"
    low, high = found["ci"] or (0.0, 0.0)
    return f"{found['value']:,.{digits}f}" + (f" [{low:,.{digits}f}, {high:,.{digits}f}]" if found["ci"] else "")


def verdict(row: Mapping[str, Any]) -> str:
    """What the ratio's interval says."""
    if row["plain"]:
        return ""
    if row["ratio"] is None:
        return "no plain run of the same seed and options"
    if row["ratio"]["ci"] is None:
        return "one seed: cannot tell"
    low, high = row["ratio"]["ci"]
    return "faster" if low > 1 else "slower" if high < 1 else "not significant: 1 lies in the interval"


def notes(report: Report) -> list[str]:
    """What the columns are, and what to be careful about."""
    said = [
        f"Area: under the return of greedy evaluations over the first {report['first']:,.0f} env steps, divided by "
        "their number. Against plain: its ratio to that of plain soft actor-critic on the same seeds. Success: at any "
        "step of an episode, in the last evaluation that all runs of the task have reached. Means over seeds [95 % "
        "bootstrap intervals; ratios and differences draw seeds in pairs].",
    ]
    rows = [row for task in report["tasks"] for row in task["rows"]]
    if any(1 < len(row["seeds"]) < 5 for row in rows):
        said.append("Intervals of fewer than five seeds are too narrow.")
    if twice := [row for row in rows if len(set(row["seeds"])) < len(row["seeds"])]:
        said.append(f"Careful: {twice[0]['method']} has runs of the same seed ({', '.join(twice[0]['runs'])}).")
    if report["unfinished"]:
        said.append(f"Not finished: {', '.join(report['unfinished'])}.")
    return said


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Markdown, padded so that it can be read as it is; numbers to the right."""
    cells = [list(heading), *map(list, rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(heading))]
    lines = [
        "| " + " | ".join(text.rjust(w) if i else text.ljust(w) for i, (text, w) in enumerate(zip(row, widths))) + " |"
        for row in cells
    ]
    rule = "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return [lines[0], rule, *lines[1:]]


def draw(curves: Sequence[Curve]) -> Figure:
    """A row a task, returns left and success right; a line a method: IQM over seeds with its 95 % bootstrap band."""
    groups = by_method(curves)
    tasks = list(dict.fromkeys(curve.task for curve in curves))
    shades = dict(zip(groups, itertools.cycle(PALETTE)))
    figure, grid = axes_grid(2 * len(tasks), 2, 4.6, 2.9)
    lines: dict[str, Any] = {}
    for i, (task, what) in enumerate(itertools.product(tasks, ("value", "success"))):
        for label, runs in groups.items():
            shown = [(run.step, getattr(run, what)) for run in runs if run.task == task]
            if not shown:
                continue
            steps, middle, low, high = middle_and_band(shown)
            (lines[label],) = grid[i].plot(steps, middle, color=shades[label], lw=2)
            if len(shown) > 1:
                grid[i].fill_between(steps, low, high, color=shades[label], alpha=0.18, lw=0)
                for curve in shown:
                    grid[i].plot(*curve, color=shades[label], lw=0.6, alpha=0.4)
        grid[i].set(title=task, ylabel="return per episode" if what == "value" else "success", xlim=(0, None))
        if what == "success":
            grid[i].set_ylim(0, 1.03)
    figure.supxlabel("env steps  (line: IQM over seeds, band: its 95 % bootstrap interval)", fontsize=9)
    wide = max(1, 100 // (max(map(len, lines)) + 8))
    figure.legend(lines.values(), lines, loc="outside upper center", ncols=wide, frameon=False, fontsize=9)
    return figure
