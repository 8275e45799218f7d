"""From results folders to one dictionary.

Scores are returns on fresh episodes, `Program.scored` says whose; a cell of the table is the interquartile mean
over seeds with its 95 % bootstrap interval. Costs are of the whole training process, start-up and evaluations included.
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.kinds import Claim, Job
from benchmarks.run import commands_of, costs_of, git_commit, is_done, scores_of
from benchmarks.suite import METHODS, TASKS, TIERS
from rlcore.files import read_json
from rlcore.provenance import cpu_model

Report = dict[str, Any]
MEDIANS = ("env_steps_per_s", "updates_per_s", "wall_s", "cpu_s", "peak_mib")


def collect(jobs: list[Job], results: Path, tier: str, command: str, earlier: Report | None = None) -> Report:
    """Everything the report says, as plain types without host names. What is in `earlier` alone is taken from there."""
    records = [record for job in jobs for record in job_records(job, results)]
    if earlier is not None:
        records = with_earlier(records, earlier)
    return {
        "tier": tier,
        "about": TIERS[tier].about,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": git_commit(),
        "command": command,
        "seeds": sorted({job.seed for job in jobs}),
        "machine": machine(),
        "versions": {**(earlier or {}).get("versions", {}), **versions(jobs, results)},
        "tasks": [task_table(task, records) for task in TASKS if any(r["task"] == task for r in records)],
        "claims": [judge(claim, records) for claim in TIERS[tier].claims],
        "micro": [read_json(path) for path in sorted(results.parent.glob("micro_*.json"))],
        "jobs": records,
    }


def with_earlier(records: list[dict[str, Any]], earlier: Report) -> list[dict[str, Any]]:
    """`records`; where a job has not run, what an earlier report says of the same commands, with its date and machine.

    So the runs of a tier may be made at different times, on different machines.
    """
    key = lambda record: (record["task"], record["method"], record["seed"])  # noqa: E731
    whence = {"date": earlier["date"], "machine": earlier["machine"]}
    known = {key(record): {**whence, **record} for record in earlier["jobs"] if record["state"] == "done"}
    found = []
    for record in records:
        before = known.get(key(record)) if record["state"] == "not run" else None  # a failure is news
        found.append(before if before and before["commands"] == record["commands"] else record)
    return found


def job_records(job: Job, results: Path) -> list[dict[str, Any]]:
    """What one job did: a record, or one for each of the tasks that its agent learnt together."""
    rows = [json.loads(line) for line in read_lines(results / "runs" / job.name / "metrics.jsonl")]
    if job.before:  # the clocks of the record count from the start of training
        ahead = before(costs_of(results, job))["cpu_s"]
        rows = [{**row, "cpu_s": row["cpu_s"] + ahead} for row in rows]
    record = {
        "task": job.task,
        "method": job.method,
        "seed": job.seed,
        "state": "done"
        if is_done(results, job, "evaluate")
        else "failed"
        if costs_of(results, job).get("error")
        else "not run",
        "error": costs_of(results, job).get("error", ""),
        "commit": costs_of(results, job).get("commit", ""),
        "commands": commands_of(job),
    }
    scores: dict[str, list[float]] = {}
    if record["state"] == "done":
        record |= spent(costs_of(results, job), rows)
        scores = scores_of(results, job)
    evals, key = [row for row in rows if row["kind"] == "eval"], METHODS[job.method].program.returns
    if not (parts := TASKS[job.task].parts):
        return [record | learnt(job.task, evals, key, next(iter(scores.values()), None))]
    found = []
    for part in parts:
        own = [row for row in rows if row["kind"] == "eval_task" and row["task"] == part]
        task, own = f"{job.task}/{part}", evals if "{part}" in key else own
        found.append(record | {"task": task} | learnt(task, own, key.format(part=part), scores.get(part)))
    return found


def learnt(task: str, evals: list[dict[str, Any]], key: str, returns: list[float] | None) -> dict[str, Any]:
    """The learning curve, [env steps, return, CPU seconds] each, from `key`; the score, once it is there."""
    curve = {"curve": [[row["step"], round(row[key], 4), round(row["cpu_s"], 1)] for row in evals]}
    if returns is None:
        return curve
    at_bar = next((row for row in evals if row[key] >= TASKS[task].bar), None)
    return curve | {
        "return_mean": round(statistics.fmean(returns), 4),
        "return_std": round(statistics.pstdev(returns), 4),
        "episodes": len(returns),
        "steps_to_bar": at_bar["step"] if at_bar else None,
        "cpu_to_bar": round(at_bar["cpu_s"], 1) if at_bar else None,
    }


def before(costs: dict[str, Any]) -> dict[str, float]:
    """Seconds that the commands before training took, and their peak memory."""
    made = [cost for phase, cost in costs.items() if phase.startswith("before_")]
    seconds = {name: sum(cost[name] for cost in made) for name in ("wall_s", "cpu_s")}
    return {**seconds, "peak_mib": max((cost["peak_mib"] for cost in made), default=0.0)}


def spent(costs: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What a finished job cost, with what came before training; rates are of training."""
    last, cost, ahead = [row for row in rows if row["kind"] == "train"][-1], costs["train"], before(costs)
    return {
        "env_steps": last["step"],
        "updates": last["updates"],
        "env_steps_per_s": round(last["step"] / last["wall_s"], 1),
        "updates_per_s": round(last["updates"] / last["wall_s"], 1),
        # The run's own clocks still know of sessions whose costs died with a bench killed by -9.
        "wall_s": round(max(cost["wall_s"], round(last["wall_s"], 2)) + ahead["wall_s"], 2),
        "cpu_s": round(max(cost["cpu_s"] + ahead["cpu_s"], last["cpu_s"]), 2),
        "peak_mib": max(cost["peak_mib"], ahead["peak_mib"]),
        "eval_wall_s": costs["evaluate"]["wall_s"],
    }


def read_lines(path: Path) -> list[str]:
    """Complete lines of a file that may still be growing, or not be there."""
    return path.read_text().split("\n")[:-1] if path.exists() else []


def task_table(task: str, records: list[dict[str, Any]]) -> dict[str, Any]:
    """The rows of one task, a method each, in the order of the suite."""
    mine = [r for r in records if r["task"] == task]
    methods = [method for method in METHODS if any(r["method"] == method for r in mine)]
    rows = [summarize(method, [r for r in mine if r["method"] == method]) for method in methods]
    about = TASKS[task]
    return {"task": task, "title": about.title, "about": about.about, "bar": about.bar, "rows": rows}


def summarize(method: str, records: list[dict[str, Any]]) -> dict[str, Any]:
    """One row: medians over seeds of everything but the return."""
    import numpy as np

    from rlcore.evaluate import bootstrap_ci, iqm

    done = [r for r in records if r["state"] == "done"]
    row: dict[str, Any] = {"method": method, "title": METHODS[method].title, "runs": len(records), "done": len(done)}
    if not done:
        return row
    means = np.array([r["return_mean"] for r in done])
    to_bar = {key: statistics.median(r[key] or math.inf for r in done) for key in ("steps_to_bar", "cpu_to_bar")}
    low, high = bootstrap_ci(means)
    return row | {
        "mean": float(means.mean()),
        "iqm": iqm(means),
        "ci": [low, high],
        "solved": int((means >= TASKS[done[0]["task"]].bar).sum()),
        **{key: median if math.isfinite(median) else None for key, median in to_bar.items()},
        "curve": band([r["curve"] for r in done]),
        "bar": TASKS[done[0]["task"]].bar,
        "floor": TASKS[done[0]["task"]].floor,
        **{key: statistics.median(r[key] for r in done) for key in MEDIANS},
    }


def band(curves: list[list[list[float]]]) -> list[list[float]]:
    """[step, mean, low, high, CPU seconds] at each step where a seed was evaluated, as far as all seeds went.

    Mean over seeds with its 95 % interval, and their mean CPU seconds.
    """
    import numpy as np

    from rlcore.evaluate import bootstrap_ci

    curves = [curve for curve in curves if curve]
    end = min((curve[-1][0] for curve in curves), default=0)
    steps = sorted({point[0] for curve in curves for point in curve if point[0] <= end})
    seeds = [[np.interp(steps, [p[0] for p in curve], [p[i] for p in curve]) for curve in curves] for i in (1, 2)]
    points = []
    for step, column, seconds in zip(steps, np.array(seeds[0]).T, np.mean(seeds[1], axis=0)):
        low, high = bootstrap_ci(column, np.mean)
        points.append([step, *(round(float(v), 4) for v in (column.mean(), low, high)), round(float(seconds), 1)])
    return points


def judge(claim: Claim, records: list[dict[str, Any]]) -> dict[str, Any]:
    """Whether a claim holds in these runs; None when not all of its runs are there."""
    mine = [r for r in records if (r["task"], r["method"]) == (claim.task, claim.method)]
    if claim.above:
        return learns_above(claim, records, len(mine))
    scores = [r["return_mean"] for r in mine if r["state"] == "done"]
    need = min(claim.of or len(mine), len(mine))
    if claim.recovers is not None:
        scores, low, high = recovered(claim, records), *(METHODS[name].title for name in claim.between)
        text = f"at least {claim.recovers:g} of the way from {low} to {high}"
        good = sum(score >= claim.recovers for score in scores)
    elif claim.more is not None:
        scores, text = gained(claim, records), f"more than {METHODS[claim.than].title} by at least {claim.more:g}"
        text += f" at step {claim.at:,}" if claim.at else ""
        good = sum(score >= claim.more for score in scores)
    elif claim.below is not None:
        text, good = f"at most {claim.below:g}", sum(score <= claim.below for score in scores)
    elif claim.at_least is not None:
        text, good = f"at least {claim.at_least:g}", sum(score >= claim.at_least for score in scores)
    else:
        limit = claim.at_most or 0.0
        text, good = f"chance, within ±{limit:g}", sum(abs(score) <= limit for score in scores)
    holds = good >= need if mine and len(scores) == len(mine) else None
    text = f"{METHODS[claim.method].title} on {TASKS[claim.task].title}: {text} in {need} of {len(mine)} seeds"
    return {"claim": text, "good": good, "scores": scores, "holds": holds}


def learns_above(claim: Claim, records: list[dict[str, Any]], runs: int) -> dict[str, Any]:
    """`judge` for a claim about areas; its scores are the differences, seed by seed."""
    import numpy as np

    from rlcore.evaluate import bootstrap_ci

    area: dict[tuple[str, int], float] = {}
    for r in records:
        if r["task"] == claim.task and r["state"] == "done" and len(r["curve"]) > 1:
            steps, returns, _ = zip(*r["curve"])
            area[r["method"], r["seed"]] = float(np.trapezoid(returns, steps)) / (steps[-1] - steps[0])
    seeds = [seed for method, seed in area if method == claim.method and (claim.above, seed) in area]
    scores = [round(area[claim.method, seed] - area[claim.above, seed], 4) for seed in seeds]
    text = f"{METHODS[claim.method].title} on {TASKS[claim.task].title}: mean return while it learns above that of "
    text += METHODS[claim.above].title
    if len(scores) < max(runs, 3):  # of two, the interval is between them, whatever they are
        return {"claim": text, "good": 0, "scores": scores, "holds": None}
    low, high = bootstrap_ci(np.array(scores), np.mean)
    text += f", by {np.mean(scores):.2f} [{low:.2f}, {high:.2f}]"
    return {"claim": text, "good": sum(score > 0 for score in scores), "scores": scores, "holds": low > 0}


def gained(claim: Claim, records: list[dict[str, Any]]) -> list[float]:
    """The claim's method less the one it names, on each seed that both have finished, or whose curves have the step."""
    done: dict[tuple[str, int], float] = {}
    for r in records:
        if r["task"] == claim.task and "return_mean" in r:
            curve = {None: r["return_mean"], **{step: value for step, value, _ in r.get("curve", [])}}
            if claim.at in curve:
                done[r["method"], r["seed"]] = curve[claim.at]
    seeds = sorted({seed for _, seed in done})
    pairs = [(done.get((claim.method, seed)), done.get((claim.than, seed))) for seed in seeds]
    return [round(mine - other, 4) for mine, other in pairs if mine is not None and other is not None]


def recovered(claim: Claim, records: list[dict[str, Any]]) -> list[float]:
    """Where between the claim's two other methods its own lies, 0 to 1, on each seed that all three have finished.

    Nowhere (0) where the second of them is no better than the first.
    """
    done = {
        (r["method"], r["seed"]): r["return_mean"] for r in records if r["task"] == claim.task and "return_mean" in r
    }
    low, high = claim.between
    shares = []
    for seed in sorted({seed for _, seed in done}):
        if all((name, seed) in done for name in (claim.method, low, high)):
            whole = done[high, seed] - done[low, seed]
            shares.append((done[claim.method, seed] - done[low, seed]) / whole if whole > 0 else 0.0)
    return shares


def machine() -> dict[str, Any]:
    """The machine, without its name."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }


def versions(jobs: list[Job], results: Path) -> dict[str, str]:
    """Versions the runs themselves recorded; where the peers' environment differs, both."""
    found: dict[str, set[str]] = {}
    for job in jobs:
        path = results / "runs" / job.name / "env.json"
        packages = read_json(path).get("packages", {}) if path.exists() else {}
        for name, version in packages.items():
            found.setdefault(name, set()).add(str(version))
    return {name: ", ".join(sorted(values)) for name, values in sorted(found.items())}
