"""Records of runs as columns over steps, from metrics.jsonl or a csv file; runs of the same options as one group."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlcore.config import nearest
from rlcore.errors import DataError, UsageError
from rlcore.files import read_json
from rlcore.plots import read_metrics
from rlcore.provenance import near

Array = np.ndarray[Any, Any]
Curve = tuple[Array, Array]  # steps, values
STEPS = ("step", "env_steps", "epoch")  # columns that may hold the x axis, the best one first
USUAL = (
    ("test_return", "test_success", "test_family_acc_40"),  # toy
    ("goal_reached", "velocity_reached", "goal_error", "velocity_error"),  # low level
)
SEED_ONLY = frozenset({"name", "dir", "seed", "device", "threads", "quiet", "debug", "resume", "overwrite"})


@dataclass(frozen=True)
class Table:
    """All columns of one run or file."""

    path: Path
    options: Mapping[str, Any]  # dotted; empty for a csv file
    columns: Mapping[str, Curve]


def find(paths: Sequence[Path]) -> list[Path]:
    """Runs and csv files, in order: a folder that is no run stands for the runs in it."""
    found: list[Path] = []
    for path in paths:
        if (path.suffix == ".csv" and path.is_file()) or (path / "metrics.jsonl").is_file():
            found.append(path)
        elif inside := sorted(p.parent for p in path.glob("*/metrics.jsonl")):
            found += inside
        else:
            raise UsageError(f"{path} is no run, no folder of runs and no csv file{near(path)}")
    return list(dict.fromkeys(found))


def read(path: Path) -> Table:
    """One run, or a csv file with a column of steps. Evaluations win where train rows have the same column."""
    if path.suffix == ".csv":
        return Table(path, {}, _from_csv(path))
    rows = read_metrics(path)
    columns: dict[str, Curve] = {}
    for kind in ("train", "eval"):
        own = [row for row in rows if row["kind"] == kind]
        for key in dict.fromkeys(key for row in own for key in row if key not in ("kind", "step")):
            pairs = [(row["step"], row[key]) for row in own if isinstance(row.get(key), int | float)]
            if pairs:
                columns[key] = _curve(pairs)
    saved = read_json(path / "config.json") if (path / "config.json").exists() else {}
    return Table(path, flat(saved.get("config", {})), columns)


def _from_csv(path: Path) -> dict[str, Curve]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in (rows[0] if rows else {}) if name]
    axis = next((name for name in STEPS if name in names), None)
    if axis is None:
        raise DataError(f"{path}: none of its columns is {', '.join(STEPS)}: {', '.join(names)[:100] or 'it is empty'}")
    columns: dict[str, Curve] = {}
    for name in names:
        pairs = [(_number(row[axis]), _number(row[name])) for row in rows]
        pairs = [pair for pair in pairs if np.isfinite(pair).all()]
        if pairs and name != axis:
            columns[name] = _curve(pairs)
    return columns


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


def _curve(pairs: Sequence[tuple[float, float]]) -> Curve:
    steps, values = np.array(pairs, np.float64).T
    return steps, values


def flat(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"inference": {"lr": 1}}` as `{"inference.lr": 1}`."""
    found: dict[str, Any] = {}
    for key, value in options.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return found


def groups(tables: Sequence[Table]) -> dict[str, list[Table]]:
    """Runs whose options are the same but for the seed, under what sets them apart; each csv file by itself."""
    same: dict[str, list[Table]] = {}
    for table in tables:
        own = {key: value for key, value in table.options.items() if key not in SEED_ONLY}
        same.setdefault(repr(sorted(own.items())) if table.options else str(table.path), []).append(table)
    first = [members[0] for members in same.values()]
    differ = [
        key
        for key in dict.fromkeys(key for table in first for key in table.options)
        if key not in SEED_ONLY and len({repr(table.options.get(key)) for table in first if table.options}) > 1
    ]
    named: dict[str, list[Table]] = {}
    for members in same.values():
        table = members[0]
        said = (
            ", ".join(f"{key.rpartition('.')[2]} {table.options.get(key)}" for key in differ) if table.options else ""
        )
        name = said or table.path.stem if len(members) == 1 or said else table.path.parent.name
        named[name if name not in named else str(table.path)] = members
    return named


def choose(tables: Sequence[Table], asked: str) -> list[str]:
    """The columns asked for, or the usual ones that there are. UsageError with the nearest name for an unknown one."""
    known = list(dict.fromkeys(name for table in tables for name in table.columns))
    names = [name.strip() for name in asked.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise UsageError(f"columns: no run has {name!r}{nearest(name, known)} (--list prints all {len(known)})")
    usual = next((found for stage in USUAL if (found := [name for name in stage if name in known])), known[:4])
    if not (names or usual):
        raise DataError(f"{tables[0].path} has no numbers to draw yet")
    return names or usual
