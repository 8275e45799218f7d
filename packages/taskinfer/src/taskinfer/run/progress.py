"""progress.csv: the evaluations of a run as one table, for those who know the method by that file."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from rlcore.files import write_atomic


def write_progress(folder: Path) -> None:
    """Write anew, from metrics.jsonl, one line an evaluation with the train row before it.

    Columns are those of all rows together; a cell is empty where a row has no such value.
    """
    rows: list[dict[str, object]] = []
    last: dict[str, object] = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        kind = row.pop("kind")
        if kind == "train":
            last = row
        elif kind == "eval":
            rows.append({**last, **row})
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(folder / "progress.csv", lambda file: file.write(text.getvalue().encode()))
