"""The stages without learning envs, record and distill, as real processes that are killed and signalled."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from collective_datasets import equal
from stopped_runs import killed_ends_the_same, signal_saves_the_step

from collective.data import load


def words_of(stage: str, data: Path, encoder: Path) -> list[str]:
    if stage == "record":
        return "record --preset debug --noise 0.4 --steps 400 --save-every 60".split()
    more = "distill --preset debug --save-every 10 --eval-every 1000000".split()
    return [*more, "--data", str(data), "--encoder", str(encoder)]


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "at"), [("record", (120, 600)), ("distill", (10, 40, 70))])
def test_killed_again_and_again_it_ends_the_same(
    stage: str, at: tuple[int, ...], toy_data: Path, toy_encoder: Path, tmp_path: Path
):
    killed_ends_the_same(["collective", *words_of(stage, toy_data, toy_encoder)], tmp_path, at)
    if stage == "record":
        equal(load(tmp_path / "killed"), load(tmp_path / "whole"))
    else:
        equal(load(tmp_path / "killed" / "rounds" / "1"), load(tmp_path / "whole" / "rounds" / "1"))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 85), (signal.SIGINT, 130)])
def test_a_signal_saves_the_very_step(
    number: signal.Signals, code: int, toy_data: Path, toy_encoder: Path, tmp_path: Path
):
    words = [*words_of("distill", toy_data, toy_encoder), "--updates", "800000"]
    assert signal_saves_the_step(["collective", *words], tmp_path, number, 20) == code
