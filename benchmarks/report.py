"""A report's dictionary (collect.py) as a terminal table, Markdown and JSON; page.py makes the HTML page of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.collect import MEDIANS, Report
from benchmarks.suite import METHODS

HEADERS = (
    *("method", "return [95 % CI]", "solved", "steps to bar", "CPU s to bar", "curve"),
    *("env steps/s", "updates/s", "wall s", "CPU s", "peak MiB"),
)
CLAIM_HEADERS = ("claim", "score of each seed", "verdict")


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row as text, in the order of HEADERS."""
    if not row["done"]:
        return (row["title"], "no result", *[""] * (len(HEADERS) - 2))
    return (
        row["title"],
        f"{short(row['iqm'])} [{short(row['ci'][0])}, {short(row['ci'][1])}]",
        f"{row['solved']}/{row['runs']}",
        *(f"{row[key]:,.0f}" if row[key] else "–" for key in ("steps_to_bar", "cpu_to_bar")),
        sparkline([point[1] for point in row["curve"]], row["floor"], row["bar"]),
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
    seeds = either(row["runs"] for task in report["tasks"] for row in task["rows"])
    episodes = either(record["episodes"] for record in report["jobs"] if "episodes" in record)
    scores = f"scores on {episodes} fresh episodes a run: {scored(record['method'] for record in report['jobs'])}"
    compared = f"{few(names, 'methods')} on {few(titles, 'tasks')}"
    return f"{compared}, {seeds} seed{'s' * (seeds != '1')} each; {scores}."


def scored(methods: Iterable[str]) -> str:
    """What their scores are; with the methods' titles, where they are not the same of all."""
    kinds: dict[str, dict[str, None]] = {}
    for method in methods:
        kinds.setdefault(METHODS[method].program.scored, {})[METHODS[method].title] = None
    if len(kinds) == 1:
        return next(iter(kinds))
    return "; ".join(f"{kind} ({listed(titles)})" for kind, titles in kinds.items())


def either(numbers: Iterable[int]) -> str:
    """The different ones: 3, or 2 or 3."""
    return " or ".join(map(str, sorted(set(numbers)))) or "no"


def few(names: Iterable[str], what: str) -> str:
    """a, b and c; or how many of `what`, where they are more than four: the table below names them."""
    known = list(names)
    return listed(known) if len(known) <= 4 else f"{len(known)} {what}"


def listed(names: Iterable[str]) -> str:
    """a, b and c."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def summary(report: Report) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headers and rows of the headline table: a method a row, a task a column.

    Where methods have tasks of their own, so that most cells would be empty, each of the others is a row.
    """
    names = [f"{task['title']} ({task['bar']:g})" for task in report["tasks"]]
    tables = [{row["title"]: row for row in task["rows"] if row["done"]} for task in report["tasks"]]
    titles = dict.fromkeys(how.title for how in METHODS.values() if any(how.title in table for table in tables))
    if 2 * sum(map(len, tables)) < len(titles) * len(tables):
        rows = [(title, name, brief(row)) for name, table in zip(names, tables) for title, row in table.items()]
        return ("method", "task (return that solves it)", "return, seeds that solved it"), rows
    headers = ("return, seeds that solved it", *names)
    return headers, [(title, *(brief(table.get(title)) for table in tables)) for title in titles]


def brief(row: dict[str, Any] | None) -> str:
    return f"{short(row['iqm'])}, {row['solved']} of {row['runs']}" if row else "–"


def failures(report: Report) -> list[str]:
    failed = [r for r in report["jobs"] if r["state"] == "failed"]
    return list(dict.fromkeys(f"{run_task(r)} {r['method']} seed {r['seed']}: {r['error']}" for r in failed))


def run_task(record: dict[str, Any]) -> str:
    """The task of the job, of which the record may be a part."""
    return str(record["task"]).split("/")[0]


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
        ("Methods", "; ".join(dict.fromkeys(METHODS[r["method"]].program.about for r in report["jobs"]))),
        ("Seeds", ", ".join(map(str, report["seeds"]))),
        ("Command", report["command"]),
        (
            "Return",
            "interquartile mean and 95 % bootstrap interval over seeds; solved: the seed's mean is at the bar",
        ),
        ("Steps, CPU s to bar", "at the first evaluation in training that was at the bar; median over seeds"),
        ("Costs", "of the training process with start-up, evaluations, saves; one thread; medians over seeds"),
    ]


def one_of_each(report: Report) -> Iterable[tuple[str, dict[str, str]]]:
    """The commands of the first seed of every row."""
    seen = set()
    for record in report["jobs"]:
        if (what := f"{run_task(record)} {record['method']}") not in seen:
            seen.add(what)
            yield what, record["commands"]


def print_terminal(report: Report) -> None:
    """Tables for the eye: all columns in a file and on a wide terminal, the first ones on a narrow one."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console = console if console.is_terminal else Console(width=160, highlight=False)
    left_out = {"steps to bar", "CPU s to bar", "curve", "updates/s", "peak MiB"} if console.width < 145 else set()
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
        lines += [f"{name}:", "```", *commands.values(), "```"]
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
        bar = ("–", "–") if row["bar"] is None else (f"{row['bar']:g}", "reached" if row["reached"] else "not reached")
        rows.append((what, *costs, ratio, *bar))
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
