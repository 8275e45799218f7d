"""`taskinfer config`: what is printed is what a run would have, and what a run had."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlcore.config import to_dict
from taskinfer.cli import main
from taskinfer.config import LowConfig, ToyConfig


def write_run(folder: Path, cfg: ToyConfig | LowConfig, stage: str, program: str = "taskinfer") -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"program": program, "config": to_dict(cfg)}))
    (folder / "env.json").write_text(json.dumps({"stage": stage}))
    return folder


def test_what_is_shown_can_be_read_back_and_marks_what_is_changed(tmp_path: Path, capsys):
    asked = ["config", "show", "toy", "--preset", "debug", "--inference.lr", "1e-5", "wandb=off", "--name", "no"]
    assert main(asked) == 0
    shown = capsys.readouterr().out
    assert "  lr: 1.0e-05  # default: 0.002\n" in shown
    assert "  hidden: [8, 8]  # default: [128, 128]\n" in shown
    assert "gamma: 0.97\n" in shown
    (tmp_path / "mine.yaml").write_text(shown)
    assert main(["config", "show", "toy", "--config", str(tmp_path / "mine.yaml")]) == 0
    assert capsys.readouterr().out == shown
    assert main(["config", "show", "low", "--groups", "jump"]) == 0
    assert "groups: [jump]  # default: [goal, velocity]\n" in capsys.readouterr().out


def test_a_runs_options(tmp_path: Path, capsys):
    folder = write_run(tmp_path / "a", LowConfig(gamma=0.5, name="a"), "low")
    assert main(["config", "show", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "gamma: 0.5  # default: 0.98\n" in shown
    assert "utd: 0.5\n" in shown


def test_two_runs_side_by_side(tmp_path: Path, capsys):
    a = write_run(tmp_path / "a", ToyConfig(name="a", seed=3, arm="none"), "toy")
    b = write_run(tmp_path / "b", ToyConfig(name="b", dir=tmp_path, arm="oracle"), "toy")
    assert main(["config", "diff", str(a), str(b), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"seed": [3, 0], "arm": ["none", "oracle"]}
    assert main(["config", "diff", str(b)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [["option", str(b), "defaults"], ["arm", "oracle", "inferred"]]
    assert main(["config", "diff", str(a), str(a)]) == 0
    assert capsys.readouterr().out == "no differences\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("body check cheetah --steps 0", "steps: must be in 1 .. 16,777,215, got 0"),
        ("body check cheetah --seed -1", "seed: must not be negative, got -1"),
        ("low eval --name x --repeats 0", "repeats: must be in 1 .. 1,048,575, got 0"),
        ("low eval --name x --seed-base -1", "seed_base: must not be negative"),
        ("toy eval --name x --seed-base -1", "seed_base: must not be negative"),
        ("eval causality x --seed-base -1", "seed_base: must not be negative"),
        ("plot latent x --seed-base -1", "seed_base: must not be negative"),
        ("transfer reuse --inference a --low b --save-every 5", "--save-every"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_looked_for(words: str, said: str, capsys):
    assert main(words.split()) == 2
    text = capsys.readouterr().err
    assert said in text
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["show", "{}/nowhere"], 2, "there is no run"),
        (["show", "{}/other"], 4, "not the configuration of a taskinfer run"),
        (["show", "toy", "--gama", "1"], 2, "did you mean --gamma"),
        (["diff", "{}/strange"], 2, "name a second run"),
        (["diff"], 2, "required"),
    ],
)
def test_mistakes_are_one_line(words: list[str], code: int, said: str, tmp_path: Path, capsys):
    write_run(tmp_path / "other", ToyConfig(), "toy", program="mpn")
    write_run(tmp_path / "strange", ToyConfig(), "transfer of the future")
    assert main(["config", *(word.format(tmp_path) for word in words)]) == code
    text = capsys.readouterr().err
    assert said in text
    assert text.count("\n") == 1
