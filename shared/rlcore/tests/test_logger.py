"""The record of a run: whole rows or none, cut back on resume; meters; phases; mirrors."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from rlcore.errors import EnvironmentProblem, QuintetWarning
from rlcore.logger import Console, Meters, Mirrors, Phases, Record, duration


def test_rows_come_back(tmp_path: Path):
    record = Record(tmp_path / "m.jsonl")
    rows = [{"kind": "train", "step": i, "loss": i / 3} for i in range(5)]
    for row in rows:
        record.append(row)
    assert record.sync() == (tmp_path / "m.jsonl").stat().st_size
    assert [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()] == rows


def test_resume_cuts_back_to_the_checkpoint(tmp_path: Path):
    record = Record(tmp_path / "m.jsonl")
    record.append({"step": 1})
    length = record.sync()
    record.append({"step": 2})
    record.close()
    again = Record(tmp_path / "m.jsonl", length)
    again.append({"step": 3})
    assert [json.loads(line)["step"] for line in (tmp_path / "m.jsonl").read_text().splitlines()] == [1, 3]


def test_a_failed_write_leaves_no_half_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    record = Record(tmp_path / "m.jsonl")
    record.append({"step": 1})
    write = os.pwrite
    calls = []

    def full_disk(file: int, data: bytes, offset: int) -> int:
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return write(file, data[:4], offset)

    monkeypatch.setattr(os, "pwrite", full_disk)
    with pytest.raises(OSError, match="No space"):
        record.append({"step": 2})
    monkeypatch.undo()
    record.append({"step": 3})
    assert [json.loads(line)["step"] for line in (tmp_path / "m.jsonl").read_text().splitlines()] == [1, 3]


def test_a_record_shorter_than_its_checkpoint_is_reported(tmp_path: Path):
    (tmp_path / "m.jsonl").write_text("")
    with pytest.warns(QuintetWarning, match="rows were lost"):
        Record(tmp_path / "m.jsonl", 100)


def test_meters_average_and_survive_a_checkpoint():
    meters, other = Meters(), Meters()
    meters.add({"loss": torch.tensor(1.0), "n": 2.0})
    meters.add({"loss": torch.tensor(3.0)})
    assert meters.mean("loss", 0.0) == 2.0
    assert meters.mean("unseen", 7.0) == 7.0
    other.load_state_dict(meters.state_dict())
    assert other.read() == meters.read() == {"loss": 2.0, "n": 2.0}
    assert meters.read() == {}


def test_phases_share_the_time():
    phases = Phases()
    with phases("act"):
        sum(range(10_000))
    with phases("learn"):
        sum(range(200_000))
    shares = phases.shares(1.0)
    assert list(shares) == ["learn", "act"]
    assert 0 < shares["act"] < shares["learn"] < 1


def test_plain_progress_lines_when_not_a_terminal(capsys: pytest.CaptureFixture[str]):
    console = Console("swift-lynx", 1_000)
    row = {"env_steps_per_s": 50.0, "updates_per_s": 5.0, "return_mean": 12.0}
    console.progress(500, row, {"learn": 0.75, "act": 0.25})
    console.progress(501, row, {})  # within ten seconds: a log file is not flooded
    text = capsys.readouterr().err
    assert text == ("swift-lynx: 500/1,000 steps, return 12.0, 50 steps/s, 5 updates/s, 10s left, learn 75% act 25%\n")


@pytest.mark.parametrize(("seconds", "text"), [(5, "5s"), (72, "1m12s"), (3_725, "1h02m")])
def test_durations(seconds: float, text: str):
    assert duration(seconds) == text


def test_tensorboard_mirrors_rows(tmp_path: Path):
    pytest.importorskip("tensorboardX", reason="optional extra tb not installed")
    mirrors = Mirrors(tmp_path, {}, tensorboard=True, wandb="off")
    mirrors.write({"kind": "eval", "step": 7, "return_mean": 1.5})
    mirrors.close()
    data = b"".join(p.read_bytes() for p in (tmp_path / "tensorboard").iterdir())
    assert b"eval/return_mean" in data


def test_a_missing_mirror_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'rlcore\[wandb\]'"):
        Mirrors(tmp_path, {}, tensorboard=False, wandb="offline")
