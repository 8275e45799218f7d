"""The report of a pipeline: success by task and by what the policy was told, what it cost; as text, JSON, a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlcore import plots
from rlcore.files import explained, read_json, write_atomic, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TOLD = {"cls": "the encoder's code", "task-id": "the task's number", "zero": "nothing"}


def report(folder: Path, seconds: Mapping[str, Mapping[str, float]], arms: Sequence[str]) -> None:
    """Write report.md, report.json and plots/success.png, and print the text."""
    found = gather(folder, seconds, arms)
    text = as_markdown(found)
    with explained(folder):
        write_json(folder / "report.json", found)
        write_atomic(folder / "report.md", lambda file: file.write(text.encode()))
        plots.save(success_bars(found["policies"]), folder / "plots" / "success.png")
    print(text)
    print(f"written to {folder}: report.md, report.json, plots/success.png")


def gather(folder: Path, seconds: Mapping[str, Mapping[str, float]], arms: Sequence[str]) -> dict[str, Any]:
    """The pipeline's own evaluations, and its clocks."""
    results = [read_json(folder / "collective" / f"eval_{arm}.json") for arm in arms]
    policies = {arm: result["policies"][arm] for arm, result in zip(arms, results)}
    facts = {key: results[0]["options"][key] for key in ("episodes", "horizon", "goal_seed")}
    environment = read_json(folder / "collective" / "env.json")
    kept = {key: environment.get(key) for key in ("packages", "cpu", "cores", "git", "seed")}
    return {"policies": policies, **facts, "seconds": dict(seconds), **kept}


def as_markdown(found: Mapping[str, Any]) -> str:
    """Tables of success and of time."""
    policies = found["policies"]
    tasks = list(next(iter(policies.values()))["tasks"])
    head = "| success at any step (at the last) | " + " | ".join(f"told {TOLD.get(a, a)}" for a in policies) + " |"
    lines = [head, "|---|" + "--:|" * len(policies)]
    for task in tasks:
        rows = [result["tasks"][task] for result in policies.values()]
        cells = [f"{r['success']:.2f} [{r['low']:.2f}, {r['high']:.2f}]{at_last(r)}" for r in rows]
        lines.append(f"| {task} | " + " | ".join(cells) + " |")
    means = [f"**{result['success']:.3f}**{at_last(result)}" for result in policies.values()]
    lines.append("| mean of the tasks | " + " | ".join(means) + " |")
    wall = sum(clock["wall_s"] for clock in found["seconds"].values())
    spent = ", ".join(f"{name} {clock['wall_s']:,.0f} s" for name, clock in found["seconds"].items())
    about = f"{found['episodes']} episodes a task, one a goal, on goals never trained on; 95 % Wilson intervals."
    return "\n".join([*lines, "", about, f"It took {wall / 60:.1f} minutes: {spent}.", ""])


def at_last(row: Mapping[str, Any]) -> str:
    """The success at the last step, where it was seen."""
    return "" if row["success_final"] is None else f" ({row['success_final']:.2f})"


def success_bars(policies: Mapping[str, Any], title: str = "Success at any step, goals never trained on") -> Figure:
    """A group of bars a task, one a policy, each with its 95 % Wilson interval."""
    tasks = list(next(iter(policies.values()))["tasks"])
    figure, (axes,) = plots.axes_grid(1, 1, max(6.0, 0.9 * len(tasks) + 2.5), 4.2)
    width = 0.8 / len(policies)
    place = np.arange(len(tasks))
    for k, (name, result) in enumerate(policies.items()):
        rows = [result["tasks"][task] for task in tasks]
        rate = np.array([row["success"] for row in rows])
        error = np.abs(np.array([[row["low"] for row in rows], [row["high"] for row in rows]]) - rate)
        where = place + (k - (len(policies) - 1) / 2) * width
        label = f"told {TOLD[name]}" if name in TOLD else name
        axes.bar(where, rate, width * 0.92, color=plots.PALETTE[k % len(plots.PALETTE)], label=label)
        axes.errorbar(where, rate, error, fmt="none", ecolor="0.25", elinewidth=1, capsize=2)
    axes.set_xticks(place, short(tasks), rotation=25, ha="right")
    axes.set(ylim=(0, 1.05), ylabel="success rate", title=title)
    axes.grid(axis="x", visible=False)
    figure.legend(loc="outside lower center", ncols=len(policies), frameon=False, fontsize=9)
    return figure


def short(tasks: Sequence[str]) -> list[str]:
    """Without the version."""
    return [task.removesuffix("-v3") for task in tasks]
