"""Students beside plain soft actor-critic, by task and teacher over seeds, in numbers. Plain types, as JSON has them.

How fast a student learns is the area under its evaluations' return over the first env steps, divided by their number:
a mean return. Runs of one seed have the same goals, first weights and evaluation episodes, so they are compared in
pairs: the bootstrap draws seeds, and with each seed both of its runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from collective.config_student import StudentConfig
from rlcore.config import FREE_ON_RESUME, from_dict, to_dict
from rlcore.errors import DataError, QuintetError
from rlcore.evaluate import Array, bootstrap_ci
from rlcore.files import read_json
from rlcore.plots import read_metrics

Report = dict[str, Any]
PLAIN = "plain"
RESAMPLES = 4_000
# Options that runs of one group may differ in: who a run is, how long it lasts, what is kept of it. What a teacher does
# is in the method's name.
NOT_LEARNING = FREE_ON_RESUME | {
    "name", "seed", "task", "steps", "eval_every", "save_every", "save_replay", "early_stop", "teacher",
}  # fmt: skip
TEACHING = {
    "shaping", "bonus_scale", "clone", "clone_kept", "clone_filter", "mix", "mix_by", "sigma_min", "sigma_max",
    "constant", "expire",
}  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """The evaluations of one run, n of them."""

    run: str
    task: str
    method: str  # plain, or what the teacher does
    seed: int
    options: Mapping[str, Any]  # those that shape what is learnt, less what a teacher does in a plain run
    state: str  # running, finished, preempted, failed
    step: Array  # (n,) env steps
    value: Array  # (n,) mean return of an evaluation
    success: Array  # (n,) share of episodes that succeed at any step
    cpu_s: float

    def area(self, first: float) -> float:
        """Mean over the first env steps of the return, straight lines between evaluations."""
        inside = self.step < first
        steps = np.append(self.step[inside], first)
        values = np.append(self.value[inside], np.interp(first, self.step, self.value))
        return float(np.trapezoid(values, steps) / (first - steps[0]))

    def peer(self) -> tuple[Any, ...]:
        """What this run shares with the plain run that it is compared with, and no other plain run has."""
        own = sorted((k, str(v)) for k, v in self.options.items() if k not in TEACHING)
        return self.task, self.seed, *own

    def success_at(self, step: float) -> float:
        """Of the last evaluation that was made by `step`."""
        return float(self.success[np.searchsorted(self.step, step, side="right") - 1])


def read_run(folder: Path, first: float) -> Curve:
    """Its evaluations. QuintetError of one line for what is no student, or one that has not come as far as `first`."""
    record, facts = read_json(folder / "config.json"), read_json(folder / "env.json")
    if not isinstance(record, dict) or not isinstance(facts, dict) or record.get("program") != "collective":
        raise DataError(f"{folder} is no run of collective")
    if facts.get("stage") != "student":
        raise DataError(f"{folder} is no student (its stage is {facts.get('stage')})")
    try:
        cfg = from_dict(StudentConfig, record["config"], f"{folder / 'config.json'}")
    except (QuintetError, KeyError) as error:
        raise DataError(f"{folder}: {error}") from None
    rows = read_metrics(folder)
    keys = ("step", "return_mean", "success")
    found = [[row[key] for key in keys] for row in rows if row.get("kind") == "eval"]
    if not found or found[-1][0] < first:
        raise DataError(f"{folder} has evaluations up to step {found[-1][0] if found else 0:,}, not {first:,.0f}")
    status = read_json(folder / "status.json") if (folder / "status.json").exists() else {}
    apart = NOT_LEARNING | (TEACHING if cfg.teacher == "none" else set())
    step, value, success = np.array(found, np.float64).T
    return Curve(
        folder.name, cfg.task, str(facts.get("method")), cfg.seed,
        {k: v for k, v in _flat(to_dict(cfg)).items() if k.split(".")[0] not in apart}, str(status.get("state")),
        step, value, success, float(rows[-1].get("cpu_s", 0.0)),
    )  # fmt: skip


def _flat(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    parts = [_flat(v, f"{prefix}{k}.") if isinstance(v, Mapping) else {f"{prefix}{k}": v} for k, v in options.items()]
    return {key: value for part in parts for key, value in part.items()}


def by_method(curves: Sequence[Curve]) -> dict[str, list[Curve]]:
    """Runs by method, plain first; where a method's runs had different options, labels say which."""
    groups: dict[str, list[Curve]] = {}
    for curve in sorted(curves, key=lambda c: (c.method != PLAIN, c.method, c.seed, c.run)):
        kin = [other.options for other in curves if other.method == curve.method]
        telling = [k for k in curve.options if any(options.get(k) != curve.options[k] for options in kin)]
        label = " ".join([curve.method, *(f"{k}={curve.options[k]}" for k in telling)])
        groups.setdefault(label, []).append(curve)
    return groups


def compare(curves: Sequence[Curve], first: float) -> Report:
    """For each task a row a method, each beside plain soft actor-critic; and a row a method over all tasks."""
    groups, tasks = by_method(curves), []
    plain = {curve.peer(): curve for curve in curves if curve.method == PLAIN}
    for task in dict.fromkeys(curve.task for curve in curves):
        of_task = {label: own for label, runs in groups.items() if (own := [c for c in runs if c.task == task])}
        end = min(float(curve.step[-1]) for runs in of_task.values() for curve in runs)
        rows = [summary(label, runs, plain, first, end) for label, runs in of_task.items()]
        tasks.append({"task": task, "end": end, "rows": rows})
    overall = [
        {"method": label, "plain": False, "tasks": len(apart), "ratio": ratio([areas(own, first) for own in apart])}
        for label, runs in groups.items()
        if runs[0].method != PLAIN and (apart := by_task(pairs(runs, plain)))
    ]
    unfinished = [f"{c.run} ({c.state}, step {c.step[-1]:,.0f})" for c in curves if c.state != "finished"]
    return {"first": first, "tasks": tasks, "overall": overall, "unfinished": unfinished}


def pairs(runs: Sequence[Curve], plain: Mapping[Any, Curve]) -> list[tuple[Curve, Curve]]:
    """Runs with their plain peers, where they have one."""
    return [(run, plain[run.peer()]) for run in runs if run.peer() in plain]


def by_task(found: Sequence[tuple[Curve, Curve]]) -> list[list[tuple[Curve, Curve]]]:
    """The pairs of each task apart."""
    tasks = dict.fromkeys(run.task for run, _ in found)
    return [[pair for pair in found if pair[0].task == task] for task in tasks]


def areas(found: Sequence[tuple[Curve, Curve]], first: float) -> Array:
    """(P, 2): of a run and of its plain peer."""
    return np.array([[run.area(first), peer.area(first)] for run, peer in found], np.float64).reshape(-1, 2)


def summary(label: str, runs: Sequence[Curve], plain: Mapping[Any, Curve], first: float, end: float) -> Report:
    """One method on one task: areas, success at `end`, and both beside plain runs of the same seeds."""
    beside = [] if runs[0].method == PLAIN else pairs(runs, plain)
    return {
        "method": label, "plain": runs[0].method == PLAIN,
        "runs": [run.run for run in runs], "seeds": [run.seed for run in runs],
        "area": mean([run.area(first) for run in runs]), "success": mean([run.success_at(end) for run in runs]),
        "ratio": ratio([areas(beside, first)]),
        "success_gain": mean([run.success_at(end) - peer.success_at(end) for run, peer in beside]),
        "cpu_s": float(np.median([run.cpu_s for run in runs])),
    }  # fmt: skip


def ratio(tables: Sequence[Array]) -> Report | None:
    """Mean area over mean plain area, averaged over tasks: one table (P, 2) each; None without pairs.

    The interval draws each task's seeds again, in pairs; None for one seed, which cannot tell.
    """
    if any(not len(table) or table[:, 1].mean() <= 0 for table in tables) or not tables:
        return None
    rng, drawn = np.random.default_rng(0), np.zeros(RESAMPLES)
    for table in tables:
        sums = table[rng.integers(len(table), size=(RESAMPLES, len(table)))].sum(1)
        drawn += sums[:, 0] / sums[:, 1] / len(tables)
    return {
        "value": float(np.mean([table[:, 0].mean() / table[:, 1].mean() for table in tables])),
        "ci": np.quantile(drawn, [0.025, 0.975]).tolist() if min(map(len, tables)) > 1 else None,
        "pairs": int(min(map(len, tables))),
    }


def mean(values: Sequence[float]) -> Report | None:
    """Mean over seeds, each seed's own value, and the 95 % bootstrap interval: None for one seed."""
    if not values:
        return None
    interval = list(bootstrap_ci(np.array(values), lambda sample: float(sample.mean()))) if len(values) > 1 else None
    return {"value": float(np.mean(values)), "ci": interval, "each": [float(value) for value in values]}
