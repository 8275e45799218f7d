"""Starts command lines as subprocesses, measures each one, survives being stopped. Knows no method and no report.

A results folder holds `runs/<job>/` and `runs/<job>.*` (written by the command lines themselves), `logs/<job>.log` and
`costs/<job>.json`: what each command cost, written when it ends. A job with a finished run, a score and its costs is
never run again, unless its commands or the runs it is compared with have changed.

All in one thread, because a child's resources can only be read by the one `wait4` that reaps it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.kinds import ROOT, Job
from rlcore.errors import UsageError
from rlcore.files import read_json, write_json

if TYPE_CHECKING:
    from benchmarks.progress import Progress

FOLDERS = ("runs", "logs", "costs")
POLL_S, GRACE_S = 0.05, 60.0  # seconds between looks at the children; before a child that will not stop is killed
PREEMPTED, ATTEMPTS = 85, 10  # the exit that says "saved, run me again", and how often in a row that is done
STOPPED = {PREEMPTED, 130, -signal.SIGTERM, -signal.SIGKILL}  # exits of a child that somebody stopped
Costs = dict[str, Any]


def costs_of(results: Path, job: Job) -> Costs:
    """What the job has cost so far; empty for a new job and for one whose commands, or runs it reads, changed since."""
    costs = read_costs(results, job.name)
    same = costs.get("commands") == commands_of(job) and costs.get("after", {}) == costs_before(results, job)
    return costs if same else {}


def read_costs(results: Path, name: str) -> Costs:
    """The costs file of a job by its name, whatever commands it is of; empty where there is none."""
    path = results / "costs" / f"{name}.json"
    costs: Costs = read_json(path) if path.exists() else {}
    return costs


def costs_before(results: Path, job: Job) -> dict[str, float | None]:
    """CPU seconds of the training runs that `job` reads."""
    return {name: read_costs(results, name).get("train", {}).get("cpu_s") for name in job.after}


def phases_of(job: Job) -> dict[str, tuple[str, ...]]:
    """The commands of a job by what they are called in its costs, in order."""
    first = {f"before_{i}": argv for i, argv in enumerate(job.before, 1)}
    return {**first, "train": job.train, "evaluate": job.evaluate}


def next_phase(results: Path, job: Job) -> str:
    """The first that has not ended well; the last where all have."""
    return next((phase for phase in phases_of(job) if not is_done(results, job, phase)), "evaluate")


def commands_of(job: Job) -> dict[str, str]:
    return {phase: shlex.join(argv) for phase, argv in phases_of(job).items()}


def is_done(results: Path, job: Job, phase: str) -> bool:
    """Has this phase ended well, and is what it wrote there?"""
    if costs_of(results, job).get(phase, {}).get("exit") != 0:
        return False
    run = results / "runs" / job.name
    if phase == "evaluate":
        return is_done(results, job, "train") and (run / "eval.json").exists()
    if phase != "train":
        return True
    return status_of(results, job).get("state") == "finished"


def status_of(results: Path, job: Job) -> dict[str, Any]:
    """The run's own status.json; empty when there is none yet."""
    try:
        status: dict[str, Any] = json.loads((results / "runs" / job.name / "status.json").read_text())
        return status
    except (OSError, ValueError):
        return {}


def scores_of(results: Path, job: Job) -> dict[str, list[float]]:
    """The returns in the run's eval.json, by task where the program names its tasks, else under the empty name."""
    made = read_json(results / "runs" / job.name / "eval.json")
    return {name: row["returns"] for name, row in made["tasks"].items()} if "tasks" in made else {"": made["returns"]}


def prepare(results: Path, job: Job) -> None:
    """Clear away what this job cannot continue: another command's run, or a half one of a program without resume."""
    run, costs = results / "runs" / job.name, costs_of(results, job)
    begun = run.exists() or bool(costs.keys() & phases_of(job).keys())
    if not (costs and begun and (job.resumes or is_done(results, job, "train"))):
        for path in (run, *run.parent.glob(f"{job.name}.*")):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        (results / "logs" / f"{job.name}.log").unlink(missing_ok=True)
        new = {"commands": commands_of(job), "after": costs_before(results, job), "commit": git_commit()}
        write_json(results / "costs" / f"{job.name}.json", new)


def git_commit() -> str:
    """Short hash of the checkout, with `+` when files differ from it; empty outside a checkout."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=10", "--dirty=+", "--exclude=*"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()


@dataclass
class Child:
    """A running command."""

    job: Job
    phase: str
    process: subprocess.Popen[bytes]
    started: float


def start(results: Path, job: Job, phase: str, lock: int) -> Child:
    """Start one command, its output appended to the job's log."""
    argv = phases_of(job)[phase]
    program = [argv[0]] if "/" in argv[0] else [sys.executable, "-m", argv[0]]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TERM": "dumb"}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)  # with it each start would compile torch's sources again: 4 s
    with open(results / "logs" / f"{job.name}.log", "ab") as log:
        log.write(f"$ {shlex.join(argv)}\n".encode())
        log.flush()
        process = subprocess.Popen(
            [*program, *argv[1:]],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches the bench only, which then stops its children once
            pass_fds=(lock,),
            preexec_fn=die_with_parent(),
        )
    return Child(job, phase, process, time.monotonic())


def die_with_parent() -> Any:
    """On Linux: a function for the child that has it stopped (and so saved) even when the bench is killed with -9."""
    if not sys.platform.startswith("linux"):
        return None
    libc, pr_set_pdeathsig = ctypes.CDLL(None), 1
    return lambda: libc.prctl(pr_set_pdeathsig, signal.SIGTERM)


def reap(results: Path, child: Child) -> int | None:
    """None while the child runs. Once it has ended: add up its costs, file them, return its exit code.

    Peak memory is the largest of any process below the child. Linux starts counting at the bench's own size, some
    tens of MiB, which every child with torch in it exceeds.
    """
    pid, wait_status, usage = os.wait4(child.process.pid, os.WNOHANG)
    if pid == 0:
        return None
    code = child.process.returncode = os.waitstatus_to_exitcode(wait_status)
    path = results / "costs" / f"{child.job.name}.json"
    costs = read_json(path)
    old = costs.get(child.phase, {})
    unit = 1 if sys.platform == "darwin" else 1024
    spent = {"attempts": 1, "wall_s": time.monotonic() - child.started, "cpu_s": usage.ru_utime + usage.ru_stime}
    costs[child.phase] = {
        "exit": code,
        **{key: round(old.get(key, 0) + value, 2) for key, value in spent.items()},
        "peak_mib": round(max(old.get("peak_mib", 0), usage.ru_maxrss * unit / 2**20), 1),
    }
    costs["error"] = "" if code == 0 or code in STOPPED else last_line(results / "logs" / f"{child.job.name}.log")
    write_json(path, costs)
    if code == 0 and not is_done(results, child.job, child.phase):
        code = costs[child.phase]["exit"] = 1
        costs["error"] = "it exited 0 but did not write what it should: see its log"
        write_json(path, costs)
    return code


def last_line(log: Path) -> str:
    """The last line a program wrote, without terminal codes: what went wrong, when it failed."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", log.read_text(errors="replace"))
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("$ ")]
    return lines[-1][:300] if lines else "it printed nothing"


class Stop:
    """Counts SIGINT and SIGTERM while its `with` block lasts, and passes them on to the children as they deserve."""

    def __init__(self) -> None:
        self.count, self.since = 0, 0.0
        self._told: set[int] = set()

    def __enter__(self) -> Stop:
        self._old = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _ask(self, *_: object) -> None:
        self.count, self.since = self.count + 1, self.since or time.monotonic()

    def pass_on(self, children: list[Child]) -> None:
        """After the first signal SIGTERM to each child, once; after a second one, or a minute, SIGKILL to its group."""
        kill = self.count > 1 or (self.count and time.monotonic() - self.since > GRACE_S)
        for child in children:
            if kill:
                os.killpg(child.process.pid, signal.SIGKILL)
            elif self.count and child.process.pid not in self._told:
                self._told.add(child.process.pid)
                os.kill(child.process.pid, signal.SIGTERM)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def locked(results: Path, patience: float = 30.0) -> Iterator[int]:
    """Hold the results folder. Children inherit the lock, so a new bench also waits for those of a killed one."""
    handle = os.open(results / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UsageError(f"{results} is in use by another bench: wait for it, or take --name") from None
                time.sleep(0.2)
        yield handle
    finally:
        os.close(handle)


def next_ready(waiting: list[Job], children: list[Child]) -> Job | None:
    """The first job that reads the costs of none that is still to come, or still at work."""
    ahead = {job.name for job in waiting} | {child.job.name for child in children}
    return next((job for job in waiting if not ahead & set(job.after)), None)


def run(jobs: list[Job], results: Path, workers: int, show: Progress) -> int:
    """Run all jobs that are not complete, `workers` at a time. A failing job does not sink the others.

    Returns 0, 1 when a job is not complete, 130 when stopped by a signal: the same call then continues.
    """
    for folder in FOLDERS:
        (results / folder).mkdir(parents=True, exist_ok=True)
    children: list[Child] = []
    with locked(results) as lock, Stop() as stop, show:
        waiting = [job for job in jobs if not is_done(results, job, "evaluate")]
        while children or (waiting and not stop.count):
            while len(children) < workers and not stop.count and (job := next_ready(waiting, children)):
                waiting.remove(job)
                prepare(results, job)
                children.append(start(results, job, next_phase(results, job), lock))
            for child in list(children):
                code = reap(results, child)
                if code is None:
                    continue
                children.remove(child)
                show.ended(child, code)
                if code == 0 and child.phase != "evaluate" and not stop.count:
                    children.append(start(results, child.job, next_phase(results, child.job), lock))
                elif code == PREEMPTED and costs_of(results, child.job)[child.phase]["attempts"] < ATTEMPTS:
                    waiting.append(child.job)
            stop.pass_on(children)
            show.update(children)
            time.sleep(POLL_S)
    return 130 if stop.count else int(not all(is_done(results, job, "evaluate") for job in jobs))
