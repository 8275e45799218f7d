"""A stand-in for the command lines that benchmarks start, which writes the same files, and ways to run it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import run, suite
from benchmarks.kinds import Job
from benchmarks.progress import Progress

ROOT = Path(__file__).parents[1]
FAKE = """
import fcntl, json, os, signal, sys, time
from pathlib import Path
verb, name, folder, steps, pace, final, *parts = sys.argv[1:]
run = Path(folder) / name
if verb == "before":
    with open(run.with_name(f"{name}.made"), "a") as file:
        file.write(final + "\\n")
    sys.exit(int(steps))
run.mkdir(parents=True, exist_ok=True)
if verb == "eval":
    score = {"return_mean": float(final), "returns": [float(final)] * 2}
    tasks = {part: {"returns": [float(final) + i]} for i, part in enumerate(parts)}
    (run / "eval.json").write_text(json.dumps({"tasks": tasks} if parts else score))
    sys.exit()
lock = open(run / "lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
status = run / "status.json"
step = json.loads(status.read_text())["step"] if status.exists() else 0
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
def save(state):
    status.with_name("s").write_text(json.dumps({"state": state, "step": step, "pid": os.getpid()}))
    status.with_name("s").rename(status)
print("started at", step, flush=True)
save("running")
while step < int(steps) and not stopped:
    if final == "nan":
        print("loss is not finite: lower --lr", file=sys.stderr)
        save("failed")
        sys.exit(3)
    time.sleep(float(pace))
    step += 10
    value = float(final) * step / int(steps)
    clocks = {"wall_s": step / 100, "cpu_s": step / 200}
    with open(run / "metrics.jsonl", "a") as file:
        for row in ({"kind": "eval", "return_mean": value}, {"kind": "train", "updates": step // 2}):
            file.write(json.dumps({**row, "step": step, **clocks}) + "\\n")
        for i, part in enumerate(parts):
            row = {"kind": "eval_task", "task": part, "return_mean": value + i}
            file.write(json.dumps({**row, "step": step, **clocks}) + "\\n")
    save("running")
save("preempted" if stopped else "finished")
sys.exit(85 if stopped else 0)
"""
DRIVER = """
import json, sys
from pathlib import Path
from benchmarks import run, suite
from benchmarks.progress import Progress
from benchmarks.kinds import Job
jobs, results = [Job(*row) for row in json.loads(sys.argv[1])], Path(sys.argv[2])
sys.exit(run.run(jobs, results, 2, Progress(jobs, results)))
"""


def job_maker(tmp_path: Path) -> Callable[..., Job]:
    """A job of the stand-in: 40 steps of `pace` seconds each ten, ending at score `final`.

    before: exit code and a word to write down, of each command that comes first.
    """
    (tmp_path / "fake.py").write_text(FAKE)

    def make(
        final: str = "480", seed: int = 0, method: str = "mpn", task: str = "cartpole", pace: float = 0.0,
        after: tuple[str, ...] = (), before: tuple[tuple[int, str], ...] = (),
    ) -> Job:  # fmt: skip
        name = f"{task}-{method}-s{seed}"
        program = (sys.executable, str(tmp_path / "fake.py"))
        rest = (name, str(tmp_path / "results" / "runs"), "40", str(pace), final, *suite.TASKS[task].parts)
        ahead = tuple((*program, "before", *rest[:2], str(code), "0", word) for code, word in before)
        train, score = (*program, "train", *rest), (*program, "eval", *rest)
        return Job(task, method, seed, 40, train, score, after=after, before=ahead)

    return make


def go(jobs: list[Job], results: Path, workers: int = 2) -> int:
    return run.run(jobs, results, workers, Progress(jobs, results))


def drive(jobs: list[Job], results: Path) -> subprocess.Popen[bytes]:
    """The same in a process of its own."""
    rows = json.dumps([[j.task, j.method, j.seed, j.steps, j.train, j.evaluate] for j in jobs])
    return subprocess.Popen([sys.executable, "-c", DRIVER, rows, str(results)], cwd=ROOT, stderr=subprocess.DEVNULL)


def log(results: Path, job: Job) -> str:
    return (results / "logs" / f"{job.name}.log").read_text()
