"""Skills in the kitchen: what its subtasks add to a run, with skills that know nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stopped_runs import rows

from gasp.cli import main
from rlcore.files import read_json

pytest.importorskip("gymnasium_robotics")


@pytest.fixture(scope="module")
def kitchen_skills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Skills from random robot movements as if they were demonstrations, hardly trained."""
    import numpy as np

    from gasp import data

    root, rng = tmp_path_factory.mktemp("kitchen"), np.random.default_rng(0)
    episodes = [(rng.normal(size=(31, 30)), rng.uniform(-1, 1, (30, 9))) for _ in range(4)]
    meta = {"task": "kitchen-complete", "obs_mode": "state30", "labels": []}
    data.save(root / "kitchen.h5", data.Demos.of(episodes, meta))
    words = f"skills train --preset debug --data {root / 'kitchen.h5'} --quiet --name skills --dir {root}"
    assert main(words.split()) == 0
    return root / "skills"


def test_subtasks_are_counted_and_shown(kitchen_skills: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options = "--task kitchen-complete --steps 300 --num-envs 2 --warmup 100 --eval-episodes 1 --eval-every 100000"
    words = f"rl train --preset debug --skills {kitchen_skills} --quiet --name run --dir {tmp_path} {options}"
    assert main([*words.split(), "--task-order", "enforced", "--log-every", "100"]) == 0
    facts, evaluated = read_json(tmp_path / "run" / "env.json"), rows(tmp_path / "run", "eval")
    assert facts["subtasks"] == ["microwave", "kettle", "light switch", "slide cabinet"]
    assert (facts["obs_mode"], facts["obs_dim"]) == ("state30", 30)
    assert {"subtasks_mean", "done_light_switch", "drawn_subtasks_mean"} <= evaluated[0].keys()
    assert not (tmp_path / "run" / "plots" / "visits.png").exists()  # there is no plane
    capsys.readouterr()
    assert main(["rl", "eval", "--dir", str(tmp_path), "--name", "run", "--episodes", "1", "--json"]) == 0
    kinds = json.loads(capsys.readouterr().out)["kinds"]
    assert set(kinds["mean"]["subtasks"]) == set(facts["subtasks"])


def test_skills_of_another_view_see_their_own(kitchen_skills: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = f"rl train --preset debug --skills {kitchen_skills} --name run --dir {tmp_path} --task maze-medium:3,4"
    assert main(words.split()) == 2
    assert "obs_mode is state30 in the skills, point in the task" in capsys.readouterr().err
