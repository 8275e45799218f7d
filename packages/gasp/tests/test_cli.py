"""The command line: help without heavy imports, presets, doctor, and what a wrong word is told."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest
import yaml

from gasp import cli
from gasp.config_skills import SkillsConfig
from gasp.run import doctor
from rlcore.config import from_dict
from rlcore.doctor import Check
from rlcore.errors import EnvironmentProblem

HEAVY = ("torch", "mujoco", "gymnasium", "h5py", "matplotlib")


def test_help_of_every_verb_loads_nothing_heavy():
    lines = [
        "import sys, io, contextlib", "from gasp import cli",
        "for verb in cli.VERBS:",
        "    with contextlib.redirect_stdout(io.StringIO()) as said:",
        "        assert cli.main([*verb.split(), '--help']) == 0, verb",
        "    assert 'usage: gasp ' + verb in said.getvalue(), verb",
        f"print([name for name in {HEAVY} if name in sys.modules])",
    ]  # fmt: skip
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_verb_leads_to_a_function():
    from pkgutil import resolve_name

    for summary, config, function in cli.VERBS.values():
        assert summary.endswith(".")
        assert resolve_name(config).__doc__
        assert callable(resolve_name(function))


def test_presets_are_listed_and_printed_as_files(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["presets"]) == 0
    assert "kitchen/gasp" in capsys.readouterr().out
    assert cli.main(["presets", "--json"]) == 0
    names = json.loads(capsys.readouterr().out)
    for name, verbs in names.items():
        assert cli.main(["presets", name]) == 0
        text = capsys.readouterr().out
        assert all(f"# gasp {verb} --preset {name}\n" in text for verb in verbs)
        assert all(isinstance(yaml.safe_load(part), dict) for part in re.split(r"(?m)^# .*$", text)[1:])
    assert cli.main(["presets", "maze/spirl", "--json"]) == 0
    options = json.loads(capsys.readouterr().out)["skills train"]
    assert from_dict(SkillsConfig, options, "preset").latent_prior == "gaussian"
    assert cli.main(["presets", "maze/gsap"]) == 2
    assert "did you mean maze/gasp" in capsys.readouterr().err


def test_doctor_says_how_fast_environments_step_and_what_does_not_open(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(doctor, "SECONDS", 0.01)
    assert "toy: " in doctor.stepping("toy").what

    def too_new(*_: Any, **__: Any) -> Any:
        raise EnvironmentProblem("FrankaKitchen needs mujoco<3.12, found 4.0.0")

    monkeypatch.setattr("gasp.envs.make", too_new)
    assert doctor.stepping("kitchen") == Check(
        "fail", "kitchen: FrankaKitchen needs mujoco<3.12, found 4.0.0",
        "in a checkout: uv pip install './packages/gasp[robotics]'",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("data colect toy", 2, "did you mean data collect"),
        ("data collect maze --transitions 0", 2, "transitions: must be in 1"),
        ("data collect toy --out x.txt", 2, "out: expected a name that ends in .h5"),
        ("data collect kitchen --subtasks 5", 2, "subtasks: must be in 1 .. 4, got 5"),
        ("data inspect nowhere.h5", 4, "nowhere.h5 does not exist"),
        ("data tune --subtask hinge_cabinett", 2, "did you mean hinge cabinet"),
    ],
)
def test_a_wrong_word_is_one_line(words: str, code: int, said: str, capsys: pytest.CaptureFixture[str]):
    assert cli.main(words.split()) == code
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
