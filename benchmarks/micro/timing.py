"""Ours against a peer, in turns: A B A B ..., so that a machine that grows slower or faster slows or speeds both.

A side is a function of the repetition's number that does its work and returns what a unit of it cost in CPU seconds.
The ratio peer / ours is taken within each repetition; its median and quartiles are the result. Above 1, ours is faster.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from rlcore.files import write_atomic
from rlcore.provenance import cpu_model, version_of

RESULTS = Path(__file__).resolve().parent.parent / "results"
Side = Callable[[int], float]
Row = dict[str, Any]


def load_plain(method: str, name: str) -> Any:
    """The plain implementation packages/`method`/tests/`name`.py, which our tests compare with: no package holds it."""
    spec = importlib.util.spec_from_file_location(name, RESULTS.parents[1] / f"packages/{method}/tests/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def per_call(function: Callable[[], Any], seconds: float = 0.5) -> Side:
    """A side whose unit is one call of `function`; it calls it about `seconds` long, after a tenth of that to warm up.

    CPU time of this process, all threads: waiting for others on a busy machine does not count.
    """

    def side(_repetition: int) -> float:
        calls, warm = 1, seconds / 10
        while (spent := timed(calls)) < warm:
            calls *= 2
        calls = max(1, round(calls * seconds / spent))
        return timed(calls) / calls

    def timed(calls: int) -> float:
        begin = time.process_time()
        for _ in range(calls):
            function()
        return time.process_time() - begin

    return side


def compare(
    name: str, ours: tuple[str, Side], peer: tuple[str, Side], *, bar: float | None, unit: str, repetitions: int = 7
) -> Row:
    """Measure both sides, each (label, side), in turns.

    `unit` says what was counted; `bar` is the ratio to reach, None where none is promised.
    """
    assert repetitions >= 5, "the spread of fewer ratios says nothing"
    costs = np.array([[side(k) for _, side in (ours, peer)] for k in range(repetitions)])
    ratios = costs[:, 1] / costs[:, 0]
    low, median, high = np.percentile(ratios, (25, 50, 75))
    return {
        "name": name, "unit": unit, "ours": ours[0], "peer": peer[0],
        "ours_us": round(float(np.median(costs[:, 0])) * 1e6, 2),
        "peer_us": round(float(np.median(costs[:, 1])) * 1e6, 2),
        "ratio": round(float(median), 2), "quartiles": [round(float(low), 2), round(float(high), 2)],
        "ratios": [round(float(ratio), 2) for ratio in ratios],
        "bar": bar, "reached": None if bar is None else bool(median >= bar),
    }  # fmt: skip


def run(
    name: str, title: str, measure: Callable[[int], Iterable[Row]], packages: Sequence[str],
    argv: Sequence[str] | None = None,
) -> int:  # fmt: skip
    """The command line of one micro-benchmark: measure, print a table, write a record. 1 where a bar is not reached."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.micro.{name}", description=title)
    parser.add_argument("--json", type=Path, default=RESULTS / f"micro_{name}.json", help="record to write")
    parser.add_argument("--repetitions", type=int, default=7, help="turns of each side, at least 5")
    args = parser.parse_args(sys.argv[1:] if argv is None else argv)
    print(title, flush=True)
    rows = list(shown(measure(args.repetitions)))
    record = {
        "title": title,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "protocol": "in turns, CPU time, 1 thread; ratio = peer / ours in each turn; median and quartiles",
        "machine": {"cpu": cpu_model(), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2)},
        "versions": {"python": platform.python_version(), **{name: version_of(name) for name in packages}},
    }
    lines = [f" {json.dumps(key)}: {json.dumps(value)},\n" for key, value in record.items()]
    text = "{\n" + "".join(lines) + ' "rows": [\n  ' + ",\n  ".join(map(json.dumps, rows)) + "\n ]\n}\n"
    args.json.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(args.json, lambda file: file.write(text.encode()))
    return 0 if all(row["reached"] is not False for row in rows) else 1


def shown(rows: Iterable[Row]) -> Iterator[Row]:
    """The same rows, each printed as soon as it is there."""
    for row in rows:
        low, high = row["quartiles"]
        verdict = {None: "no bar", True: f"bar {row['bar']}x reached", False: f"bar {row['bar']}x NOT reached"}
        print(f"  {row['name']} ({row['unit']})")
        for side in ("ours", "peer"):
            print(f"    {row[side]:<52} {row[f'{side}_us']:>14,.1f} us")
        ratio = f"{row['ratio']:.2f}x [{low:.2f}, {high:.2f}] over {len(row['ratios'])} turns"
        print(f"    {ratio}; {verdict[row['reached']]}", flush=True)
        yield row
