"""Sweeps: what a file expands to, and real processes that finish, fail, are preempted, skipped, stopped and resumed."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlcore.errors import DataError, UsageError
from rlcore.files import locked
from rlcore.sweep import CollectConfig, SweepConfig, collect, load_jobs, make, run_sweep

# A job that acts by its --mode and writes what a run writes. `once` is preempted the first time it is started.
JOB = """
import json, os, signal, sys, time
options = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:])
folder = os.path.join(options["dir"], options["name"])
os.makedirs(folder, exist_ok=True)
def note(name, text):
    with open(os.path.join(folder, name), "a") as file:
        file.write(text + "\\n")
def status(state):
    with open(os.path.join(folder, "status.json"), "w") as file:
        json.dump({"state": state, "pid": os.getpid()}, file)
def stop(number, frame):
    note("signals", signal.Signals(number).name)
    status("preempted")
    sys.exit(85)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
note("starts", os.environ["OMP_NUM_THREADS"])
mode, starts = options.get("mode", "ok"), len(open(os.path.join(folder, "starts")).readlines())
status("running")
if mode == "fail":
    sys.exit("this job is broken")
if mode == "preempt" or mode == "once" and starts == 1:
    sys.exit(85)
if mode == "wait" and not os.path.exists("go"):
    time.sleep(60)
status("finished")
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with a program `sweepjob` on PATH."""
    program = tmp_path / "sweepjob"
    program.write_text(f"#!{sys.executable}\n{JOB}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(text: str, name: str = "s.toml") -> Path:
    Path(name).write_text(text)
    return Path(name)


def starts(run: str) -> int:
    path = Path("experiments", run, "starts")
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_a_grid_by_hand(place):
    file = write("""
        name = "cart"
        command = "mpn train"
        [fixed]
        total-steps = 100
        quiet = true
        net.layers = [8, 8]
        [grid]
        seed = [1, 2]
        env = ["a/B-v1"]
        sac.lr = [1e-3, 0.5]
        [resources]
        cpus = 1
    """)
    name, jobs = load_jobs(CollectConfig(file=file))
    assert name == "cart"
    assert [job.name for job in jobs] == [
        "cart-seed1-enva-B-v1-lr0.001",
        "cart-seed1-enva-B-v1-lr0.5",
        "cart-seed2-enva-B-v1-lr0.001",
        "cart-seed2-enva-B-v1-lr0.5",
    ]
    assert (
        jobs[3].argv
        == (
            "mpn train --dir=experiments --total_steps=100 --quiet=true --net.layers=8,8 "
            "--seed=2 --env=a/B-v1 --sac.lr=0.5 --name=cart-seed2-enva-B-v1-lr0.5"
        ).split()
    )
    assert (jobs[3].id, jobs[3].run) == (3, "experiments/cart-seed2-enva-B-v1-lr0.5")
    assert jobs[3].grid == {"seed": 2, "env": "a/B-v1", "sac.lr": 0.5}

    folder, _ = make(CollectConfig(file=file))
    assert folder == Path("sweeps/cart")
    assert (folder / "logs").is_dir()
    lines = (folder / "train_args.txt").read_text().splitlines()
    assert [line.split() for line in lines] == [job.argv[1:] for job in jobs]
    assert [entry["name"] for entry in json.loads((folder / "jobs.json").read_text())] == [job.name for job in jobs]


def test_without_a_grid_there_is_one_job_named_like_the_file(place):
    name, jobs = load_jobs(CollectConfig(file=write("", "alone.toml"), dir=Path("logs")))
    assert (name, [job.name for job in jobs], jobs[0].run) == ("alone", ["alone"], "logs/alone")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[gird]\nseed = [1]", "s.toml: unknown key 'gird'; did you mean grid?"),
        ("[grid]\nseed = 1", "[grid] seed: expected a list"),
        ("[grid]\nseed = []", "[grid] seed: expected a list"),
        ("grid = 1", "s.toml: grid: expected keys with values, got 1"),
        ("[grid]\nseed = [1, 1]", "two jobs would be named s-seed1"),
        ('[grid]\nenv = ["a/b", "a-b"]', "two jobs would be named s-enva-b"),
        ('[grid]\nenv = ["a b"]', "values may hold no blanks, quotes or backslashes"),
        ("""[fixed]\nenv = 'a"b'""", "env: 'a\"b': values may hold no"),
        ('[fixed]\nenv = "a\\tb"', "values may hold no"),
        ('[fixed]\nenv = ""', "values may hold no"),
        ("name = 'a b'\n", "name: 'a b' is no folder name"),
        ("name = '../up'\n", "name: '../up' is no folder name"),
        ("name = 3\n", "s.toml: name: expected printable text, got 3"),
        ("[grid]\nenv = ['" + "x" * 200 + "']", "is no folder name"),
        ("[fixed]\noverwrite = true", "overwrite: a job that is run again would begin again"),
        ("[grid\n", "line 1"),
    ],
)
def test_bad_sweeps_are_refused(place, text, said):
    with pytest.raises(UsageError) as caught:
        load_jobs(CollectConfig(file=write(text)))
    assert said in str(caught.value)


def test_one_sweep_at_a_time(place):
    cfg = SweepConfig(file=write('command = "sweepjob"'))
    assert run_sweep(cfg) == 0
    with locked(Path("sweeps/s")), pytest.raises(UsageError, match="is in use by process"):
        run_sweep(cfg)


def test_one_failure_stops_no_other_and_finished_jobs_are_skipped(place, capfd):
    file = write('command = "sweepjob"\n[grid]\nmode = ["fail", "ok", "once"]\nseed = [0, 1]')
    assert run_sweep(SweepConfig(file=file, workers=2)) == 1
    shown = capfd.readouterr().out
    for seed in (0, 1):
        assert f"s-modefail-seed{seed}  failed with exit code 1: see sweeps/s/logs/000{seed}.err" in shown
        assert f"s-modeok-seed{seed}    finished" in shown
        assert f"s-modeonce-seed{seed}  finished" in shown
        assert [starts(f"s-mode{mode}-seed{seed}") for mode in ("fail", "ok", "once")] == [1, 1, 2]
    assert Path("sweeps/s/logs/0000.err").read_text() == "this job is broken\n"
    assert Path("sweeps/s/logs/0000.out").read_text() == ""
    assert Path("experiments/s-modeok-seed0/starts").read_text() == "1\n"  # OMP_NUM_THREADS

    assert run_sweep(SweepConfig(file=file, workers=3)) == 1
    assert [starts(f"s-mode{mode}-seed0") for mode in ("fail", "ok", "once")] == [2, 1, 2]


def test_preemption_is_retried_so_often_and_no_more(place, capfd):
    file = write('command = "sweepjob"\n[fixed]\nmode = "preempt"')
    assert run_sweep(SweepConfig(file=file, retries=2)) == 1
    assert starts("s") == 3
    assert "failed with exit code 85" in capfd.readouterr().out


def test_other_options_under_a_name_that_has_results_are_refused(place, capfd):
    write('command = "sweepjob"\n[fixed]\nsteps = 1\n[grid]\nseed = [1]')
    assert run_sweep(SweepConfig(file=Path("s.toml"))) == 0
    write('command = "sweepjob"\n[fixed]\nsteps = 1\n[grid]\nseed = [1, 2]')  # to add jobs is fine
    assert run_sweep(SweepConfig(file=Path("s.toml"))) == 0
    write('command = "sweepjob"\n[fixed]\nsteps = 2\n[grid]\nseed = [1]')
    with pytest.raises(UsageError, match="experiments/s-seed1 was run with other options"):
        run_sweep(SweepConfig(file=Path("s.toml")))


SWEEP = "import sys; from rlcore import cli; sys.exit(cli.dispatch('toy', {'sweep run': "
SWEEP += "('', 'rlcore.sweep:SweepConfig', 'rlcore.sweep:run_sweep')}, sys.argv[1:], version='1'))"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 85)])
def test_a_stopped_sweep_saves_its_jobs_and_the_same_command_continues(place, number, code):
    write('command = "sweepjob"\n[grid]\nmode = ["ok", "wait"]\nseed = [0, 1, 2]')
    command = [sys.executable, "-c", SWEEP, "sweep", "run", "s.toml", "--workers", "2"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    waiting = [Path(f"experiments/s-modewait-seed{seed}/status.json") for seed in (0, 1)]
    deadline = time.monotonic() + 60
    while not all(path.exists() and "running" in path.read_text() for path in waiting):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    pids = [json.loads(path.read_text())["pid"] for path in waiting]
    os.killpg(child.pid, number)  # as a terminal does: to the whole process group
    _, said = child.communicate(timeout=60)
    assert child.returncode == code
    assert said == "toy sweep run: stopped: 3 of 6 jobs finished; the same command continues\n"
    for seed, pid in enumerate(pids):
        assert Path(f"experiments/s-modewait-seed{seed}/signals").read_text() == "SIGTERM\n"  # one, and only one
        assert not Path(f"/proc/{pid}").exists()
    assert starts("s-modewait-seed2") == 0

    Path("go").touch()
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False, timeout=60).returncode == 0
    assert [starts(f"s-mode{mode}-seed{seed}") for mode in ("ok", "wait") for seed in (0, 1, 2)] == [1, 1, 1, 2, 2, 1]


def test_collect_by_hand(place):
    file = write("[grid]\nseed = [1, 2, 3]\nquiet = [true]")
    run = Path("experiments/s-seed1-quiettrue")
    run.mkdir(parents=True)
    rows = [(10, 1.0), (20, 5.5), (30, 4.0)]
    lines = [json.dumps({"kind": "eval", "step": step, "return_mean": score}) for step, score in rows]
    lines += [json.dumps({"kind": "train", "step": 40}), '{"kind": "eval", "step": 50, "retu']  # the last one is torn
    (run / "metrics.jsonl").write_text("\n".join(lines))
    (run / "status.json").write_text('{"state": "finished"}')
    collect(CollectConfig(file=file))
    with open("sweeps/s/sweep.csv", newline="") as table:
        first, *others = csv.DictReader(table)
    assert first == {
        "name": "s-seed1-quiettrue",
        "seed": "1",
        "quiet": "true",
        "state": "finished",
        "step": "30",
        "last_return": "4.0",
        "best_return": "5.5",
        "best_step": "20",
    }
    assert [(row["seed"], row["state"], row["best_return"]) for row in others] == [("2", "new", ""), ("3", "new", "")]


def test_the_grid_overrides_what_is_fixed_and_may_choose_the_folder(place):
    _, jobs = load_jobs(CollectConfig(file=write("[fixed]\neta = 1\n[grid]\neta = [2]\ndir = ['a', 'b']")))
    assert [job.run for job in jobs] == ["a/s-eta2-dira", "b/s-eta2-dirb"]
    assert "--eta=2" in jobs[0].argv
    assert "--eta=1" not in jobs[0].argv


def test_collect_names_a_damaged_line(place):
    file = write("")
    Path("experiments/s").mkdir(parents=True)
    Path("experiments/s/metrics.jsonl").write_bytes(b'{"kind": "train", "step": 1}\n{"kind": \xff}\n')
    with pytest.raises(DataError, match=r"experiments/s/metrics.jsonl:2"):
        collect(CollectConfig(file=file))
