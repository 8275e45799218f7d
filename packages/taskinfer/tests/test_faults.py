"""R1, R3, R5 of docs/reliability.md for both trainings: kills and signals of real processes, numbers that are not."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from stopped_runs import killed_ends_the_same, signal_saves_the_step

from rlblocks.sac import SAC
from rlcore import checkpoint
from taskinfer.cli import main
from taskinfer.inference import Inference

ENDLESS = {"toy train": ("--total-steps", "8000000"), "low train": ("--steps", "8000000")}


def debug(verb: str) -> list[str]:
    """A run that saves at every 80 steps."""
    return f"taskinfer {verb} --preset debug --save-every 80 --eval-every 100000".split()


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "at"), [("toy train", (80, 240, 480)), ("low train", (80, 240, 640))])
def test_killed_again_and_again_it_ends_the_same(verb: str, at: tuple[int, ...], tmp_path: Path):
    killed_ends_the_same(debug(verb), tmp_path, at)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 85), (signal.SIGINT, 130)])
@pytest.mark.parametrize("verb", list(ENDLESS))
def test_a_signal_saves_the_very_step(verb: str, number: signal.Signals, code: int, tmp_path: Path):
    assert signal_saves_the_step([*debug(verb), *ENDLESS[verb]], tmp_path, number, 80) == code


def checkpoints_are_finite(folder: Path) -> None:
    saved = checkpoint.Checkpoints(folder / "checkpoints")
    assert saved.steps()
    for step in saved.steps():
        state = checkpoint.load(saved.path(step))
        assert checkpoint.nonfinite(state["parts"], "parts") is None, step


@pytest.mark.parametrize("what", ["policy", "inference"])
def test_a_toy_learner_that_diverges_is_stopped_and_named(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """One bad loss of the inference model is skipped and counted; nothing but bad ones ends the run."""
    update, loss = SAC.update, Inference.loss

    def sick_policy(self: SAC, *arguments, **options):
        metrics = update(self, *arguments, **options)
        if self.updates == 10:
            self.critic.parameters.detach()[:] = float("nan")
        return metrics

    def sick_inference(self: Inference, *arguments):
        total, parts = loss(self, *arguments)
        return (total * float("nan") if self.updates == 4 or self.updates >= 8 else total), parts

    if what == "policy":
        monkeypatch.setattr(SAC, "update", sick_policy)
    else:
        monkeypatch.setattr(Inference, "loss", sick_inference)
    words = "toy train --preset debug --quiet --save-every 80 --eval-every 100000 --name run --dir"
    assert main([*words.split(), str(tmp_path)]) == 3
    error = capsys.readouterr().err
    said = {"policy": "critic_loss", "inference": "the loss of all 2 updates of the inference model"}[what]
    assert said in error
    assert "last good checkpoint: step" in error
    assert list((tmp_path / "run" / "analysis").glob("nonfinite_step_*.pt"))
    checkpoints_are_finite(tmp_path / "run")
    if what == "inference":
        newest = checkpoint.Checkpoints(tmp_path / "run" / "checkpoints").newest_first()
        assert float(next(iter(newest))["parts"]["agent"]["inference"]["skipped"]) >= 1
