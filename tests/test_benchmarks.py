"""What benchmarks run and how, on a stand-in for the command lines that writes the same files."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import signal
import sys
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from benchmarks import collect, kinds, page, report, run, suite
from benchmarks.kinds import Job
from stand_in import ROOT, drive, go, log

from rlcore import cli
from rlcore.evaluate import EvalResult


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
