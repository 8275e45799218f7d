"""A comparison as Markdown and as a figure."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gasp.analysis.comparison import Curve, Report, by_method
from rlcore.plots import PALETTE, axes_grid, middle_and_band

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELS = {"success": "share of episodes that succeed", "subtasks": "subtasks done in an episode"}


def to_markdown(report: Report) -> str:
    """Two tables a task, and what the numbers are."""
    lines = []
    for task in report["tasks"]:
        heading = ["method", "seeds", "before", f"at step {task['step']:,.0f}", "gain", "last 20 of training", "CPU s"]
        rows = [
            [
                row["method"], str(len(row["seeds"])), told(row["before"]), told(row["after"]), told(row["gain"]),
                told(row["last20"]), f"{row['cpu_s']:,.0f}",
            ]
            for row in task["rows"]
        ]  # fmt: skip
        lines += [f"### {task['task']}: {LABELS[task['score']]}", "", *table(heading, rows), ""]
        between = [[" less ".join(d["between"]), told(d), verdict(d)] for d in task["differences"]]
        lines += [*table(["difference", f"at step {task['step']:,.0f}", ""], between), ""] if between else []
    return "\n".join([*lines, *(f"- {note}" for note in notes(report))]) + "\n"


def told(found: Mapping[str, Any] | None) -> str:
    """0.95 [0.90, 1.00]; without the interval for one seed."""
    if found is None:
        return "–"
    return f"{found['iqm']:.2f}" + (f" [{found['ci'][0]:.2f}, {found['ci'][1]:.2f}]" if found["ci"] else "")


def verdict(difference: Mapping[str, Any]) -> str:
    """Whether the interval leaves out 0."""
    if not difference["ci"]:
        return "one seed: cannot tell"
    low, high = difference["ci"]
    return "clear" if low > 0 or high < 0 else "not clear: 0 lies in the interval"


def notes(report: Report) -> list[str]:
    """What the columns are, and what to be careful about."""
    how = {"mean": "the policy's mean skill", "drawn": "skills drawn from the policy"}[report["mode"]]
    said = [
        f"Scores are of evaluation episodes with {how}: interquartile means over seeds [95 % bootstrap interval]. "
        "Before: of the first evaluation, at step 0, where a policy with a prior is the prior alone. Last 20 of "
        "training: share of the run's last 20 training episodes that succeeded.",
    ]
    rows = [row for task in report["tasks"] for row in task["rows"]]
    if any(task["cut"] for task in report["tasks"]):
        said.append("Some runs are longer: all are compared at the last step that every run of the task has reached.")
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


def draw(curves: Sequence[Curve], report: Report) -> Figure:
    """A panel a task, a line a method: IQM over seeds with its 95 % bootstrap band; each seed is a thin line."""
    labels = list(dict.fromkeys(row["method"] for task in report["tasks"] for row in task["rows"]))
    shades = dict(zip(labels, itertools.cycle(PALETTE)))
    count = len(report["tasks"])
    figure, grid = axes_grid(count, min(count, 3), *((4.6, 3.4) if count > 1 else (6.6, 4.2)))
    lines: dict[str, Any] = {}
    for axes, task in zip(grid, report["tasks"]):
        for label, runs in by_method([curve for curve in curves if curve.task == task["task"]]).items():
            steps, middle, low, high = middle_and_band([(run.step, run.score) for run in runs])
            (lines[label],) = axes.plot(steps, middle, color=shades[label], lw=2, marker="o" * (steps.size == 1))
            if len(runs) > 1:
                axes.fill_between(steps, low, high, color=shades[label], alpha=0.18, lw=0)
                for run in runs:
                    axes.plot(run.step, run.score, color=shades[label], lw=0.6, alpha=0.4)
        axes.set(title=task["task"], ylabel=LABELS[task["score"]], xlim=(0, None), ylim=(0, 1.03 * task["of"]))
    figure.supxlabel("env steps  (line: IQM over seeds, band: its 95 % bootstrap interval)", fontsize=9)
    wide = max(1, 90 // (max(map(len, labels)) + 8))
    figure.legend(lines.values(), lines, loc="outside upper center", ncols=wide, frameon=False, fontsize=9)
    return figure
