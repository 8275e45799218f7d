"""Rows of numbers as .csv, and their means."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlcore.files import write_atomic

Row = dict[str, Any]


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Rows of equal keys, whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, lambda file: file.write(text.getvalue().encode()))


def means(rows: Sequence[Row], keys: Sequence[str]) -> dict[str, float]:
    """The mean over the rows of each key."""
    return {key: sum(float(row[key]) for row in rows) / len(rows) for key in keys}
