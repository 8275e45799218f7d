"""The README's results, from the records committed in benchmarks/results/."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.kinds import ROOT
from benchmarks.report import CLAIM_HEADERS, Report, claim_cells, facts, headline, markdown_table, summary
from benchmarks.suite import TASKS, TIERS
from rlcore.files import read_json, write_atomic

PAGE = ROOT / "README.md"
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
SHOWN = ("Machine", "Commit", "Date")  # versions are in the record


def block(results: Path) -> str:
    """What stands between the markers: the tables of each record there is, or that there is none."""
    records = [read_json(path) for tier in TIERS if (path := results / f"{tier}.json").exists()]
    if not records:
        return "No record is committed yet. `make bench` makes one on your machine."
    return "\n".join(line for record in records for line in section(record)).rstrip()


def section(record: Report) -> list[str]:
    """One record: what was compared, the scores, the claims, and how to repeat it."""
    small = "; ".join(f"{name.lower()}: {value}" for name, value in facts(record) if name in SHOWN)
    path = f"benchmarks/results/{record['tier']}.json"
    record = {**record, "tasks": [task for task in record["tasks"] if not TASKS[task["task"]].detail]}
    return [
        f"**{record['tier'].capitalize()} tier: {record['about']}.** {headline(record)}",
        "",
        *markdown_table(*summary(record)),
        *(markdown_table(CLAIM_HEADERS, map(claim_cells, record["claims"])) if record["claims"] else []),
        f"Made by `{record['command']}`; record: [{path}]({path}); {small}.",
        "",
    ]


def page(results: Path) -> str:
    """The README as it should be."""
    made = f"{BEGIN}\n{block(results)}\n{END}"
    return re.sub(f"{BEGIN}.*{END}", lambda _: made, PAGE.read_text(), flags=re.DOTALL)


def write(results: Path) -> None:
    """Bring the README's results up to date."""
    text = page(results).encode()
    write_atomic(PAGE, lambda file: file.write(text))
