"""eval.csv: the evaluations of a run as one table, for those who know TD-MPC2 by that file."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from rlcore.files import write_atomic
from rlcore.plots import read_metrics

COLUMNS = {
    "step": "step", "frame": "frame", "task": "task", "return": "return_mean", "success": "success_rate",
    "length": "length_mean", "std": "return_std",
}  # fmt: skip


def write_evaluations(folder: Path, tasks: Sequence[str]) -> None:
    """Write it anew from metrics.jsonl: a line for each task of each evaluation. Empty where a task knows no success.

    step: agent steps; frame: simulator steps, both over all tasks; length: agent steps.
    """
    kind = "eval" if len(tasks) == 1 else "eval_task"
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in read_metrics(folder):
        if row.get("kind") == kind:
            writer.writerow({"task": tasks[0], **row}.get(key, "") for key in COLUMNS.values())
    write_atomic(folder / "eval.csv", lambda file: file.write(text.getvalue().encode()))
