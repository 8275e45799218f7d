"""Opening runs of any stage, and what is said where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rlcore.checkpoint import load, save
from rlcore.errors import DataError, UsageError
from taskinfer.run.saved import open_low, open_toy, stage_of


def test_an_opened_agent_is_the_one_that_was_saved(toy_run: Path):
    saved = open_toy(toy_run, "last")
    kept = load(toy_run / "checkpoints" / "last.pt")["parts"]["agent"]
    assert (saved.step, saved.cfg.seed, saved.cfg.arm) == (640, 7, "inferred")
    stream = saved.agent.inference.stream(2)
    saved.agent.inference.update(stream, np.ones((2, 2)), np.zeros(2), np.ones((2, 2)))
    for name, value in kept["inference"]["slow"].items():
        assert torch.equal(saved.agent.inference.slow.state_dict()[name], value), name
    assert torch.equal(saved.agent.sac.state_dict()["actor"], kept["sac"]["actor"])


def test_what_is_no_such_run_is_said(toy_run: Path):
    with pytest.raises(UsageError, match=r"there is no run .*holds run"):
        stage_of(toy_run.parent / "x")
    with pytest.raises(UsageError, match=r"no low-level run \(its stage is toy\): see `taskinfer low train`"):
        open_low(toy_run)
    with pytest.raises(UsageError, match="expected best, final, last"):
        open_toy(toy_run, "first")


def test_a_checkpoint_of_something_else_is_named(toy_run: Path, tmp_path: Path):
    state = load(toy_run / "checkpoints" / "last.pt")
    del state["parts"]["agent"]["sac"]
    save(tmp_path / "x.pt", state)
    with pytest.raises(DataError, match=r"x\.pt is not one of a toy agent: 'sac'"):
        open_toy(toy_run, str(tmp_path / "x.pt"))
