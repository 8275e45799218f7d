"""Faults, on real processes: kills, signals, full disks, NaN, hostile files, two owners, long runs.

Counts are those of continuous integration; `make faults` runs the full ones. docs/reliability.md explains the names.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mpn.cli import main
from rlcore import checkpoint

FAULTS = Path(__file__).parent / "faults"
KILLS, SIGNALS = int(os.environ.get("QUINTET_KILLS", "20")), int(os.environ.get("QUINTET_SIGNALS", "10"))
EVERY_CALL = int(os.environ.get("QUINTET_DISK_STRIDE", "1"))
STEPS = int(os.environ.get("QUINTET_LONG_STEPS", "100000"))
UPDATES = int(os.environ.get("QUINTET_LONG_UPDATES", "1000"))


def python(*arguments: str | Path, **env: str) -> Any:
    """Run a script of tests/faults in a process of its own; its last line is its report."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **env}
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def train(root: Path, *options: str, name: str = "run") -> int:
    torch.set_num_threads(1)
    return main(["train", "--preset", "debug", "--dir", str(root), "--name", name, "--quiet", *options])


@pytest.mark.slow
def test_r1_killed_at_any_instant_a_run_ends_as_if_it_never_was():
    report = python(FAULTS / "interrupt.py", "--kills", str(KILLS))["kills"]
    assert report["kills"] == KILLS


@pytest.mark.slow
def test_r3_a_signal_saves_the_very_step_and_the_second_ctrl_c_stops_at_once():
    report = python(FAULTS / "interrupt.py", "--signals", str(SIGNALS))["signals"]
    assert report["SIGTERM"] + report["SIGINT"] + report["SIGINT twice"] == SIGNALS


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="failing system calls one by one needs Linux' LD_PRELOAD")
@pytest.mark.parametrize("method", ["mpn", "toy", "low", "skills", "rl"])
def test_r4_every_failing_write_is_named_and_costs_nothing(method: str, tmp_path: Path):
    compiler = shutil.which("gcc") or shutil.which("cc")
    assert compiler, "gcc is needed"
    shim = tmp_path / "failio.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", shim, FAULTS / "failio.c", "-ldl"], check=True)
    every = EVERY_CALL if method == "mpn" else 7 * EVERY_CALL  # they write more, and are slower
    report = python(FAULTS / "diskfull.py", str(every), method, LD_PRELOAD=str(shim))
    assert report["stopped"] > 3 * report["harmless"]


# --- R4: folders that cannot be written ------------------------------------------------------------------------------
def test_r4_an_unwritable_place_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "file").write_text("not a folder")
    assert train(tmp_path / "file") == 5
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(tmp_path / "file") in error


# --- R5: numbers that are not ----------------------------------------------------------------------------------------
NAN_ENV = """
import gymnasium, numpy as np
class Sick(gymnasium.Wrapper):
    def __init__(self, what, value):
        super().__init__(gymnasium.make("CartPole-v1")); self.what, self.value, self.count = what, value, 0
    def step(self, action):
        obs, reward, *rest = self.env.step(action); self.count += 1
        if self.count == 60:
            if self.what == "reward": reward = self.value
            else: obs = obs.copy(); obs[2] = self.value
        return obs, reward, *rest
def reward_nan(): return Sick("reward", np.nan)
def reward_inf(): return Sick("reward", np.inf)
def obs_nan(): return Sick("obs", np.nan)
"""


@pytest.mark.parametrize(
    ("factory", "what"),
    [("reward_nan", "reward of env"), ("reward_inf", "reward of env"), ("obs_nan", "observation of env")],
)
def test_r5_a_sick_environment_is_named(
    factory: str, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "sick_env.py").write_text(NAN_ENV)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert train(tmp_path, "--env", f"sick_env:{factory}", "--save-every", "80") == 3
    error = capsys.readouterr().err
    assert what in error
    assert "last good checkpoint: step" in error
    folder = tmp_path / "run"
    dump = next((folder / "analysis").glob("nonfinite_step_*.pt"))
    assert int(dump.stem.split("_")[-1]) <= 60 * 4 + 80  # within one check interval
    steps = checkpoint.Checkpoints(folder / "checkpoints").steps()
    assert steps
    assert checkpoint.nonfinite(checkpoint.load(folder / "checkpoints" / f"step_{steps[-1]:09d}.pt"), "c") is None


@pytest.mark.parametrize("where", ["loss", "gradient", "parameter"])
def test_r5_a_diverging_learner_is_stopped_with_its_last_finite_checkpoint(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from mpn import agent

    begin, calls = random.Random(where).randrange(20, 60), []
    original = agent.recurrent_double_dqn_loss

    def poisoned(q: torch.Tensor, *rest: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) < begin:
            return original(q, *rest, **more)
        if where == "gradient":
            q.register_hook(lambda grad: grad * float("nan"))
        loss, info = original(q, *rest, **more)
        return (loss * float("nan") if where == "loss" else loss), info

    def poisoned_update(self: Any, *arguments: Any) -> Any:
        if where == "parameter" and len(calls) == begin:
            self.nets.online.q_head.bias.data[0] = float("inf")
        batches.append({name: np.asarray(value).copy() for name, value in arguments[0].items()})
        return update(self, *arguments)

    update, batches = agent.Agent.update, list[dict[str, Any]]()
    monkeypatch.setattr(agent, "recurrent_double_dqn_loss", poisoned)
    monkeypatch.setattr(agent.Agent, "update", poisoned_update)
    assert train(tmp_path, "--save-every", "80", "--train-freq", "4") == 3
    error = capsys.readouterr().err
    assert {"loss": "loss", "gradient": "gradient", "parameter": "q_head.bias"}[where] in error
    for path in (tmp_path / "run" / "checkpoints").glob("step_*.pt"):
        assert checkpoint.nonfinite(checkpoint.load(path)["parts"], "parts") is None
    dump = torch.load(next((tmp_path / "run" / "analysis").glob("nonfinite_step_*.pt")), weights_only=True)
    for name, value in batches[-1].items():
        np.testing.assert_array_equal(dump["batch"][name], value)  # of the very update


def test_r5_a_runaway_hebbian_matrix_is_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options = ("--activation", "linear", "--eta", "5", "--lambda-decay", "0.99", "--train-freq", "1000000")
    assert train(tmp_path, *options) == 3
    assert "max|M|" in capsys.readouterr().err


# --- R6: files of others ---------------------------------------------------------------------------------------------
class Payload:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


def replace_signed(path: Path, state: Any) -> None:
    """Write a hostile checkpoint with a right checksum over `path`."""
    import hashlib

    torch.save(state, path)
    raw = bytearray(path.read_bytes())
    raw[-2:] = (71).to_bytes(2, "little")
    path.write_bytes(bytes(raw) + b"sha256:" + hashlib.sha256(raw).hexdigest().encode())


@pytest.mark.parametrize("verb", [["train", "--preset", "debug"], ["eval"], ["render"]])
def test_r6_a_hostile_checkpoint_runs_nothing(verb: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert train(tmp_path, "--total-steps", "320") == 0
    for path in (tmp_path / "run" / "checkpoints").glob("step_*.pt"):
        replace_signed(path, {"format": 1, "step": 320, "parts": Payload(tmp_path / "pwned")})
    assert main([*verb, "--dir", str(tmp_path), "--name", "run"]) == 4
    assert not (tmp_path / "pwned").exists()
    assert "Traceback" not in capsys.readouterr().err


def test_r6_a_hostile_yaml_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config = tmp_path / "c.yaml"
    config.write_text(f"name: !!python/object/apply:os.system ['touch {tmp_path}/pwned']\n")
    assert train(tmp_path, "--config", str(config)) == 2
    assert not (tmp_path / "pwned").exists()


def test_r6_names_cannot_leave_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name in ("../outside", "/tmp/outside", "a/b", ".."):
        assert train(tmp_path / "runs", name=name) == 2
    assert not (tmp_path / "outside").exists()


def test_r6_a_link_out_of_the_run_is_not_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name in ("a", "b"):
        train(tmp_path, "--total-steps", "320", name=name)
    best = tmp_path / "a" / "checkpoints" / "best_model.pt"
    best.unlink()
    best.symlink_to(tmp_path / "b" / "checkpoints" / "step_000000320.pt")
    assert main(["eval", "--dir", str(tmp_path), "--name", "a"]) == 4
    assert "outside" in capsys.readouterr().err


# --- R7: long runs ---------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_r7_memory_files_and_threads_stay_flat():
    report = python(FAULTS / "longrun.py", "mpn", str(STEPS))
    assert report["mib_per_1e5_steps"] <= 1.0, report
    assert report["largest_step_mib"] <= 4.0, report
    assert report["file_descriptors"][0] == report["file_descriptors"][1], report
    assert report["threads"][0] == report["threads"][1], report


@pytest.mark.slow
def test_r7_many_updates_of_a_world_model_stay_flat():
    """Two updates in a row may meet on a new peak; over the run nothing may grow."""
    report = python(FAULTS / "longrun.py", "prismatic", str(UPDATES))
    first, last = report["mib"]
    assert last <= 1.02 * first, report
    assert UPDATES < 100_000 or report["mib_per_1e5_steps"] <= 1.0, report  # over fewer no slope can be told
    assert report["file_descriptors"][0] == report["file_descriptors"][1], report
    assert report["threads"][0] == report["threads"][1], report


# --- R8: damage ------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    assert train(root, "--total-steps", "320") == 0
    return root


@pytest.mark.parametrize("file", ["config.json", "metrics.jsonl"])
def test_r8_mutated_json_is_an_error_of_one_line_or_harmless(
    file: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """100 damaged files each: no traceback, no crash; what is accepted still means the same."""
    rng, verb = random.Random(file), {"config.json": "eval", "metrics.jsonl": "plot training"}[file]
    shutil.copytree(finished, tmp_path / "x", symlinks=True)
    path = tmp_path / "x" / "run" / file
    raw = path.read_bytes()
    for _ in range(100):
        mutant = bytearray(raw)
        place = rng.randrange(len(mutant))
        match rng.randrange(4):
            case 0:
                mutant[place] ^= 1 << rng.randrange(8)
            case 1:
                del mutant[place:]
            case 2:
                mutant[place : place + 4] = rng.choice([b"NaN", b"null", b"1e999", b"\xff\xfe", b"{}", b'"a"'])
            case 3:
                mutant = bytearray(rng.choice([b"", b"[]", b"null", b"{}", b"\x00" * 20]))
        path.write_bytes(mutant)
        if verb == "eval":
            code = main([*verb.split(), "--dir", str(tmp_path / "x"), "--name", "run", "--num-eval-episodes", "1"])
        else:
            code = main([*verb.split(), "--dir", str(tmp_path / "x"), "--name", "run"])
        assert code in (0, 2, 4), (code, bytes(mutant)[:200])
        assert "Traceback" not in capsys.readouterr().err


# --- R9: two owners --------------------------------------------------------------------------------------------------
def test_r9_a_second_process_is_refused_with_the_owner_s_name(tmp_path: Path):
    command = [sys.executable, "-m", "mpn", "train", "--preset", "debug", "--dir", str(tmp_path), "--name", "run"]
    command += ["--total-steps", "1000000", "--quiet"]
    first = subprocess.Popen(command)
    try:
        while not (tmp_path / "run" / "metrics.jsonl").exists():
            assert first.poll() is None
        second = subprocess.run(command, capture_output=True, text=True)
        assert second.returncode == 2
        assert f"process {first.pid} on " in second.stderr
        assert second.stderr.count("\n") == 1
    finally:
        first.kill()
        first.wait()
    assert (
        train(tmp_path, "--total-steps", "1000000", "--num-episodes", "5") == 0
    )  # the dead owner's lock is no obstacle


# --- R12: other versions, other configurations -----------------------------------------------------------------------
def test_r12_a_checkpoint_of_the_first_format_loads_for_ever():
    """tests/faults/format1.pt was written by version 1.0.0 and must never be written again."""
    state = checkpoint.load(FAULTS / "format1.pt")
    assert state["step"] == 320
    from mpn.model import MPNDQN

    net = MPNDQN(**state["parts"]["agent"]["model"])
    net.load_state_dict(state["parts"]["agent"]["online"])
    q, _ = net(torch.ones(1, 4), net.init_state(1))
    np.testing.assert_allclose(q.detach().numpy(), state["probe"].numpy(), rtol=1e-5)


def test_r12_a_checkpoint_of_another_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    train(tmp_path, "--total-steps", "320", "--hidden-dim", "8", name="a")
    train(tmp_path, "--total-steps", "320", "--hidden-dim", "9", name="b")
    for path in (tmp_path / "a" / "checkpoints").glob("step_*.pt"):
        shutil.copy(tmp_path / "b" / "checkpoints" / path.name, path)
    assert train(tmp_path, "--total-steps", "640", "--hidden-dim", "8", name="a") == 4
    assert "size mismatch" in capsys.readouterr().err
