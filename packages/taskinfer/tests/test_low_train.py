"""`low train` as a whole: its files, resuming to the bit, sick bodies."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from stopped_runs import evaluation_is_given_up, final, global_generators, rows, same

from rlcore import checkpoint
from rlcore.files import read_json
from rlcore.run import Run
from taskinfer.cli import main
from taskinfer.run.saved import open_low

PARTS = ("agent", "envs", "tasks", "first", "watch", "buffer")


def train(root: Path, name: str, *options: str, code: int = 0) -> Path:
    assert main(["low", "train", "--preset", "debug", "--dir", str(root), "--name", name, "--quiet", *options]) == code
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


@pytest.mark.parametrize(
    ("body", "stop"),  # before the first, in the random steps, in the middle of episodes, soon after a checkpoint
    [("tiny_bodies:slider", 0), ("tiny_bodies:slider", 76), ("cheetah", 333), ("tiny_bodies:slider", 612)],
)
def test_half_and_half_is_whole(body: str, stop: int, tmp_path: Path, stop_at: Any):
    whole = train(tmp_path, "whole", "--body", body)
    stop_at(stop)
    train(tmp_path, "halves", "--body", body, code=85)
    halves = train(tmp_path, "halves", "--body", body)
    assert rows(halves) == rows(whole)
    assert rows(halves, "eval") == rows(whole, "eval")
    a, b = final(whole), final(halves)
    for part in PARTS:
        same(a[part], b[part], part)
    same(global_generators(whole), global_generators(halves))


def test_a_stop_in_an_evaluation_does_not_wait_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    evaluation_is_given_up(
        lambda name, code: train(tmp_path, name, "--body", "tiny_bodies:slider", code=code),
        "taskinfer.analysis.tracking.summary", monkeypatch,
    )  # fmt: skip


def test_evaluation_and_saving_do_not_touch_training(tmp_path: Path):
    options = ("--body", "tiny_bodies:slider")
    often = train(tmp_path, "often", *options, "--eval-every", "240", "--save-every", "60", "--eval-repeats", "2")
    seldom = train(tmp_path, "seldom", *options, "--eval-every", "100000", "--save-every", "100000")
    same(final(often)["agent"], final(seldom)["agent"])
    assert rows(often) == rows(seldom)


def test_one_seed_one_run_other_seed_other_run(tmp_path: Path):
    options = ("--body", "tiny_bodies:slider", "--eval-every", "100000", "--seed")
    one, again, other = (train(tmp_path, name, *options, seed) for name, seed in (("a", "5"), ("b", "5"), ("c", "6")))
    same(final(one)["agent"], final(again)["agent"])
    assert rows(one) == rows(again) != rows(other)


def test_the_folder_is_complete_and_can_be_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """D17: every group trains on any body, asked for on the command line."""
    folder = train(tmp_path, "run", "--groups", "goal", "velocity", "stand", "jump")
    for name in ("config.json", "env.json", "metrics.jsonl", "status.json", "progress.csv"):
        assert (folder / name).is_file(), name
    table = list(csv.DictReader((folder / "progress.csv").open()))
    assert [row["step"] for row in table] == ["480", "960"]
    for column in ("critic_loss", "alpha", "goal_reached", "jump_error", "score", "updates", "env_steps_per_s"):
        assert table[1][column] != "", column
    assert read_json(folder / "env.json")["stage"] == "low"
    capsys.readouterr()
    assert main(["low", "eval", "--name", "run", "--dir", str(tmp_path), "--repeats", "1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == read_json(folder / "eval.json")
    assert {line["group"] for line in report["targets"]} == {"goal", "velocity", "stand", "jump", "chain"}
    shares = {name: sum(task["returns"]) / len(task["returns"]) for name, task in report["tasks"].items()}
    assert shares == {name: report[f"{name}_reached"] for name in shares}
    assert set(shares) == {line["group"] for line in report["targets"]}
    (folder / "eval.json").unlink()
    (folder / "eval.json").mkdir()  # it cannot be written: the scores are told nevertheless
    assert main(["low", "eval", "--name", "run", "--dir", str(tmp_path), "--repeats", "1"]) == 5
    assert "goal: reached" in capsys.readouterr().out
    saved = open_low(folder)
    assert saved.low.groups == ("goal", "velocity", "stand", "jump")
    assert saved.step == report["step"]


def test_what_is_no_low_level_run_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = train(tmp_path, "run", "--steps", "480")
    assert main(["low", "eval", "--name", "rum", "--dir", str(tmp_path)]) == 2
    assert "there is no run" in capsys.readouterr().err
    environment = read_json(folder / "env.json")
    (folder / "env.json").write_text(json.dumps({**environment, "stage": "toy"}))
    assert main(["low", "eval", "--name", "run", "--dir", str(tmp_path)]) == 2
    assert "is no low-level run (its stage is toy)" in capsys.readouterr().err


def test_a_body_that_keeps_breaking_down_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options = ("--body", "tiny_bodies:sick", "--save-every", "80", "--eval-every", "100000")
    train(tmp_path, "run", *options, code=3)
    error = capsys.readouterr().err
    assert "warning: the simulation of body 0 (tiny_bodies:sick, episode 0, reset seed " in error
    assert error.count("warning") == 1
    assert "broke down in 12 of" in error  # 3 steps of 4 bodies
    assert "body 0 (tiny_bodies:sick, episode " in error
    assert "last good checkpoint: step" in error
    folder = tmp_path / "run"
    assert list((folder / "analysis").glob("nonfinite_step_*.pt"))
    for step in checkpoint.Checkpoints(folder / "checkpoints").steps():
        state = checkpoint.load(folder / "checkpoints" / f"step_{step:09d}.pt")
        assert checkpoint.nonfinite(state["parts"], "parts") is None


def test_a_body_that_breaks_down_once_is_said_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options = ("--body", "tiny_bodies:sick_once", "--num-envs", "1", "--steps", "480", "--eval-every", "100000")
    folder = train(tmp_path, "run", *options)
    assert "was begun anew" in capsys.readouterr().err
    assert rows(folder)[-1]["broken_steps"] == 1


def test_a_learner_that_diverges_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from rlblocks.sac import SAC

    update = SAC.update

    def sick(self: SAC, *arguments: Any, **options: Any) -> Any:
        metrics = update(self, *arguments, **options)
        if self.updates == 30:
            self.critic.parameters.detach()[:] = float("nan")
        return metrics

    monkeypatch.setattr(SAC, "update", sick)
    train(tmp_path, "run", "--body", "tiny_bodies:slider", code=3)
    error = capsys.readouterr().err
    assert "critic_loss" in error
    assert "is not finite" in error
