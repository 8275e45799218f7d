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
import os
import re
import shlex
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any

import tyro

from rlcore.config import RunConfig, from_dict, load_file
from rlcore.errors import Interrupted, Preempted, UsageError
from rlcore.files import locked, read_json, write_atomic, write_json

THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """Which sweep, and where its parts lie."""

    file: tyro.conf.Positional[Path]  # The sweep: .toml, .yaml or .json.
    sweeps: Path = Path("sweeps")  # Folder of the sweeps' job lists, logs and tables.
    dir: Path = Path("experiments")  # Folder of the runs, unless the file has a dir.
    debug: bool = False  # Show full tracebacks.


@dataclass(frozen=True, kw_only=True)
class SweepConfig(CollectConfig):
    """How to run a sweep."""

    workers: int = 1  # Jobs at a time, each with one CPU thread.
    retries: int = 3  # How often a preempted job (exit code 85) is started again.

    def __post_init__(self) -> None:
        if not 1 <= self.workers <= 1024 or self.retries < 0:
            raise UsageError(f"workers must be in 1 .. 1024 and retries >= 0, got {self.workers} and {self.retries}")


@dataclass(frozen=True, kw_only=True)
class SweepFile:
    """What the file may hold."""

    name: str | None = None  # The file's own name if left out.
    command: str | None = None
    fixed: dict[str, Any] = field(default_factory=dict)
    grid: dict[str, Any] = field(default_factory=dict)
    resources: dict[str, Any] = field(default_factory=dict)


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
        return str(read_json(path)["state"]) if path.exists() else "new"


def load_jobs(cfg: CollectConfig) -> tuple[str, list[Job]]:
    """The sweep's name and its jobs. UsageError for what a shell or a cluster's job file could not carry."""
    where, program = str(cfg.file), Path(sys.argv[0])
    file = from_dict(SweepFile, load_file(cfg.file), where)
    name = RunConfig(name=file.name or cfg.file.stem).name or ""  # checks that it can be a folder
    command = file.command or f"{program.parent.name if program.name == '__main__.py' else program.name} train"
    fixed, grid = dict(_flatten(file.fixed)), dict(_flatten(file.grid))
    if "overwrite" in fixed | grid:
        raise UsageError(f"{where}: overwrite: a job that is run again would begin again: delete its folder instead")
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise UsageError(f"{where}: [grid] {key}: expected a list of values, such as [1, 2]")
    jobs: dict[str, Job] = {}
    for values in itertools.product(*grid.values()):
        point = dict(zip(grid, values))
        parts = [f"{key.rpartition('.')[2]}{_text(value, where)}" for key, value in point.items()]
        job = "-".join([name, *(re.sub(r"[^\w.+@-]+", "-", part, flags=re.ASCII) for part in parts)])
        RunConfig(name=job)
        if job in jobs:
            raise UsageError(f"{where}: two jobs would be named {job}: give [grid] values that differ")
        options = {"dir": str(cfg.dir), **fixed, **point, "name": job}
        argv = [f"--{key}={_text(value, f'{where}: {key}')}" for key, value in options.items()]
        run = str(Path(str(options["dir"]), job))
        jobs[job] = Job(len(jobs), job, run, [*shlex.split(command), *argv], point)
    return name, list(jobs.values())


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
    with locked(folder):
        codes = run_local(jobs, folder, cfg.workers, cfg.retries)
    width = max(len(job.name) for job in jobs)
    for job in jobs:
        code, log = codes[job.id], folder / "logs" / f"{job.id:04d}.err"
        print(f"{job.name:{width}}  {f'failed with exit code {code}: see {log}' if code else 'finished'}")
    return int(any(codes.values()))


def run_local(jobs: Sequence[Job], folder: Path, workers: int, retries: int) -> dict[int, int]:
    """Run the unfinished jobs; returns every job's exit code by id. Another engine is one more such function."""
    codes = {job.id: 0 for job in jobs if job.state == "finished"}
    waiting, tries, heard = [job for job in jobs if job.id not in codes], Counter[int](), 0
    running: list[tuple[Job, Popen[bytes]]] = []
    with _stops(running) as stops:
        while running or (waiting and not stops):
            while waiting and len(running) < workers and not stops:
                job = waiting.pop(0)
                running.append((job, _start(job, folder / "logs")))
            for job, child in list(running):
                if (code := child.poll()) is None:
                    continue
                running.remove((job, child))
                tries[job.id] += 1
                if code == Preempted.exit_code and tries[job.id] <= retries:
                    waiting.append(job)
                else:
                    codes[job.id] = code
                    print(f"[{len(codes)}/{len(jobs)}] {job.name}: exit code {code}", flush=True)
            if len(stops) > heard:  # the first signal asks the children to save and leave, the second kills them
                heard = len(stops)
                for _, child in running:
                    child.send_signal(signal.SIGTERM if heard == 1 else signal.SIGKILL)
            time.sleep(0.05)
    if stops:
        done = sum(code == 0 for code in codes.values())
        stopped = Interrupted if stops[0] == signal.SIGINT else Preempted
        raise stopped(f"{done} of {len(jobs)} jobs finished; the same command continues")
    return codes


def _start(job: Job, logs: Path) -> Popen[bytes]:
    """Start `job` in a session of its own: Ctrl-C reaches it through us alone, once, not from the terminal as well."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    env = {**os.environ, **THREADS, "PATH": path}
    with open(logs / f"{job.id:04d}.out", "ab") as out, open(logs / f"{job.id:04d}.err", "ab") as err:
        return Popen(job.argv, stdin=DEVNULL, stdout=out, stderr=err, env=env, start_new_session=True)


@contextlib.contextmanager
def _stops(running: Sequence[tuple[Job, Popen[bytes]]]) -> Iterator[list[int]]:
    """The SIGINT and SIGTERM that have come since. What still runs when something broke is told to stop, too."""
    stops: list[int] = []
    before = {n: signal.signal(n, lambda number, _: stops.append(number)) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stops
    finally:
        for _, child in running:
            child.terminate()
        for number, handler in before.items():
            signal.signal(number, handler)


def collect(cfg: CollectConfig) -> None:
    """Write sweeps/NAME/sweep.csv: the grid, the state, and the last and best evaluation of each job."""
    from rlcore.plots import read_metrics, series

    name, jobs = load_jobs(cfg)
    columns = ["name", *jobs[0].grid, "state", "step", "last_return", "best_return", "best_step"]
    path = cfg.sweeps / name / "sweep.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for job in jobs:
        row = {key: _text(value, key) for key, value in job.grid.items()} | {"name": job.name, "state": job.state}
        rows = read_metrics(Path(job.run)) if Path(job.run, "metrics.jsonl").exists() else []
        steps, returns = series(rows, "return_mean", "eval")
        if steps.size:
            row |= {"step": f"{steps[-1]:.0f}", "last_return": str(returns[-1])}
            row |= {"best_step": f"{steps[returns.argmax()]:.0f}", "best_return": str(returns.max())}
        writer.writerow(row)
    write_atomic(path, lambda file: file.write(text.getvalue().encode()))
    print(path)


def _flatten(table: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """`{"sac": {"lr": 1}}` as `("sac.lr", 1)`; dashes become underscores."""
    for key, value in table.items():
        for rest, item in _flatten(value) if isinstance(value, dict) else [("", value)]:
            yield key.replace("-", "_") + (rest and f".{rest}"), item


def _text(value: Any, where: str) -> str:
    """`value` as it stands on a command line, or in a cluster's job file, where blanks and quotes would break it."""
    if isinstance(value, list):
        return ",".join(_text(item, where) for item in value)
    text = str(value).lower() if isinstance(value, bool) or value is None else str(value)
    if not text.isprintable() or re.search(r"[\s'\"\\]", text) or text == "":
        raise UsageError(f"{where}: {text!r}: values may hold no blanks, quotes or backslashes")
    return text
