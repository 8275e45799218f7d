"""Opening runs of any stage, and what is said where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rlcore.checkpoint import load, save
from rlcore.errors import DataError, UsageError
from taskinfer.cli import main
from taskinfer.run.saved import open_low, open_toy, stage_of


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("toy")
    words = "toy train --preset debug --name t --quiet --seed 7 --dir"
    assert main([*words.split(), str(root)]) == 0
    return root / "t"


def test_an_opened_agent_is_the_one_that_was_saved(toy: Path):
    saved = open_toy(toy, "last")
    kept = load(toy / "checkpoints" / "last.pt")["parts"]["agent"]
    assert (saved.step, saved.cfg.seed, saved.cfg.arm) == (640, 7, "inferred")
    stream = saved.agent.inference.stream(2)
    saved.agent.inference.update(stream, np.ones((2, 2)), np.zeros(2), np.ones((2, 2)))
    for name, value in kept["inference"]["slow"].items():
        assert torch.equal(saved.agent.inference.slow.state_dict()[name], value), name
    assert torch.equal(saved.agent.sac.state_dict()["actor"], kept["sac"]["actor"])


def test_what_is_no_such_run_is_said(toy: Path):
    with pytest.raises(UsageError, match=r"there is no run .*u; did you mean|there is no run .*holds t"):
        stage_of(toy.parent / "u")
    with pytest.raises(UsageError, match=r"no low-level run \(its stage is toy\): see `taskinfer low train`"):
        open_low(toy)
    with pytest.raises(UsageError, match="expected best, final, last"):
        open_toy(toy, "first")


def test_a_checkpoint_of_something_else_is_named(toy: Path, tmp_path: Path):
    state = load(toy / "checkpoints" / "last.pt")
    del state["parts"]["agent"]["sac"]
    save(tmp_path / "x.pt", state)
    with pytest.raises(DataError, match=r"x\.pt is not one of a toy agent: 'sac'"):
        open_toy(toy, str(tmp_path / "x.pt"))
