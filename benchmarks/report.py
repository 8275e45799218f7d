"""From results folders to one dictionary, and from it a terminal table, Markdown, JSON and a self-contained HTML page.

Scores are greedy returns of each run's best checkpoint on fresh episodes; a cell of the table is the interquartile mean
over seeds with its 95 % bootstrap interval. Costs are of the whole training process, start-up and evaluations included.
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.run import commands_of, costs_of, git_commit, is_done
from benchmarks.suite import EVAL_EPISODES, METHODS, TASKS, TIERS, Claim, Job
from rlcore.files import read_json
from rlcore.provenance import cpu_model

Report = dict[str, Any]
HEADERS = (
    *("method", "return [95 % CI]", "solved", "steps to bar", "curve"),
    *("env steps/s", "updates/s", "wall s", "CPU s", "peak MiB"),
)
MEDIANS = ("env_steps_per_s", "updates_per_s", "wall_s", "cpu_s", "peak_mib")
METHODS_ARE = (
    "ours share one learner and schedule and differ in the core; mpn-frozen is mpn whose memory stays zero, a "
    "feed-forward net; the peer has the settings its own zoo found for CartPole-v1, elsewhere its defaults"
)
CLAIM_HEADERS = ("claim", "score of each seed", "verdict")


# --- collecting -------------------------------------------------------------------------------------------------------
def collect(jobs: list[Job], results: Path, tier: str, command: str) -> Report:
    """Everything the report says, as plain types without host names."""
    records = [job_record(job, results) for job in jobs]
    return {
        "tier": tier,
        "about": TIERS[tier].about,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": git_commit(),
        "command": command,
        "seeds": sorted({job.seed for job in jobs}),
        "machine": machine(),
        "versions": versions(jobs, results),
        "tasks": [task_table(task, records) for task in TASKS if any(r["task"] == task for r in records)],
        "claims": [judge(claim, records) for claim in TIERS[tier].claims],
        "micro": [read_json(path) for path in sorted(results.parent.glob("micro_*.json"))],
        "jobs": records,
    }


def job_record(job: Job, results: Path) -> dict[str, Any]:
    """What one job did, as far as it got."""
    costs, run = costs_of(results, job), results / "runs" / job.name
    rows = [json.loads(line) for line in read_lines(run / "metrics.jsonl")]
    evals = [row for row in rows if row["kind"] == "eval"]
    record = {
        "task": job.task,
        "method": job.method,
        "seed": job.seed,
        "state": "done" if is_done(results, job, "evaluate") else "failed" if costs.get("error") else "not run",
        "error": costs.get("error", ""),
        "commit": costs.get("commit", ""),
        "curve": [[row["step"], round(row["return_mean"], 4)] for row in evals],
        "commands": commands_of(job),
    }
    if record["state"] != "done":
        return record
    last, cost = [row for row in rows if row["kind"] == "train"][-1], costs["train"]
    score = read_json(run / "eval.json")
    bar = TASKS[job.task].bar
    return record | {
        "return_mean": round(score["return_mean"], 4),
        "return_std": round(statistics.pstdev(score["returns"]), 4),
        "episodes": len(score["returns"]),
        "steps_to_bar": next((row["step"] for row in evals if row["return_mean"] >= bar), None),
        "env_steps": last["step"],
        "updates": last["updates"],
        "env_steps_per_s": round(last["step"] / last["wall_s"], 1),
        "updates_per_s": round(last["updates"] / last["wall_s"], 1),
        "wall_s": max(cost["wall_s"], round(last["wall_s"], 2)),  # the run's own clocks still know of sessions
        "cpu_s": max(cost["cpu_s"], round(last["cpu_s"], 2)),  # whose costs died with a bench killed by -9
        "peak_mib": cost["peak_mib"],
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
    reached = [r["steps_to_bar"] or math.inf for r in done]
    median = statistics.median(reached)
    low, high = bootstrap_ci(means)
    return row | {
        "mean": float(means.mean()),
        "iqm": iqm(means),
        "ci": [low, high],
        "solved": int((means >= TASKS[done[0]["task"]].bar).sum()),
        "steps_to_bar": median if math.isfinite(median) else None,
        "curve": band([r["curve"] for r in done]),
        "bar": TASKS[done[0]["task"]].bar,
        **{key: statistics.median(r[key] for r in done) for key in MEDIANS},
    }


def band(curves: list[list[list[float]]]) -> list[list[float]]:
    """[step, mean, low, high] over seeds at every step where a seed was evaluated, with a 95 % interval of the mean."""
    import numpy as np

    from rlcore.evaluate import bootstrap_ci

    curves = [curve for curve in curves if curve]
    steps = sorted({step for curve in curves for step, _ in curve})
    seeds = [np.interp(steps, [p[0] for p in curve], [p[1] for p in curve]) for curve in curves]
    points = []
    for step, column in zip(steps, np.array(seeds).T):
        low, high = bootstrap_ci(column, np.mean)
        points.append([step, *(round(float(v), 4) for v in (column.mean(), low, high))])
    return points


def judge(claim: Claim, records: list[dict[str, Any]]) -> dict[str, Any]:
    """Whether a claim holds in these runs; None when not all of its runs are there."""
    mine = [r for r in records if (r["task"], r["method"]) == (claim.task, claim.method)]
    scores = [r["return_mean"] for r in mine if r["state"] == "done"]
    need = min(claim.of or len(mine), len(mine))
    if claim.at_least is not None:
        text, good = f"at least {claim.at_least:g}", sum(score >= claim.at_least for score in scores)
    else:
        limit = claim.at_most or 0.0
        text, good = f"chance, within ±{limit:g}", sum(abs(score) <= limit for score in scores)
    holds = good >= need if mine and len(scores) == len(mine) else None
    text = f"{METHODS[claim.method].title} on {TASKS[claim.task].title}: {text} in {need} of {len(mine)} seeds"
    return {"claim": text, "good": good, "scores": scores, "holds": holds}


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


# --- one table, four faces --------------------------------------------------------------------------------------------
def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row as text, in the order of HEADERS."""
    if not row["done"]:
        return (row["title"], "no result", *[""] * (len(HEADERS) - 2))
    return (
        row["title"],
        f"{short(row['iqm'])} [{short(row['ci'][0])}, {short(row['ci'][1])}]",
        f"{row['solved']}/{row['runs']}",
        f"{row['steps_to_bar']:,.0f}" if row["steps_to_bar"] else "–",
        sparkline([point[1] for point in row["curve"]], 0.0, row["bar"]),
        *(f"{row[key]:,.0f}" for key in MEDIANS),
    )


def short(value: float) -> str:
    """Three digits or so: 486, 0.97, -0.02."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value + 0.0:.2f}"


def sparkline(values: list[float], low: float, high: float) -> str:
    """A curve in a line of text, every other point of a long one."""
    levels = "▁▂▃▄▅▆▇█"
    heights = [int((value - low) / (high - low) * len(levels)) for value in values[:: -(-len(values) // 12) or 1]]
    return "".join(levels[min(max(height, 0), len(levels) - 1)] for height in heights)


def headline(report: Report) -> str:
    """One sentence on what is compared."""
    names = dict.fromkeys(row["title"] for task in report["tasks"] for row in task["rows"])
    titles = [task["title"] for task in report["tasks"]]
    seeds = f"{len(report['seeds'])} seed{'s' * (len(report['seeds']) != 1)} each"
    scores = f"scores are greedy returns of each run's best checkpoint on {EVAL_EPISODES} fresh episodes"
    return f"{listed(names)} on {listed(titles)}, {seeds}; {scores}."


def listed(names: Iterable[str]) -> str:
    """a, b and c."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def summary(report: Report) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headers and rows of the headline table: a method a row, a task a column."""
    headers = ("return, seeds that solved it", *(f"{task['title']} ({task['bar']:g})" for task in report["tasks"]))
    tables = [{row["title"]: row for row in task["rows"] if row["done"]} for task in report["tasks"]]
    titles = [how.title for how in METHODS.values() if any(how.title in table for table in tables)]
    return headers, [(title, *(brief(table.get(title)) for table in tables)) for title in titles]


def brief(row: dict[str, Any] | None) -> str:
    return f"{short(row['iqm'])}, {row['solved']} of {row['runs']}" if row else "–"


def failures(report: Report) -> list[str]:
    failed = [r for r in report["jobs"] if r["state"] == "failed"]
    return [f"{r['task']} {r['method']} seed {r['seed']}: {r['error']}" for r in failed]


def claim_cells(claim: dict[str, Any]) -> tuple[str, str, str]:
    """A claim as text, in the order of CLAIM_HEADERS."""
    verdict = {True: "holds", False: "does not hold", None: "not measured"}[claim["holds"]]
    return claim["claim"], ", ".join(map(short, claim["scores"])), verdict


def facts(report: Report) -> list[tuple[str, str]]:
    """The small print, name and value."""
    m = report["machine"]
    commits = sorted({r["commit"] for r in report["jobs"] if r["commit"]})
    hardware = f"{m['cpu']}, {m['cores']} cores, {m['memory_gib']} GiB, {m['system']}"
    return [
        ("Date", report["date"]),
        ("Machine", f"{hardware}, load {m['load']} when this was written"),
        ("Versions", ", ".join(f"{k} {v}" for k, v in {"Python": m["python"], **report["versions"]}.items())),
        ("Commit", ", ".join(commits) + " (+: files differed from it)" * any("+" in c for c in commits)),
        ("Methods", METHODS_ARE),
        ("Seeds", ", ".join(map(str, report["seeds"]))),
        ("Command", report["command"]),
        (
            "Return",
            "interquartile mean and 95 % bootstrap interval over seeds; solved: the seed's mean is at the bar",
        ),
        ("Steps to bar", "env steps at the first evaluation in training that was at the bar; median over seeds"),
        ("Costs", "of the training process with start-up, evaluations, saves; one thread; medians over seeds"),
    ]


def one_of_each(report: Report) -> Iterable[tuple[str, dict[str, str]]]:
    """The commands of the first seed of every row."""
    seen = set()
    for record in report["jobs"]:
        if (record["task"], record["method"]) not in seen:
            seen.add((record["task"], record["method"]))
            yield f"{record['task']} {record['method']}", record["commands"]


def print_terminal(report: Report) -> None:
    """Tables for the eye: all columns in a file and on a wide terminal, the first ones on a narrow one."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console = console if console.is_terminal else Console(width=140, highlight=False)
    left_out = {"steps to bar", "curve", "updates/s", "peak MiB"} if console.width < 125 else set()
    for task in report["tasks"]:
        title = f"{task['title']}, solved at {task['bar']:g}"
        table = Table(
            title=title,
            title_justify="left",
            title_style="bold",
            box=box.SIMPLE_HEAD,
            collapse_padding=True,
            pad_edge=False,
        )
        shown = [i for i, header in enumerate(HEADERS) if header not in left_out]
        for i in shown:
            table.add_column(HEADERS[i], justify="right" if i else "left", no_wrap=True)
        for row in task["rows"]:
            texts = cells(row)
            table.add_row(*(texts[i] for i in shown))
        console.print(table)
    for claim in report["claims"]:
        text, scores, verdict = claim_cells(claim)
        console.print(f"{verdict.upper() if claim['holds'] is False else verdict}: {text}: {scores}", markup=False)
    for line in failures(report):
        console.print(f"failed: {line}", markup=False)


def to_markdown(report: Report) -> str:
    lines = [f"# Benchmarks, {report['tier']} tier", "", headline(report), "", *markdown_table(*summary(report))]
    for task in report["tasks"]:
        lines += [f"## {task['title']}", "", f"{task['about']} Solved: mean return of at least {task['bar']:g}.", ""]
        lines += markdown_table(HEADERS, [cells(row) for row in task["rows"]])
    if report["claims"]:
        lines += ["## Claims", "", *markdown_table(CLAIM_HEADERS, map(claim_cells, report["claims"]))]
    for micro in report["micro"]:
        lines += [f"## {micro['title']}", "", *markdown_table(*micro_table(micro)), micro_note(micro), ""]
    if failed := failures(report):
        lines += ["## Failed", "", *(f"- {line}" for line in failed), ""]
    lines += ["## How it was made", "", *(f"- {name}: {value}" for name, value in facts(report)), ""]
    for name, commands in one_of_each(report):
        lines += [f"{name}:", "```", commands["train"], commands["evaluate"], "```"]
    return "\n".join(lines) + "\n"


def markdown_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    rule = "|---" + "|--:" * (len(headers) - 1) + "|"
    return [f"| {' | '.join(headers)} |", rule, *(f"| {' | '.join(row)} |" for row in rows), ""]


def micro_table(micro: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headers and rows of a record of benchmarks.micro."""
    headers = ("what", "ours", "peer", "peer / ours [quartiles]", "bar", "verdict")
    rows: list[tuple[str, ...]] = []
    for row in micro["rows"]:
        ratio = f"{short(row['ratio'])} [{', '.join(map(short, row['quartiles']))}]"
        what, costs = f"{row['name']}, beside {row['peer']}", (duration(row["ours_us"]), duration(row["peer_us"]))
        rows.append((what, *costs, ratio, f"{row['bar']:g}", "reached" if row["reached"] else "not reached"))
    return headers, rows


def micro_note(micro: dict[str, Any]) -> str:
    """Where and how a record was measured."""
    unit = "; ".join(dict.fromkeys(row["unit"] for row in micro["rows"]))
    return f"{unit}; {micro['protocol']}; {micro['machine']['cpu']}, {micro['date']}."


def duration(microseconds: float) -> str:
    return f"{short(microseconds)} µs" if microseconds < 1000 else f"{short(microseconds / 1000)} ms"


def to_json(report: Report) -> str:
    """Indented, but one line for each job and row: small to commit, and a diff that can be read."""
    parts = []
    for key, value in report.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            items = ",\n  ".join(json.dumps(item, ensure_ascii=False, allow_nan=False) for item in value)
            parts.append(f" {json.dumps(key)}: [\n  {items}\n ]")
        else:
            parts.append(f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=False, allow_nan=False)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"
