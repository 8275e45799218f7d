"""The benchmarks' own machinery, on a stand-in for the command lines that writes the same files."""

from __future__ import annotations

import ast
import importlib.util
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from argparse import Namespace
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from benchmarks import __main__ as main
from benchmarks import collect, kinds, page, report, run, suite
from benchmarks.kinds import Claim, Job
from benchmarks.progress import Progress
from hypothesis import given
from hypothesis import strategies as st

from rlcore import cli
from rlcore.evaluate import EvalResult

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
from benchmarks import run
from benchmarks.progress import Progress
from benchmarks.kinds import Job
jobs, results = [Job(*row) for row in json.loads(sys.argv[1])], Path(sys.argv[2])
sys.exit(run.run(jobs, results, 2, Progress(jobs, results)))
"""


@pytest.fixture
def make_job(tmp_path: Path):
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


@pytest.fixture
def results(tmp_path: Path) -> Path:
    (tmp_path / "results").mkdir()
    return tmp_path / "results"


def go(jobs: list[Job], results: Path, workers: int = 2) -> int:
    return run.run(jobs, results, workers, Progress(jobs, results))


def drive(jobs: list[Job], results: Path) -> subprocess.Popen[bytes]:
    """The same in a process of its own."""
    rows = json.dumps([[j.task, j.method, j.seed, j.steps, j.train, j.evaluate] for j in jobs])
    return subprocess.Popen([sys.executable, "-c", DRIVER, rows, str(results)], cwd=ROOT, stderr=subprocess.DEVNULL)


def log(results: Path, job: Job) -> str:
    return (results / "logs" / f"{job.name}.log").read_text()


# --- the suite --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("tier", suite.TIERS)
def test_the_suites_commands_are_ones_that_the_programs_understand(tier: str):
    jobs = suite.make_jobs(tier, "runs")
    assert len({job.name for job in jobs}) == len(jobs) > 0
    assert max(job.seed for job in jobs) < 100  # the presets were tuned on seeds from 100 on
    for job in {(job.task, job.method): job for job in jobs if "/" not in job.train[0]}.values():
        for argv in job.before:
            assert understood(argv).seed == job.seed
            assert any(f"runs/{job.name}." in word or word.startswith(f"{job.name}.") for word in argv)
        train, scored = (understood(argv) for argv in (job.train, job.evaluate))
        steps = next(getattr(train, name) for name in ("total_steps", "steps", "updates") if hasattr(train, name))
        assert (steps, train.seed, train.name) == (job.steps, job.seed, job.name)
        names = ("num_eval_episodes", "eval_episodes", "repeats", "episodes")
        episodes = next(value for name in names if (value := getattr(scored, name, None)) is not None)
        assert episodes == suite.TASKS[job.task].episodes
        if job.method != "collective-worker":  # scored on a task's own 50 goals
            assert getattr(scored, "seed_base", None) == 20_000 or scored.goal_seed == 20_000


def understood(argv: tuple[str, ...]) -> Any:
    """The configuration that a program makes of a command line."""
    verbs = importlib.import_module(f"{argv[0]}.cli").VERBS
    verb = next(name for n in (3, 2, 1) if (name := " ".join(argv[1 : 1 + n])) in verbs)
    cls, config = resolve_name(verbs[verb][1]), importlib.import_module(f"{argv[0]}.config")
    presets = getattr(cls, "PRESETS", None) or (getattr(config, "PRESETS", None) if verb == "train" else {})
    inferred = getattr(config, "task_preset", None) if verb == "train" else None
    return cli.parse(cls, argv[1 + len(verb.split()) :], verb, "", presets, inferred)


def test_only_narrows_by_task_and_by_method(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kinds.Program, "installed", lambda self: not self.is_peer)
    cells = lambda only: {(job.task, job.method) for job in suite.make_jobs("quick", "runs", only, (0,))}  # noqa: E731
    quick = [("cartpole-balance", "prismatic"), ("cartpole-balance", "prismatic-dense")]
    assert sorted(cells("prismatic")) == quick
    assert cells("gru") == {("cartpole", "gru"), ("tmaze", "gru")}
    assert cells("tmaze") == {("tmaze", "mpn"), ("tmaze", "mpn-frozen"), ("tmaze", "gru")}
    assert cells("tmaze,gru") == {("tmaze", "gru")}
    assert cells("nonsense") == set()
    assert not any(method == "sb3-dqn" for _, method in cells(""))  # not installed: not in the table


def reported(task: str) -> list[str]:
    """The tasks that a job on `task` is reported as."""
    return [f"{task}/{part}" for part in suite.TASKS[task].parts] or [task]


def test_every_task_of_a_tier_has_a_bar():
    for task in {group.task for tier in suite.TIERS.values() for group in tier.groups}:
        assert all(suite.TASKS[name].bar > suite.TASKS[name].floor for name in reported(task))


def test_every_claim_is_measured_by_its_tier():
    for tier in suite.TIERS.values():
        pairs = [(group.task, method) for group in tier.groups for method in group.methods]
        measured = {(name, method) for task, method in pairs for name in reported(task)}
        assert {(claim.task, claim.method) for claim in tier.claims} <= measured


def test_benchmarks_import_no_method():
    """But for those of micro/, which time a method's parts."""
    methods = {path.parent.name for path in ROOT.glob("packages/*/pyproject.toml")}
    for path in set((ROOT / "benchmarks").rglob("*.py")) - set((ROOT / "benchmarks/micro").iterdir()):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & methods, path


# --- running ----------------------------------------------------------------------------------------------------------
def test_what_comes_before_training_is_run_once_and_counted(make_job, results: Path):
    job = make_job(before=((0, "walks"), (0, "skills")))
    made = results / "runs" / f"{job.name}.made"
    assert go([job], results) == 0
    assert made.read_text() == "walks\nskills\n"
    costs = run.costs_of(results, job)
    assert list(run.commands_of(job)) == ["before_1", "before_2", "train", "evaluate"]
    (record,) = collect.job_records(job, results)
    ahead = costs["before_1"]["cpu_s"] + costs["before_2"]["cpu_s"]
    assert record["cpu_s"] == pytest.approx(costs["train"]["cpu_s"] + ahead, abs=0.3)
    assert record["curve"][0][2] == pytest.approx(0.05 + ahead, abs=0.06)
    assert go([job], results) == 0
    assert made.read_text() == "walks\nskills\n"
    other = replace(job, before=job.before[1:])
    assert go([other], results) == 0  # another command: nothing of the old job is left
    assert made.read_text() == "skills\n"


def test_a_job_goes_on_with_the_first_command_that_did_not_end_well(make_job, results: Path):
    job = make_job(before=((0, "walks"), (3, "skills")))
    assert go([job], results) == 1
    assert go([job], results) == 1
    assert (results / "runs" / f"{job.name}.made").read_text() == "walks\nskills\nskills\n"
    assert not (results / "runs" / job.name).exists()


def test_a_complete_job_is_measured_and_never_run_again(make_job, results: Path):
    jobs = [make_job(seed=0, pace=0.05), make_job(seed=1)]
    assert go(jobs, results) == 0
    costs = run.costs_of(results, jobs[0])["train"]
    assert costs["exit"] == 0
    assert costs["wall_s"] >= 0.2 > costs["cpu_s"] > 0  # it slept 4 x 0.05 s
    assert costs["peak_mib"] > 5
    before = log(results, jobs[0])
    assert go(jobs, results) == 0
    assert log(results, jobs[0]) == before
    assert before.count("started at 0") == 1


def test_a_changed_command_starts_over(make_job, results: Path):
    go([make_job("480")], results)
    go([make_job("490")], results)
    assert "started at 0" in log(results, make_job())
    assert json.loads((results / "runs/cartpole-mpn-s0/eval.json").read_text())["return_mean"] == 490


def test_a_failing_job_does_not_sink_the_others(make_job, results: Path, capsys: pytest.CaptureFixture[str]):
    jobs = [make_job("nan", seed=0), make_job("480", seed=1)]
    assert go(jobs, results, workers=1) == 1
    assert run.is_done(results, jobs[1], "evaluate")
    made = collect.collect(jobs, results, "quick", "command")
    assert report.failures(made) == ["cartpole mpn seed 0: loss is not finite: lower --lr"]
    assert made["tasks"][0]["rows"][0]["done"] == 1
    assert "FAILED (exit 3): loss is not finite" in capsys.readouterr().err
    assert "loss is not finite" in page.to_html(made)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stopped_bench_continues(make_job, results: Path, how: signal.Signals):
    """Children save when the bench is stopped, and on Linux even when it is killed: the next bench waits for that."""
    if how == signal.SIGKILL and not sys.platform.startswith("linux"):
        pytest.skip("only Linux tells children of their parent's death")
    jobs = [make_job(seed=seed, pace=0.15) for seed in range(3)]
    bench = drive(jobs, results)
    wait_for(lambda: all(run.status_of(results, job).get("step", 0) >= 10 for job in jobs[:2]))
    bench.send_signal(how)
    assert bench.wait(20) == (130 if how != signal.SIGKILL else -signal.SIGKILL)
    assert not run.status_of(results, jobs[2])
    assert drive(jobs, results).wait(30) == 0
    for job in jobs[:2]:
        assert re.search(r"started at [123]0", log(results, job))  # it went on
        costs = run.costs_of(results, job)["train"]
        assert costs["attempts"] == (1 if how == signal.SIGKILL else 2)
        assert costs["wall_s"] >= (0.1 if how == signal.SIGKILL else 0.6)  # of all attempts: 4 x 0.15 s


def test_a_preempted_child_is_started_again(make_job, results: Path):
    job = make_job(pace=0.15)
    bench = drive([job], results)
    wait_for(lambda: run.status_of(results, job).get("step", 0) >= 10)
    os.kill(run.status_of(results, job)["pid"], signal.SIGTERM)
    assert bench.wait(20) == 0
    assert run.costs_of(results, job)["train"]["attempts"] == 2


def test_a_job_that_reads_anothers_cost_waits_for_it_and_starts_over_with_it(make_job, results: Path):
    first = make_job(pace=0.05)
    second = make_job(method="sb3-dqn", after=(first.name,))
    assert go([second, first], results) == 0
    ended = [(results / "runs" / job.name / "eval.json").stat().st_mtime_ns for job in (first, second)]
    assert ended == sorted(ended)
    assert run.is_done(results, second, "evaluate")
    costs = results / "costs" / f"{first.name}.json"
    made = json.loads(costs.read_text())
    assert run.costs_of(results, second)["after"] == {first.name: made["train"]["cpu_s"]}
    made["train"]["cpu_s"] += 1  # what it reads is not what it was any more
    costs.write_text(json.dumps(made))
    assert not run.is_done(results, second, "evaluate")
    assert run.is_done(results, first, "evaluate")
    assert go([second], results) == 0  # without the other in the list it does not wait


def wait_for(condition, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_two_benches_never_share_a_folder(results: Path):
    with run.locked(results), pytest.raises(run.UsageError, match="another bench"), run.locked(results, patience=0.0):
        pass


def test_peak_memory_is_the_childs_and_a_silent_child_has_failed(results: Path):
    """In a bench of its own: Linux lets a child's peak begin at its parent's size, and pytest may have torch in it."""
    big = (sys.executable, "-c", "x = bytearray(300 << 20); x[::4096] = bytes(len(x[::4096]))")
    job = Job("cartpole", "mpn", 0, 1, big, big)
    assert drive([job], results).wait(30) == 1
    assert 300 < run.costs_of(results, job)["train"]["peak_mib"] < 360
    assert collect.collect([job], results, "quick", "")["jobs"][0]["error"].startswith("it exited 0 but did not write")


@pytest.fixture
def sb3_run(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/peers/sb3_run.py without stable-baselines3, which is not in the product's environment."""
    bases = {"base_class": {"BaseAlgorithm": object}, "callbacks": {"BaseCallback": object}}
    for name in ("stable_baselines3", "stable_baselines3.common", *(f"stable_baselines3.common.{n}" for n in bases)):
        module = ModuleType(name)
        vars(module).update(bases.get(name.split(".")[-1], {}))
        monkeypatch.setitem(sys.modules, name, module)
    spec = importlib.util.spec_from_file_location("sb3_run", ROOT / "benchmarks/peers/sb3_run.py")
    made = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(made)  # type: ignore[union-attr]
    return made


def test_a_peer_reads_what_a_finished_run_cost(sb3_run: ModuleType, make_job, results: Path):
    job = make_job()
    folder = results / "runs" / job.name
    with pytest.raises(SystemExit, match="no finished run is there"):
        sb3_run.cpu_seconds_of(folder)
    assert go([job], results) == 0
    assert sb3_run.cpu_seconds_of(folder) == 0.2  # 40 steps at the stand-in's clock of 200 a second
    (folder / "status.json").write_text('{"state": "preempted"}')
    with pytest.raises(SystemExit, match="no finished run is there"):
        sb3_run.cpu_seconds_of(folder)


def test_a_peer_stops_when_its_cpu_time_is_spent(sb3_run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clock = {"now": 100.0}
    monkeypatch.setattr(sb3_run.time, "process_time", lambda: clock["now"])
    monkeypatch.setattr(sb3_run, "score", lambda *_: EvalResult(np.array([clock["now"]]), np.array([1])))
    args = Namespace(env="x", eval_every=40, eval_episodes=1, log_every=20, total_steps=7)
    recorder = sb3_run.Recorder(tmp_path, args, cpu_limit=5.0)
    recorder.model, recorder.locals = SimpleNamespace(_n_updates=3, save=lambda path: None), {"infos": [{}]}
    for step in range(1, 100):
        recorder.num_timesteps, clock["now"] = step, 100.0 + 0.1 * step
        if step == 20:
            assert recorder._on_step()
            assert json.loads((tmp_path / "status.json").read_text())["total_steps"] == 50  # at this rate
        elif not recorder._on_step():
            break
    assert step == 50
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "eval"] == [40, 50]  # the last one where it stopped


# --- the report -------------------------------------------------------------------------------------------------------
@pytest.fixture
def made(make_job, results: Path) -> report.Report:
    """Three seeds of two methods on one task, whose scores are known."""
    jobs = [make_job(score, seed, "mpn") for seed, score in enumerate(("480", "500", "460"))]
    jobs += [make_job(score, seed, "gru") for seed, score in enumerate(("100", "200", "480"))]
    assert go(jobs, results) == 0
    return collect.collect(jobs, results, "quick", "python -m benchmarks")


def test_the_table_by_hand(made: report.Report):
    mpn, gru = made["tasks"][0]["rows"]
    assert (mpn["method"], mpn["solved"], mpn["runs"]) == ("mpn", 2, 3)
    assert mpn["mean"] == pytest.approx(480)
    assert mpn["iqm"] == pytest.approx(480)  # of three, nothing is cut off
    assert mpn["ci"] == pytest.approx([460, 500])
    assert mpn["steps_to_bar"] == 40  # two of three seeds: the median exists
    assert gru["steps_to_bar"] is None  # one of three: it does not
    assert mpn["env_steps_per_s"] == pytest.approx(100)  # 40 steps in 0.4 s by the run's own clock
    assert mpn["updates_per_s"] == pytest.approx(50)
    assert mpn["curve"][0][:2] == [10, 120]
    assert report.cells(mpn)[:6] == ("mpn", "480 [460, 500]", "2/3", "40", "0", "▃▅▇█")
    assert report.summary(made)[1] == [("mpn", "480, 2 of 3"), ("gru", "260, 1 of 3")]


def test_methods_with_tasks_of_their_own_have_a_row_for_each():
    """Three tasks of one method each would be a table of which two thirds are empty."""
    row = {"done": 1, "iqm": 2.0, "solved": 1, "runs": 3}
    tasks = [{"title": f"T{i}", "bar": 5, "rows": [{"title": title, **row}]} for i, title in enumerate(("mpn", "gru"))]
    third = {"title": "T2", "bar": 5, "rows": [{"title": "rnn", **row}, {"title": "lstm", **row, "done": 0}]}
    headers, rows = report.summary({"tasks": [*tasks, third]})
    assert headers == ("method", "task (return that solves it)", "return, seeds that solved it")
    assert rows == [(title, f"T{i} (5)", "2.00, 1 of 3") for i, title in enumerate(("mpn", "gru", "rnn"))]
    headers, rows = report.summary({"tasks": tasks})
    assert rows == [("mpn", "2.00, 1 of 3", "–"), ("gru", "–", "2.00, 1 of 3")]


def test_the_headline_says_whose_scores_they_are(made: report.Report):
    assert "each; scores on 2 fresh episodes a run: greedy returns of the best checkpoint." in report.headline(made)
    assert report.scored(["spirl", "gasp", "gasp"]) == "returns of drawn skills by the last agent"
    mixed = report.scored(["gasp", "mpn", "gru", "spirl"])
    assert mixed == (
        "returns of drawn skills by the last agent (gasp and gasp (SPiRL)); "
        "greedy returns of the best checkpoint (mpn and gru)"
    )


def test_an_agent_of_several_tasks_has_a_row_on_each(make_job, results: Path, capsys: pytest.CaptureFixture[str]):
    jobs = [make_job("200", seed, "prismatic", "mt4") for seed in (0, 1)]
    assert go([*jobs, make_job("nan", 2, "prismatic", "mt4")], results) == 1
    assert "scored 200, 201, 202, 203" in capsys.readouterr().err
    made = collect.collect([*jobs, make_job("nan", 2, "prismatic", "mt4")], results, "prismatic", "command")
    tasks = {task["task"]: task["rows"] for task in made["tasks"]}
    assert list(tasks) == [f"mt4/{part}" for part in suite.TASKS["mt4"].parts]
    assert [rows[0]["mean"] for rows in tasks.values()] == [200, 201, 202, 203]
    assert [rows[0]["solved"] for rows in tasks.values()] == [0, 2, 2, 2]  # bars of 600, 200, 150, 175
    assert tasks["mt4/cup-catch"][0]["curve"][-1][:2] == [40, 203]
    assert [c["holds"] for c in made["claims"] if "Four at once" in c["claim"]] == [None] * 4  # a seed failed
    assert report.failures(made) == ["mt4 prismatic seed 2: loss is not finite: lower --lr"]
    assert "mt4 prismatic:" in report.to_markdown(made)


def test_curves_end_where_the_first_seed_ends():
    curves = [[[10, 0.0, 1.0], [20, 2.0, 3.0]], [[10, 2.0, 3.0], [20, 4.0, 5.0], [30, 9.0, 9.0]]]
    assert [[p[0], p[1], p[4]] for p in collect.band(curves)] == [[10, 1, 2], [20, 3, 4]]


def test_claims_hold_or_do_not(made: report.Report):
    holds = lambda **claim: collect.judge(Claim("cartpole", "mpn", **claim), made["jobs"])["holds"]  # noqa: E731
    assert holds(at_least=460) is True
    assert holds(at_least=475) is False
    assert holds(at_least=475, of=2) is True
    assert holds(at_most=1000) is True
    assert holds(at_most=490) is False
    assert collect.judge(Claim("tmaze", "mpn", at_least=1), made["jobs"])["holds"] is None
    assert holds(below=490) is False
    assert holds(below=500) is True


def test_a_share_of_the_way_between_two_others_by_hand(make_job, results: Path):
    ends = {"mpn-frozen": ("100", "100"), "rnn": ("500", "100"), "mpn": ("400", "100")}
    jobs = [make_job(score, seed, method) for method, both in ends.items() for seed, score in enumerate(both)]
    assert go(jobs, results) == 0
    records = collect.collect(jobs, results, "quick", "")["jobs"]
    claim = Claim("cartpole", "mpn", recovers=0.7, between=("mpn-frozen", "rnn"))
    judged = collect.judge(claim, records)
    assert (judged["scores"], judged["good"], judged["holds"]) == ([0.75, 0.0], 1, False)  # on seed 1 all are alike
    assert collect.judge(replace(claim, of=1), records)["holds"] is True
    assert "0.7 of the way from mpn-frozen to rnn" in judged["claim"]
    missing = [record for record in records if (record["method"], record["seed"]) != ("rnn", 1)]
    assert collect.judge(claim, missing)["holds"] is None


def test_parts_may_have_their_curves_in_the_evaluations(make_job, results: Path):
    job = replace(make_job("1", 0, "taskinfer-low", "cheetah"))
    rows = [
        {"kind": "eval", "step": 10, "goal_reached": 0.5, "velocity_reached": 0.25, "chain_reached": 0.0, "cpu_s": 1}
    ]
    folder = results / "runs" / job.name
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    curves = {r["task"]: r["curve"] for r in collect.job_records(job, results)}
    assert curves == {
        "cheetah/goal": [[10, 0.5, 1]],
        "cheetah/velocity": [[10, 0.25, 1]],
        "cheetah/chain": [[10, 0, 1]],
    }


class Tags(HTMLParser):
    """Opened tags with their attributes, and whether all are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_one_sound_file(made: report.Report):
    text = page.to_html(made)
    tags = Tags(text)
    assert tags.open == []
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in tags.seen}
    assert not any({"src", "href"} & set(attributes) for _, attributes in tags.seen)
    assert "http" not in text
    assert "url(" not in text
    assert sum(tag == "polyline" for tag, _ in tags.seen) == 4  # over env steps and over CPU seconds
    assert "prefers-color-scheme: dark" in text


def test_all_faces_say_the_same(made: report.Report):
    markdown, html = report.to_markdown(made), page.to_html(made)
    assert json.loads(report.to_json(made)) == json.loads(json.dumps(made))
    for row in made["tasks"][0]["rows"]:
        assert all(text in markdown for text in report.cells(row))
        assert all(text in html for text in page.without_curve(report.cells(row)))
    assert os.uname().nodename not in re.sub(r"[\w/.-]*/[\w/.-]*", "", report.to_json(made))


def test_a_bench_from_the_command_line(make_job, results: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(main, "RESULTS", results.parent)
    monkeypatch.setattr(main, "make_jobs", lambda tier, runs, only="", seeds=None: [make_job()])
    assert main.main(["--name", "results", "--workers", "1", "--record"]) == 0
    assert {p.name for p in results.glob("report.*")} == {"report.html", "report.md", "report.json"}
    assert json.loads((results.parent / "quick.json").read_text())["jobs"][0]["curve"][-1] == [40, 480, 0.2]
    assert "480" in capsys.readouterr().out
    old = results / "runs" / make_job().name / "old"
    old.touch()
    assert main.main(["--name", "results"]) == 0
    assert old.exists()
    assert main.main(["--name", "results", "--fresh"]) == 0
    assert not old.exists()
    monkeypatch.setattr(main, "make_jobs", lambda *_, **__: [])
    assert main.main(["--only", "nonsense"]) == 2


@given(st.lists(st.floats(page.TOP, page.HEIGHT - page.BOTTOM), max_size=8))
def test_labels_never_overlap(heights: list[float]):
    placed = page.spread(heights, gap=17)
    assert all(b - a >= 17 - 1e-9 for a, b in pairwise(sorted(placed)))
    bottom = page.HEIGHT - page.BOTTOM
    assert all(min(*heights, bottom - 17 * len(heights)) - 1e-9 <= a <= bottom for a in placed)
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    assert sorted(range(len(placed)), key=lambda i: placed[i]) == order or len(set(heights)) < len(heights)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_round_few_and_inside(low: float, width: float):
    ticks = page.ticks(low, low + width)
    assert 2 <= len(ticks) <= 8
    slack = 1e-6 * max(1.0, abs(low), width)
    assert all(low - slack <= tick <= low + width + slack for tick in ticks)


def test_short_numbers_and_sparklines():
    assert [report.short(v) for v in (486.3, 12.34, 0.968, -0.021, -0.0)] == ["486", "12.3", "0.97", "-0.02", "0.00"]
    assert report.sparkline([-1, 0, 1, 2], 0, 1) == "▁▁██"
    assert report.sparkline([], 0, 1) == ""
    assert len(report.sparkline(list(map(math.sqrt, range(100))), 0, 10)) <= 12


def test_micro_benchmarks_are_in_the_report(make_job, results: Path):
    row = {"name": "a part", "unit": "CPU time a call", "ours": "x", "peer": "y", "ours_us": 12.5, "peer_us": 50_000.0,
           "ratio": 4.0, "quartiles": [3.5, 4.5], "ratios": [4.0], "bar": 3, "reached": True}  # fmt: skip
    machine = {"cpu": "a CPU", "cores": 2, "load": 0.1}
    record = {
        "title": "Parts",
        "date": "today",
        "protocol": "in turns",
        "machine": machine,
        "versions": {},
        "rows": [row],
    }
    (results.parent / "micro_part.json").write_text(json.dumps(record))
    made = collect.collect([make_job()], results, "quick", "")
    for text in (report.to_markdown(made), page.to_html(made)):
        assert all(
            part in text for part in ("Parts", "12.5 µs", "50.0 ms", "4.00 [3.50, 4.50]", "reached", "a CPU, today")
        )
