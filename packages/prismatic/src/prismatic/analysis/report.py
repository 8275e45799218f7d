"""Runs beside each other: by task and variant over seeds, in numbers. Plain types throughout, as report.json has them.

Statistics over seeds follow Agarwal et al. 2021 (arXiv:2108.13264): interquartile means with bootstrap intervals.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prismatic.analysis.evaluations import Curve
from prismatic.envs.dmc import TASKS as CONTROL
from rlcore.errors import UsageError
from rlcore.evaluate import Array, bootstrap_ci, iqm

Report = dict[str, Any]
SHARE = 0.9  # of the best variant's return: what counts as solved where no threshold is given


def parse_thresholds(text: str | None) -> dict[str | None, float]:
    """`800`, `walker-walk=800,cup-catch=900`, or both: thresholds by task, that of all others under None."""
    found: dict[str | None, float] = {}
    for part in text.split(",") if text is not None else ():
        task, _, number = part.strip().rpartition("=")
        try:
            found[task or None] = float(number)
        except ValueError:
            found[task or None] = math.nan
        if not math.isfinite(found[task or None]):
            raise UsageError(f"--threshold {text}: {part!r} is neither a number nor task=number")
    return found


def compare(curves: Sequence[Curve], thresholds: Mapping[str | None, float]) -> Report:
    """The whole report: a table for each task, and the score over all tasks of each variant."""
    names = list(dict.fromkeys(curve.task for curve in curves))
    if unknown := [task for task in thresholds if task is not None and task not in names]:
        raise UsageError(f"--threshold: no run has a task {unknown[0]}; there are {', '.join(names)}")
    groups = {task: group([curve for curve in curves if curve.task == task]) for task in names}
    given = {task: thresholds.get(task, thresholds.get(None)) for task in names}
    tasks = [compare_task(task, groups[task], given[task]) for task in names]
    unfinished = {
        c.run: {"run": c.run, "state": c.state, "step": int(c.step[-1])} for c in curves if c.state != "finished"
    }
    return {"tasks": tasks, "scores": over_tasks(groups), "unfinished": list(unfinished.values())}


def group(curves: Sequence[Curve]) -> dict[str, list[Curve]]:
    """The runs of a task by variant, dense first; where a variant's runs had different options, labels say which."""
    groups: dict[str, list[Curve]] = {}
    for curve in sorted(curves, key=lambda curve: (curve.variant != "dense", curve.variant, curve.seed)):
        kin = [other.options for other in curves if other.variant == curve.variant]
        telling = [key for key in curve.options if any(options[key] != curve.options[key] for options in kin)]
        label = " ".join([curve.variant, *(f"{key}={curve.options[key]}" for key in telling)])
        groups.setdefault(label, []).append(curve)
    return groups


def compare_task(task: str, groups: Mapping[str, Sequence[Curve]], threshold: float | None) -> Report:
    """Every variant on one task. Where budgets differ, also at the last step that all runs have reached."""
    curves = [curve for runs in groups.values() for curve in runs]
    budgets = {int(curve.step[-1]) for curve in curves}
    common = min(budgets) if len(budgets) > 1 else None
    best = max(middle([curve.score[-1] for curve in runs])["iqm"] for runs in groups.values())
    chosen = best - (1 - SHARE) * abs(best) if threshold is None else threshold  # returns may be negative
    return {
        "task": task, "threshold": chosen, "threshold_given": threshold is not None, "common_step": common,
        "rows": [summary(label, runs, chosen, common) for label, runs in groups.items()],
    }  # fmt: skip


def summary(label: str, runs: Sequence[Curve], threshold: float, common: float | None) -> Report:
    """One variant on one task."""
    hits = [np.flatnonzero(curve.score >= threshold) for curve in runs]
    first = [int(hit[0]) if hit.size else None for hit in hits]
    steps = [None if i is None else float(curve.step[i]) for curve, i in zip(runs, first)]
    frames = [s if s is None or c.repeat is None else s * c.repeat for c, s in zip(runs, steps)]
    cpu = [None if i is None else float(curve.cpu_s[i]) for curve, i in zip(runs, first)]
    shared = [] if common is None else [curve.score[i] for curve in runs if (i := curve.at(common)) >= 0]
    told = all(curve.success is not None for curve in runs)
    scores = [normalised(curve) for curve in runs]
    return {
        "variant": label,
        "runs": [curve.run for curve in runs],
        "seeds": [curve.seed for curve in runs],
        "steps": [int(curve.step[-1]) for curve in runs],
        "last": middle([curve.score[-1] for curve in runs]),
        "best": middle([curve.score.max() for curve in runs]),
        "success": middle([curve.success[-1] for curve in runs if curve.success is not None]) if told else None,
        "normalised": None if None in scores else middle([score for score in scores if score is not None]),
        "at_common_step": middle(shared) if shared else None,
        "reached": len(runs) - first.count(None),
        "steps_to_threshold": median(steps),
        "frames_to_threshold": median(frames) if all(curve.repeat is not None for curve in runs) else None,
        "cpu_s_to_threshold": median(cpu),
    }


def middle(values: Sequence[float]) -> Report:
    """IQM over seeds, each seed's own value, and the 95 % interval: None for one seed, which cannot tell."""
    table = np.array(values, np.float64)
    interval = list(bootstrap_ci(table)) if len(table) > 1 else None
    return {"iqm": float(iqm(table)), "ci": interval, "each": table.tolist()}


def median(costs: Sequence[float | None]) -> float | None:
    """Over seeds; a seed that never got there counts as infinite, and an infinite or unknown median is None."""
    value = statistics.median(math.inf if cost is None else cost for cost in costs)
    return value if math.isfinite(value) else None


def normalised(curve: Curve) -> float | None:
    """The last evaluation on a scale up to 100: the success rate where the env tells it; DeepMind Control return / 10.

    TD-MPC2's (arXiv:2310.16828). None for tasks whose returns have no such scale.
    """
    if curve.success is not None:
        return 100.0 * float(curve.success[-1])
    return float(curve.score[-1]) / 10 if curve.task.removesuffix("-v0") in CONTROL else None


def over_tasks(groups: Mapping[str, Mapping[str, Sequence[Curve]]]) -> list[Report]:
    """For each variant the mean over tasks of the IQM over seeds of the normalised score, where all runs have one."""
    rows = []
    for label in dict.fromkeys(label for variants in groups.values() for label in variants):
        mine = {
            task: [normalised(c) for c in variants[label]] for task, variants in groups.items() if label in variants
        }
        columns = [[s for s in scores if s is not None] for scores in mine.values() if None not in scores]
        if not columns:
            continue
        interval, seeds = None, {len(column) for column in columns}
        if len(seeds) == 1 and max(seeds) > 1:  # the strata of the bootstrap are of equal size
            interval = list(bootstrap_ci(np.array(columns).T, _mean_of_iqms))
        score = float(np.mean([iqm(np.array(column)) for column in columns]))
        rows.append({"variant": label, "tasks": len(columns), "of": len(groups), "normalised": score, "ci": interval})
    return rows


def _mean_of_iqms(table: Array) -> float:
    """table (runs, tasks)"""
    return float(iqm(table, axis=0).mean())
