"""R2, R14: a run that is stopped and goes on is the run that was never stopped; a seed decides everything."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from stopped_runs import evaluation_is_given_up, final, global_generators, rows, same

from mpn.cli import main
from mpn.run import train as train_module
from mpn.run.history import History
from rlcore.run import Run

CORES = ["mpn", "mpn-frozen", "rnn", "gru", "lstm"]


def train(root: Path, name: str, *options: str, code: int = 0) -> Path:
    assert main(["train", "--preset", "debug", "--dir", str(root), "--name", name, "--quiet", *options]) == code
    return root / name


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch):
    """Make the next run send itself SIGTERM at an env step, as a scheduler would."""

    def arrange(step_wanted: int) -> None:
        going, sent = Run.going, []

        def counted(self: Run, step: int) -> bool:
            if step >= step_wanted and not sent:
                sent.append(step)
                os.kill(os.getpid(), signal.SIGTERM)
            return going(self, step)

        monkeypatch.setattr(Run, "going", counted)

    return arrange


@pytest.mark.parametrize(("core", "stop"), [(CORES[0], 0), *((core, 333) for core in CORES)])
def test_half_and_half_is_whole(core: str, stop: int, tmp_path: Path, stop_at: Any):
    whole = train(tmp_path, "whole", "--core", core)
    stop_at(stop)
    train(tmp_path, "halves", "--core", core, code=85)
    halves = train(tmp_path, "halves", "--core", core)
    assert rows(halves) == rows(whole)
    assert rows(halves, "eval") == rows(whole, "eval")
    a, b = final(whole), final(halves)
    for part in ("agent", "envs", "buffer", "stats", "history", "watch"):
        same(a[part], b[part], part)
    same(global_generators(whole), global_generators(halves))
    assert json.loads((whole / "training_history.json").read_text()) == json.loads(
        (halves / "training_history.json").read_text()
    )


def test_a_stop_in_an_evaluation_does_not_wait_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    evaluation_is_given_up(lambda name, code: train(tmp_path, name, code=code), "mpn.run.train.evaluate", monkeypatch)


@pytest.mark.parametrize("env", ["mpn/TMaze-v0", "mpn/DelayedMatch-v0", "Acrobot-v1"])
def test_every_kind_of_env_resumes_in_the_middle_of_an_episode(env: str, tmp_path: Path, stop_at: Any):
    options = ("--env", env, "--total-steps", "480")
    whole = train(tmp_path, "whole", *options)
    stop_at(252)
    train(tmp_path, "halves", *options, code=85)
    halves = train(tmp_path, "halves", *options)
    assert rows(halves) == rows(whole)
    same(final(whole)["agent"], final(halves)["agent"])


def test_evaluation_and_saving_do_not_touch_training(tmp_path: Path):
    often = train(
        tmp_path, "often", "--eval-every", "40", "--save-every", "60", "--eval-episodes", "3", "--tensorboard"
    )
    seldom = train(tmp_path, "seldom", "--eval-every", "100000", "--save-every", "100000")
    same(final(often)["agent"], final(seldom)["agent"])
    assert rows(often) == rows(seldom)


@pytest.mark.parametrize(("choice", "code"), [("stop", 5), ("continue", 0)])
def test_a_disk_too_full_for_the_history_stops_a_run_or_does_not(
    choice: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def full(self: History) -> None:
        raise OSError(28, "No space left on device", "history.json")

    monkeypatch.setattr(History, "write", full)
    train(tmp_path, "run", "--on-save-error", choice, code=code)
    assert "No space left on device" in capsys.readouterr().err


def test_one_seed_one_run_other_seed_other_run(tmp_path: Path):
    one, again, other = (train(tmp_path, name, "--seed", seed) for name, seed in (("a", "5"), ("b", "5"), ("c", "6")))
    same(final(one)["agent"], final(again)["agent"])
    assert rows(one) == rows(again) != rows(other)


def test_two_threads_learn_the_same_to_rounding(tmp_path: Path):
    """Documented tolerance: sums in another order, so equal to about 1e-4 over a short run."""
    one = final(train(tmp_path, "one", "--threads", "1"))["agent"]["online"]
    two = final(train(tmp_path, "two", "--threads", "2"))["agent"]["online"]
    torch.set_num_threads(1)
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-4)


def test_another_thread_count_goes_on_and_says_so(tmp_path: Path, stop_at: Any, capsys: pytest.CaptureFixture[str]):
    stop_at(333)
    train(tmp_path, "run", code=85)
    train(tmp_path, "run", "--threads", "2")
    torch.set_num_threads(1)
    assert "threads: 1 -> 2" in capsys.readouterr().err


def test_without_saved_replay_a_resumed_run_refills_first(tmp_path: Path, stop_at: Any):
    stop_at(333)
    train(tmp_path, "run", "--no-save-replay", code=85)
    folder = train(tmp_path, "run", "--no-save-replay")
    assert not list((folder / "replay").iterdir())
    updates = [row["updates"] for row in rows(folder)]
    assert updates[4] == updates[3] + 0 or updates[4] - updates[3] < 5


def test_a_longer_run_goes_on_from_a_finished_one(tmp_path: Path):
    train(tmp_path, "run")
    folder = train(tmp_path, "run", "--total-steps", "960")
    assert rows(folder)[-1]["step"] == 960
    assert train_module.LINKS["final"][1] in {p.name for p in (folder / "checkpoints").iterdir()}


def test_changed_options_are_refused_with_the_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    train(tmp_path, "run")
    train(tmp_path, "run", "--eta", "0.2", code=2)
    error = capsys.readouterr().err
    assert "eta: 0.05 -> 0.2" in error
    assert error.count("\n") == 1
