"""A report as Markdown, CSV and a figure."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prismatic.analysis.evaluations import Curve
from prismatic.analysis.report import SHARE, Report, group
from rlcore.plots import LABELS, PALETTE, axes_grid, middle_and_band

COLUMNS: dict[
    str, Callable[[Report], str]
] = {  # heading: how a row says it; columns that no row has anything to say in are left out
    "variant": lambda row: row["variant"],
    "seeds": lambda row: str(len(row["seeds"])),
    "last return": lambda row: with_interval(row["last"]),
    "at step {common}": lambda row: with_interval(row["at_common_step"]),
    "best": lambda row: short(row["best"]["iqm"]),
    "success": lambda row: f"{row['success']['iqm']:.0%}" if row["success"] else "",
    "normalised": lambda row: short(row["normalised"]["iqm"]) if row["normalised"] else "",
    "reached": lambda row: f"{row['reached']} of {len(row['seeds'])}",
    "after steps": lambda row: whole(row["steps_to_threshold"]),
    "frames": lambda row: whole(row["frames_to_threshold"]),
    "CPU s": lambda row: whole(row["cpu_s_to_threshold"]),
}


def to_markdown(report: Report) -> str:
    """A table for each task, one over all tasks, and what the numbers are."""
    lines = []
    for task in report["tasks"]:
        about = "given" if task["threshold_given"] else f"{SHARE:.0%} of the best variant's last return"
        lines += [f"### {task['task']}", "", *task_table(task), ""]
        lines += [f"Threshold {short(task['threshold'])}: {about}.", ""]
    if len(report["tasks"]) > 1 and report["scores"]:
        rows = [
            [
                row["variant"],
                with_interval({"iqm": row["normalised"], "ci": row["ci"]}),
                f"{row['tasks']} of {row['of']}",
            ]
            for row in report["scores"]
        ]
        lines += ["### All tasks", "", *markdown_table(["variant", "normalised", "tasks"], rows), ""]
    return "\n".join([*lines, *(f"- {note}" for note in notes(report))]) + "\n"


def task_table(task: Report) -> list[str]:
    texts = {heading: [say(row) for row in task["rows"]] for heading, say in COLUMNS.items()}
    kept = {heading: column for heading, column in texts.items() if any(text != "" for text in column)}
    common = "" if task["common_step"] is None else f"{task['common_step']:,.0f}"
    return markdown_table([heading.format(common=common) for heading in kept], list(zip(*kept.values())))


def notes(report: Report) -> list[str]:
    """What the columns are, and what to be careful about."""
    said = [
        "Returns are of evaluation episodes: interquartile means over seeds [95 % bootstrap interval]; best: of each "
        "seed's best evaluation.",
        "Reached: seeds with an evaluation at or above the threshold; then what the first such evaluation came after, "
        "the median over all seeds: agent steps of the run, simulator frames (steps times action repeat), CPU seconds "
        "with evaluations; – where the median seed did not get there.",
    ]
    rows = [row for task in report["tasks"] for row in task["rows"]]
    if any(row["normalised"] for row in rows):
        said.append("Normalised: 100 times the success rate where the env tells it, else DeepMind Control return / 10.")
    if len({row["tasks"] for row in report["scores"]}) > 1:
        said.append("The scores over all tasks are means over different tasks: compare only those over the same ones.")
    if any(task["common_step"] is not None for task in report["tasks"]):
        said.append("Budgets differ: last returns are after different numbers of steps; compare at the common step.")
    if twice := [row for row in rows if len(set(row["seeds"])) < len(row["seeds"])]:
        said.append(f"Careful: {twice[0]['variant']} has runs of the same seed ({', '.join(twice[0]['runs'])}).")
    if report["unfinished"]:
        states = [f"{run['run']} ({run['state']}, step {run['step']:,.0f})" for run in report["unfinished"]]
        said.append(f"Not finished: {', '.join(states)}.")
    return said


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Padded, so that it can be read as it is; numbers to the right."""
    cells = [list(headings), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headings))]
    lines = [
        "| " + " | ".join(_padded(text, w, i) for i, (text, w) in enumerate(zip(row, widths))) + " |" for row in cells
    ]
    rule = "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return [lines[0], rule, *lines[1:]]


def _padded(text: str, width: int, column: int) -> str:
    return text.rjust(width) if column else text.ljust(width)


def with_interval(found: Mapping[str, Any] | None) -> str:
    """812 [790, 830]; without the interval for one seed."""
    if found is None:
        return ""
    interval = f" [{', '.join(map(short, found['ci']))}]" if found["ci"] else ""
    return short(found["iqm"]) + interval


def short(value: float) -> str:
    """Three digits or so: 486, 24.9, 0.97."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value + 0.0:.2f}"


def whole(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def to_csv(report: Report) -> str:
    """A line for each task and variant."""
    text = io.StringIO()
    writer: Any = None
    for task in report["tasks"]:
        for row in task["rows"]:
            line = {"task": task["task"], "variant": row["variant"], "seeds": " ".join(map(str, row["seeds"]))}
            line |= {"last_step_min": min(row["steps"]), "last_step_max": max(row["steps"])}
            for name in ("last", "best", "success", "normalised", "at_common_step"):
                found = row[name] or {"iqm": None, "ci": None}
                low, high = found["ci"] or (None, None)
                line |= {name: found["iqm"], f"{name}_low": low, f"{name}_high": high}
            line |= {"common_step": task["common_step"], "threshold": task["threshold"], "reached": row["reached"]}
            line |= {key: row[f"{key}_to_threshold"] for key in ("steps", "frames", "cpu_s")}
            if writer is None:
                writer = csv.DictWriter(text, list(line), lineterminator="\n")
                writer.writeheader()
            writer.writerow(line)
    return text.getvalue()


def draw(curves: Sequence[Curve], report: Report) -> Any:
    """A panel a task, a line a variant: IQM over seeds with its 95 % bootstrap band; each seed is a thin line."""
    tasks = {task["task"]: task for task in report["tasks"]}
    labels = list(dict.fromkeys(row["variant"] for task in tasks.values() for row in task["rows"]))
    colours = dict(zip(labels, itertools.cycle(PALETTE)))
    columns = {1: 1, 2: 2, 4: 2}.get(len(tasks), 3)
    figure, grid = axes_grid(len(tasks), columns, *((4.6, 3.4) if columns > 1 else (7.0, 4.4)))
    lines = {}
    for axes, (name, task) in zip(grid, tasks.items()):
        for label, runs in group([curve for curve in curves if curve.task == name]).items():
            steps, middle, low, high = middle_and_band([(run.step, run.score) for run in runs])
            (lines[label],) = axes.plot(steps, middle, color=colours[label], lw=2, marker="o" * (steps.size == 1))
            if len(runs) > 1:
                axes.fill_between(steps, low, high, color=colours[label], alpha=0.18, lw=0)
                for run in runs:
                    axes.plot(run.step, run.score, color=colours[label], lw=0.6, alpha=0.4)
        axes.axhline(task["threshold"], color="0.5", lw=0.8, ls="--")
        axes.set(title=name, ylabel=LABELS["return_mean"], xlim=(0, None))
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]) if axes.dataLim.ymin < 0 else 0.0)
    figure.supxlabel(
        "agent steps  (line: IQM over seeds, band: its 95 % bootstrap interval, dashed: threshold)", fontsize=9
    )
    wide = max(1, 90 // (max(map(len, labels)) + 8))
    figure.legend(lines.values(), lines, loc="outside upper center", ncols=wide, frameon=False, fontsize=9)
    return figure
