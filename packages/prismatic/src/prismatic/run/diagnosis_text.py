"""The diagnosis for reading: compact tables, and the CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlcore.files import write_atomic

MEASURES = ("latent_error", "latent_static", "reward_rmse", "reward_mean", "return_rmse", "return_mean")
LABELS = {
    "latent_error": "latent error", "latent_static": "  if nothing moves", "reward_rmse": "reward RMSE",
    "reward_mean": "  of the mean reward", "return_rmse": "return RMSE", "return_mean": "  of the mean reward",
}  # fmt: skip
Report = Mapping[str, Any]


def page(report: Report) -> str:
    """All that is printed but where it was written to."""
    return "\n".join([*_heads(report), *_tables(report), *_gates(report), ""])


def shown(horizons: Sequence[int]) -> list[int]:
    """1, 2, 4 ... and the last."""
    return [h for h in horizons if h & (h - 1) == 0 or h == horizons[-1]]


def _heads(report: Report) -> Iterator[str]:
    for label, run in report["runs"].items():
        name = f"{label}: " if len(report["runs"]) > 1 else ""
        yield f"{name}{run['run']}: {run['checkpoint']} of {run['variant']}, step {run['step']:,}"
    yield "latent error: share of the variance left unexplained (0 perfect, 1 as good as the mean); RMSE: in rewards"


def _tables(report: Report) -> Iterator[str]:
    horizons = shown(report["horizon"])
    for task, told in report["episodes"].items():
        who = ", ".join(f"{count} {name}" for name, count in told["collectors"].items())
        low, high = min(told["returns"]), max(told["returns"])
        yield ""
        windows = f"{told['windows']:,} windows of {len(told['lengths'])} episodes ({who})"
        yield f"{task}: {windows}, returns {low:.4g} .. {high:.4g}"
        yield _line("steps ahead", [f"{h}" for h in horizons])
        for name in MEASURES:
            for label, run in report["runs"].items():
                if label == "B" and name.endswith("_mean"):
                    continue  # the same guess for both
                mark = f"  {label}" if len(report["runs"]) > 1 and not name.endswith("_mean") else ""
                yield _line(LABELS[name] + mark, [number(run["tasks"][task][name][h - 1]) for h in horizons])
        if report["ratio"]:
            yield from _ratios(report["ratio"][task], horizons)


def _ratios(ratio: Report, horizons: Sequence[int]) -> Iterator[str]:
    yield "  B / A, and its 95 % bootstrap interval over episodes (below 1: B is better)"
    for name, row in ratio.items():
        yield _line(LABELS[name], [number(row["ratio"][h - 1]) for h in horizons])
        for end in ("low", "high"):
            yield _line(f"  {end}", [number(row[end][h - 1]) for h in horizons])


def _gates(report: Report) -> Iterator[str]:
    for label, run in report["runs"].items():
        name = f"{label}: " if len(report["runs"]) > 1 else ""
        for block, gate in (run["gates"] or {}).items():
            dead = ", ".join(map(str, gate["dead"])) or "none"
            most = math.log(min(len(gate["tasks"]), len(gate["load"])))
            mi = "" if gate["mi_task"] is None else f", tells the task {gate['mi_task']:.3f} of {most:.3f} nats"
            yield ""
            numbers = f"tau {gate['tau']:.3g}, entropy {gate['entropy']:.3f} of 1{mi}, dead: {dead}"
            yield f"{name}experts of the {block}: {numbers}"
            for task, row in gate["tasks"].items():
                yield _line(f"{task}", [f"expert {k}" for k in range(len(row["load"]))])
                for key, what in (
                    ("load", "load"), ("share", "rows it leads"), ("latent_error", "latent error, 1 step"),
                    ("reward_rmse", "reward RMSE, 1 step"),
                ):  # fmt: skip
                    yield _line(f"  {what}", [number(x) for x in row[key]])


def _line(name: str, cells: Sequence[str]) -> str:
    return f"  {name:22s}" + "".join(f"{cell:>10s}" for cell in cells)


def number(x: float | None) -> str:
    """Three digits, or a dash."""
    return "-" if x is None else f"{x:.3g}"


def write_csv(report: Report, path: Path) -> None:
    """A row a task and horizon; with a column for the run where there are two. An unknown number is empty."""
    several = len(report["runs"]) > 1
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["run"] * several + ["task", "horizon", *MEASURES])
    for label, run in report["runs"].items():
        for task, scores in run["tasks"].items():
            columns = zip(report["horizon"], *(scores[name] for name in MEASURES))
            writer.writerows([label] * several + [task, *row] for row in columns)
    data = out.getvalue().encode()
    write_atomic(path, lambda file: file.write(data))
