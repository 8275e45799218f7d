"""Rl runs beside each other, by task and method over seeds, in numbers. Plain types, as compare.json has them.

Interquartile means over seeds with bootstrap intervals follow Agarwal et al. 2021 (arXiv:2108.13264).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gasp.config_rl import RLConfig
from rlcore.config import FREE_ON_RESUME, from_dict, to_dict
from rlcore.errors import DataError, QuintetError
from rlcore.evaluate import Array, bootstrap_ci, iqm
from rlcore.files import read_json
from rlcore.plots import read_metrics

Report = dict[str, Any]
METHODS = ("gasp", "spirl", "no prior")  # in this order
# Options that runs of one row may differ in: who a run is, how long it lasts, what is kept of it.
NOT_LEARNING = FREE_ON_RESUME | {
    "name", "seed", "skills", "skills_checkpoint", "latent_prior", "task", "steps", "eval_every", "eval_episodes",
    "save_every", "save_replay", "backend",
}  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """The evaluations of one run, n of them."""

    run: str
    task: str
    method: str
    seed: int
    subtasks: int  # 0 where an episode succeeds or does not
    options: Mapping[str, Any]  # those that shape what is learnt
    state: str  # running, finished, preempted, failed
    step: Array  # (n,) env steps
    score: Array  # (n,) share of successes, or mean subtasks
    last20: float | None  # success of the last 20 training episodes; None before there are any
    cpu_s: float

    def at(self, step: float) -> float | None:
        """The score of the last evaluation that was made by `step`."""
        found = int(np.searchsorted(self.step, step, side="right")) - 1
        return float(self.score[found]) if found >= 0 else None


def read_run(folder: Path, mode: str) -> Curve:
    """Its evaluations with the mean skill or with drawn ones. QuintetError of one line for what is no rl run."""
    record, facts = read_json(folder / "config.json"), read_json(folder / "env.json")
    if not isinstance(record, dict) or not isinstance(facts, dict) or record.get("program") != "gasp":
        raise DataError(f"{folder} is no run of gasp")
    if facts.get("stage") != "rl":
        raise DataError(f"{folder} is no rl run (its stage is {facts.get('stage')})")
    try:
        cfg = from_dict(RLConfig, record["config"], f"{folder / 'config.json'}")
    except (QuintetError, KeyError) as error:
        raise DataError(f"{folder}: {error}") from None
    rows, subtasks = read_metrics(folder), facts.get("subtasks") or []
    key = ("drawn_" if mode == "drawn" else "") + ("subtasks_mean" if subtasks else "success_rate")
    found = [(row["step"], row[key]) for row in rows if row.get("kind") == "eval" and key in row]
    if not found:
        raise DataError(f"{folder} has no evaluation yet")
    trained = [row["success_last20"] for row in rows if row.get("success_last20") is not None]
    status = read_json(folder / "status.json") if (folder / "status.json").exists() else {}
    steps, scores = np.array(found, np.float64).T
    return Curve(
        folder.name, cfg.task, str(facts.get("method")), cfg.seed, len(subtasks),
        {k: v for k, v in _flat(to_dict(cfg)).items() if k.split(".")[0] not in NOT_LEARNING},
        str(status.get("state")), steps, scores, trained[-1] if trained else None, float(rows[-1].get("cpu_s", 0.0)),
    )  # fmt: skip


def _flat(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    parts = [_flat(v, f"{prefix}{k}.") if isinstance(v, Mapping) else {f"{prefix}{k}": v} for k, v in options.items()]
    return {key: value for part in parts for key, value in part.items()}


def by_method(curves: Sequence[Curve]) -> dict[str, list[Curve]]:
    """The runs of one task by method; where a method's runs had different options, labels say which."""
    groups: dict[str, list[Curve]] = {}
    order = {name: i for i, name in enumerate(METHODS)}
    for curve in sorted(curves, key=lambda c: (order.get(c.method, len(order)), c.seed, c.run)):
        kin = [other.options for other in curves if other.method == curve.method]
        telling = [k for k in curve.options if any(options.get(k) != curve.options[k] for options in kin)]
        label = " ".join([curve.method, *(f"{k}={curve.options[k]}" for k in telling)])
        groups.setdefault(label, []).append(curve)
    return groups


def compare(curves: Sequence[Curve], mode: str) -> Report:
    """The whole report: for each task a row a method, and what lies between each two of them."""
    tasks = []
    for task in dict.fromkeys(curve.task for curve in curves):
        groups = by_method([curve for curve in curves if curve.task == task])
        runs = [curve for group in groups.values() for curve in group]
        common = min(float(curve.step[-1]) for curve in runs)
        tasks.append(
            {
                "task": task, "score": "subtasks" if runs[0].subtasks else "success", "of": runs[0].subtasks or 1,
                "step": common, "cut": any(curve.step[-1] > common for curve in runs),
                "rows": [summary(label, group, common) for label, group in groups.items()],
                "differences": [difference(a, b, groups, common) for a, b in itertools.combinations(groups, 2)],
            }
        )  # fmt: skip
    unfinished = [f"{c.run} ({c.state}, step {c.step[-1]:,.0f})" for c in curves if c.state != "finished"]
    return {"mode": mode, "tasks": tasks, "unfinished": unfinished}


def scores_at(runs: Sequence[Curve], step: float) -> Array:
    """(R,) of the runs that had been evaluated by then."""
    return np.array([score for run in runs if (score := run.at(step)) is not None], np.float64)


def summary(label: str, runs: Sequence[Curve], step: float) -> Report:
    """One method on one task: before anything was learnt, at `step`, and what it took."""
    before, after = scores_at(runs, 0), scores_at(runs, step)
    last20 = [run.last20 for run in runs if run.last20 is not None and run.step[-1] == step]
    gains = after - before if len(before) == len(after) else np.zeros(0)
    return {
        "method": label, "runs": [run.run for run in runs], "seeds": [run.seed for run in runs],
        "before": middle(before), "after": middle(after), "gain": middle(gains), "last20": middle(last20),
        "cpu_s": float(np.median([run.cpu_s for run in runs])),
    }  # fmt: skip


def middle(values: Sequence[float] | Array) -> Report | None:
    """IQM over seeds, each seed's own value, and the 95 % interval: None for one seed, which cannot tell."""
    table = np.asarray(values, np.float64)
    if not len(table):
        return None
    interval = list(bootstrap_ci(table)) if len(table) > 1 else None
    return {"iqm": float(iqm(table)), "ci": interval, "each": table.tolist()}


def difference(a: str, b: str, groups: Mapping[str, Sequence[Curve]], step: float) -> Report:
    """IQM of a less that of b at `step`; the interval draws the seeds of either again, independently."""
    one, two = (scores_at(groups[name], step) for name in (a, b))
    found: Report = {"between": [a, b], "iqm": float(iqm(one) - iqm(two)), "ci": None}
    if len(one) > 1 and len(two) > 1:
        rng = np.random.default_rng(0)
        drawn = [iqm(scores[rng.integers(len(scores), size=(2000, len(scores)))], axis=1) for scores in (one, two)]
        found["ci"] = np.quantile(drawn[0] - drawn[1], [0.025, 0.975]).tolist()
    return found
