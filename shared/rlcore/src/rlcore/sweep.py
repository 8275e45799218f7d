"""Sweeps: one small file -> one job for each point of a grid, run on this machine, resumed by the same command.

    name = "cartpole-eta"            # jobs become cartpole-eta-seed42-eta0.05, ...
    command = "mpn train"            # optional
    [fixed]                          # options of every job
    total-steps = 100_000
    [grid]                           # one job for each combination
    seed = [42, 43]
    eta = [0.05, 0.1]
    [resources]                      # kept for cluster engines

Every job is the ordinary command line in a process of its own, so that it can be repeated by hand. Loads no torch.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from rlcore.config import RunConfig, load_file, nearest
from rlcore.errors import DataError, Interrupted, Preempted, UsageError
from rlcore.files import read_json, write_atomic, write_json

MAX_JOBS = 10_000
KEYS = ("name", "command", "fixed", "grid", "resources", "htcondor", "slurm")
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """Which sweep, and where its parts lie."""

    file: tyro.conf.Positional[Path]  # The sweep: .toml, .yaml or .json.
    sweeps: Path = Path("sweeps")  # Folder of the sweeps' job lists, logs and tables.
    dir: Path = Path("experiments")  # Folder of the runs, unless [fixed] has a dir.


@dataclass(frozen=True, kw_only=True)
class SweepConfig(CollectConfig):
    """How to run a sweep."""

    workers: int = 1  # Jobs at a time, each with one CPU thread.
    retries: int = 3  # How often a preempted job (exit code 85) is started again.

    def __post_init__(self) -> None:
        if not 1 <= self.workers <= 1024 or self.retries < 0:
            raise UsageError(f"workers must be in 1 .. 1024 and retries >= 0, got {self.workers} and {self.retries}")


@dataclass(frozen=True)
class Job:
    """One run of a sweep."""

    id: int
    name: str
    run: str  # its directory
    argv: list[str]
    grid: dict[str, Any]  # its point, by dotted key

    @property
    def state(self) -> str:
        """What its status.json says; "new" without one."""
        path = Path(self.run, "status.json")
        status = read_json(path) if path.exists() else {"state": "new"}
        return str(status.get("state")) if isinstance(status, dict) else "unknown"


def load_jobs(cfg: CollectConfig) -> tuple[str, list[Job]]:
    """The sweep's name and its jobs. UsageError for what a shell or a cluster's job file could not carry."""
    data, where = load_file(cfg.file), str(cfg.file)
    for key in data:
        if key not in KEYS:
            raise UsageError(f"{where}: unknown key {key!r}{nearest(key, KEYS)}")
    name, command = data.get("name", cfg.file.stem), data.get("command", f"{_this_program()} train")
    if not isinstance(name, str) or not isinstance(command, str) or not command.split():
        raise UsageError(f"{where}: name and command must be text")
    RunConfig(name=name)  # checks that it can be a folder
    fixed, grid = (dict(_flatten(data.get(part, {}), f"{where}: [{part}]")) for part in ("fixed", "grid"))
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise UsageError(f"{where}: [grid] {key}: expected a list of values, such as [1, 2]")
    if forbidden := {"name"} & {*fixed, *grid} | {*fixed} & {*grid} | {"dir"} & {*grid}:
        raise UsageError(
            f"{where}: {min(forbidden)}: names are derived, dir is one for all, and no key may stand twice"
        )
    if math.prod(map(len, grid.values())) > MAX_JOBS:
        raise UsageError(f"{where}: [grid] makes more than {MAX_JOBS} jobs")
    root = fixed.setdefault("dir", str(cfg.dir))
    jobs = []
    for i, values in enumerate(itertools.product(*grid.values())):
        point = dict(zip(grid, values))
        parts = [f"{key.rpartition('.')[2]}{_text(value, where)}" for key, value in point.items()]
        job = RunConfig(name=re.sub(r"[^\w.+@-]+", "-", "-".join([name, *parts]), flags=re.ASCII)).name or ""
        options = [
            f"--{key}={_text(value, f'{where}: {key}')}" for key, value in {**fixed, **point, "name": job}.items()
        ]
        jobs.append(Job(i, job, str(Path(str(root), job)), [*shlex.split(command), *options], point))
    name_, count = Counter(job.name for job in jobs).most_common(1)[0]
    if count > 1:
        raise UsageError(f"{where}: {count} jobs would be named {name_}: give [grid] values that differ")
    return name, jobs


def make(cfg: CollectConfig) -> tuple[Path, list[Job]]:
    """Write jobs.json, train_args.txt and logs/ of a sweep; returns its folder and jobs."""
    name, jobs = load_jobs(cfg)
    folder = cfg.sweeps / name
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    if (folder / "jobs.json").exists():
        earlier = {job["name"]: job["argv"] for job in read_json(folder / "jobs.json")}
        for job in jobs:
            if earlier.get(job.name, job.argv) != job.argv and job.state != "new":
                raise UsageError(f"{cfg.file}: {job.run} was run with other options: give the sweep another name")
    write_json(folder / "jobs.json", [asdict(job) for job in jobs])
    lines = "".join(shlex.join(job.argv[1:]) + "\n" for job in jobs)
    write_atomic(folder / "train_args.txt", lambda file: file.write(lines.encode()))
    return folder, jobs


def run_sweep(cfg: SweepConfig) -> int:
    """Run what is not finished yet; exit code 1 when a job failed. The same command continues a stopped sweep."""
    folder, jobs = make(cfg)
    codes = run(jobs, folder, cfg.workers, cfg.retries)
    width = max(len(job.name) for job in jobs)
    print(f"\n{'job':{width}}  state")
    for job in jobs:
        code, log = codes[job.id], folder / "logs" / f"{job.id:04d}.err"
        print(f"{job.name:{width}}  {f'failed with exit code {code}: see {log}' if code else 'finished'}")
    return int(any(codes.values()))


def run(
    jobs: Sequence[Job], folder: Path, workers: int, retries: int, engine: Literal["local"] = "local"
) -> dict[int, int]:
    """Run the unfinished jobs; returns every job's exit code by id. A further engine is one more function here."""
    return {"local": _run_local}[engine](jobs, folder, workers, retries)


def _run_local(jobs: Sequence[Job], folder: Path, workers: int, retries: int) -> dict[int, int]:
    codes = {job.id: 0 for job in jobs if job.state == "finished"}
    waiting, tries = deque(job for job in jobs if job.id not in codes), Counter[int]()
    children: dict[int, tuple[Job, subprocess.Popen[bytes]]] = {}
    heard = 0
    with _stops() as stops:
        try:
            while waiting or children:
                while waiting and len(children) < workers and not stops:
                    job = waiting.popleft()
                    children[job.id] = job, _start(job, folder / "logs")
                for job, child in list(children.values()):
                    if (code := child.poll()) is None:
                        continue
                    del children[job.id]
                    if code == Preempted.exit_code and tries[job.id] < retries:
                        tries[job.id] += 1
                        waiting.append(job)
                    else:
                        codes[job.id] = code
                        end = f"exit code {code}" if code else "finished"
                        print(f"[{len(codes)}/{len(jobs)}] {job.name}: {end}", flush=True)
                if len(stops) > heard:  # the first signal asks the children to save and leave, the second kills them
                    heard = len(stops)
                    for _, child in children.values():
                        child.send_signal(signal.SIGTERM if heard == 1 else signal.SIGKILL)
                if stops and not children:
                    done = sum(code == 0 for code in codes.values())
                    stopped = Interrupted if stops[0] == signal.SIGINT else Preempted
                    raise stopped(f"{done} of {len(jobs)} jobs finished; the same command continues")
                time.sleep(0.05)
        finally:
            for _, child in children.values():  # there are none, unless something above broke
                child.terminate()
                child.wait()
    return codes


def _start(job: Job, logs: Path) -> subprocess.Popen[bytes]:
    """Start `job` in a session of its own: Ctrl-C reaches it through us alone, once, not from the terminal as well."""
    beside = Path(sys.executable).with_name(job.argv[0])
    found = str(beside) if beside.exists() else shutil.which(job.argv[0])
    program = [found] if found else [sys.executable, "-m", job.argv[0]]  # packages that are on PYTHONPATH only
    with open(logs / f"{job.id:04d}.out", "ab") as out, open(logs / f"{job.id:04d}.err", "ab") as err:
        return subprocess.Popen(
            [*program, *job.argv[1:]],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env={**os.environ, **THREADS},
            start_new_session=True,
        )


@contextlib.contextmanager
def _stops() -> Iterator[list[int]]:
    """The SIGINT and SIGTERM that have come since."""
    stops: list[int] = []
    before = {n: signal.signal(n, lambda number, _: stops.append(number)) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stops
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def collect(cfg: CollectConfig) -> None:
    """Write sweeps/NAME/sweep.csv: the grid, the state, and the last and best evaluation of each job."""
    name, jobs = load_jobs(cfg)
    table = io.StringIO()
    columns = ["name", *jobs[0].grid, "state", "step", "last_return", "best_return", "best_step"]
    writer = csv.DictWriter(table, columns, lineterminator="\n")
    writer.writeheader()
    for job in jobs:
        rows = _evaluations(Path(job.run, "metrics.jsonl"))
        row: dict[str, Any] = {**{k: _text(v, k) for k, v in job.grid.items()}, "name": job.name, "state": job.state}
        if rows:
            best = max(rows, key=lambda row: row["return_mean"])
            row |= {"step": rows[-1]["step"], "last_return": rows[-1]["return_mean"]}
            row |= {"best_return": best["return_mean"], "best_step": best["step"]}
        writer.writerow(row)
    path = cfg.sweeps / name / "sweep.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, lambda file: file.write(table.getvalue().encode()))
    print(path)


def _evaluations(path: Path) -> list[dict[str, Any]]:
    """The eval rows of a metrics.jsonl. A last line without its end is still being written, and left out."""
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1] if path.exists() else [], 1):
        try:
            row = json.loads(line)
            if row["kind"] == "eval" and row["return_mean"] is not None:
                rows.append(row)
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}: line {number} is no row of a run: {error!r}") from None
    return rows


def _flatten(table: Any, where: str) -> Iterator[tuple[str, Any]]:
    """`{"sac": {"lr": 1}}` as `("sac.lr", 1)`; dashes become underscores."""
    if not isinstance(table, dict):
        raise UsageError(f"{where}: expected keys with values, got {table!r}")
    for key, value in table.items():
        for rest, item in _flatten(value, f"{where} {key}") if isinstance(value, dict) else [("", value)]:
            yield key.replace("-", "_") + (rest and f".{rest}"), item


def _text(value: Any, where: str) -> str:
    """`value` as it stands on a command line, or in a cluster's job file, where blanks and quotes would break it."""
    if isinstance(value, list):
        return ",".join(_text(item, where) for item in value)
    text = str(value).lower() if isinstance(value, bool) or value is None else str(value)
    if not text.isprintable() or re.search(r"[\s'\"\\]", text) or text == "":
        raise UsageError(f"{where}: {text!r}: values may hold no blanks, quotes or backslashes")
    return text


def _this_program() -> str:
    path = Path(sys.argv[0])
    return path.parent.name if path.name == "__main__.py" else path.name
