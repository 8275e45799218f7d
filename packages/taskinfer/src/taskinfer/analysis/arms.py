"""What inference is worth: the policy that infers, between one that knows nothing and one that is told the truth.

All numbers are returns and successes of deterministic episodes on held-out tasks, from the runs' own records: `last` is
the final evaluation, `best` the one whose return on the *training* tasks was the best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlcore.errors import DataError
from rlcore.evaluate import bootstrap_ci
from rlcore.plots import read_metrics

Row = dict[str, Any]
WHICH = ("best", "last")
EXTRAS = ("family_acc_5", "family_acc_20", "family_acc_40")  # what only the arm that infers has


def read_arm(folder: Path) -> Row:
    """One run: for `best` and `last` step, return, success, and what was known of the families; its CPU seconds."""
    rows = [row for row in read_metrics(folder) if row.get("kind") == "eval"]
    if not rows:
        raise DataError(f"{folder} has no evaluations: is --eval-every larger than --total-steps?")
    chosen = {"best": max(rows, key=lambda row: float(row["train_return"])), "last": rows[-1]}
    return {which: _numbers(row) for which, row in chosen.items()} | {"cpu_s": round(float(rows[-1]["cpu_s"]), 1)}


def _numbers(row: Mapping[str, Any]) -> Row:
    found = {"step": int(row["step"]), "return": float(row["test_return"]), "success": float(row["test_success"])}
    known = {name: float(row[f"test_{name}"]) for name in EXTRAS if f"test_{name}" in row}
    return found | known | ({"purity": float(row["purity"])} if "purity" in row else {})


def compare(runs: Mapping[str, Mapping[int, Row]]) -> Row:
    """arms: {arm: {seed: run}} as it came; recovered: {best, last}, by seed and over seeds; kept: last / best.

    recovered = (R_inferred - R_none) / (R_oracle - R_none), on each seed by itself: 0 is no inference, 1 a perfect one.
    It is left out where an arm is missing or where knowing the truth is worth nothing.
    """
    report: Row = {"arms": {arm: {str(seed): run for seed, run in found.items()} for arm, found in runs.items()}}
    if not {"inferred", "oracle", "none"} <= set(runs):
        return report
    fractions: dict[str, dict[int, float]] = {which: {} for which in WHICH}
    for which in WHICH:
        for seed in runs["inferred"]:
            inferred, oracle, none = (runs[arm][seed][which]["return"] for arm in ("inferred", "oracle", "none"))
            if oracle > none:
                fractions[which][seed] = (inferred - none) / (oracle - none)
    report["recovered"] = {which: over_seeds(found) for which, found in fractions.items() if found}
    both = [seed for seed in fractions["last"] if fractions["best"].get(seed, 0.0) > 0.0]
    if both:
        report["kept"] = over_seeds({seed: fractions["last"][seed] / fractions["best"][seed] for seed in both})
    return report


def over_seeds(values: Mapping[int, float]) -> Row:
    """Each seed's value, their mean with a 95 % bootstrap interval, and the smallest."""
    numbers = np.array(list(values.values()))
    low, high = bootstrap_ci(numbers, np.mean)
    each = {str(seed): round(value, 4) for seed, value in values.items()}
    return {
        "mean": round(float(numbers.mean()), 4), "ci": [round(low, 4), round(high, 4)],
        "smallest": round(float(numbers.min()), 4), "by_seed": each,
    }  # fmt: skip


def to_text(report: Row) -> str:
    """Tables for a terminal: a line a run, then what was recovered."""
    lines = [
        f"{'':17}  {'best on training tasks':^23}  {'at the end':^15}  {'families known, best':^22}",
        f"{'arm':10} {'seed':>6}  {'step':>8} {'return':>6} {'success':>7}  {'return':>7} {'success':>7}  "
        f"{'t=5':>4} {'t=20':>5} {'t=40':>5} {'purity':>6} {'CPU s':>6}",
    ]
    for arm, runs in report["arms"].items():
        lines += [_line(arm, seed, run) for seed, run in runs.items()]
        if len(runs) > 1:
            lines.append(_mean_line(arm, list(runs.values())))
    if "recovered" in report:
        title = "recovered by inference: (inferred - none) / (oracle - none)"
        lines += ["", title + ", on seeds where the truth is worth something"]
        for which, found in [*report["recovered"].items(), *([("kept", report["kept"])] if "kept" in report else [])]:
            name = {"best": "best on training tasks", "last": "at the end", "kept": "at the end / best"}[which]
            each = "  ".join(f"{seed}: {value:.2f}" for seed, value in found["by_seed"].items())
            span = f"[{found['ci'][0]:.2f}, {found['ci'][1]:.2f}]"
            lines.append(f"{name:23} mean {found['mean']:.2f} {span}   by seed {each}")
    return "\n".join(lines)


def _line(arm: str, seed: str, run: Row) -> str:
    best, last = run["best"], run["last"]
    text = f"{arm:10} {seed:>6}  {best['step']:>8,} {best['return']:>6.1f} {best['success']:>7.0%}"
    text += f"  {last['return']:>7.1f} {last['success']:>7.0%}  "
    known = [f"{best[name]:.0%}" if name in best else "" for name in EXTRAS]
    purity = f"{best['purity']:.2f}" if "purity" in best else ""
    return text + f"{known[0]:>4} {known[1]:>5} {known[2]:>5} {purity:>6} {run['cpu_s']:>6.0f}"


def _mean_line(arm: str, runs: Sequence[Row]) -> str:
    """A line as of a run, of the means over seeds; what not all of them have stays empty."""
    mean: Row = {"cpu_s": float(np.mean([run["cpu_s"] for run in runs]))}
    for which in WHICH:
        shared = set.intersection(*(set(run[which]) for run in runs))
        mean[which] = {key: float(np.mean([run[which][key] for run in runs])) for key in shared}
        mean[which]["step"] = round(mean[which]["step"])
    return _line(arm, "mean", mean)
