"""A real learning run, in seconds: Hebbian memory solves a short T-maze that the same net without it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mpn.cli import main

TASK = "mpn/TMaze-v0:length=4"


def score(root: Path, core: str, seed: int) -> float:
    """Greedy return of the best checkpoint on 200 episodes that training never saw."""
    torch.set_num_threads(1)
    where = ["--dir", str(root), "--name", f"{core}-{seed}"]
    options = ["--env", TASK, "--core", core, "--seed", str(seed), "--total-steps", "12000", "--sequence-length", "10"]
    assert main(["train", *where, *options, "--eval-every", "2000", "--epsilon-fraction", "0.3", "--quiet"]) == 0
    assert main(["eval", *where, "--num-eval-episodes", "200"]) == 0
    return float(json.loads((root / f"{core}-{seed}" / "eval.json").read_text())["return_mean"])


@pytest.mark.learn
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_plastic_core_solves_a_short_t_maze(seed: int, tmp_path: Path):
    assert score(tmp_path, "mpn", seed) >= 0.95


@pytest.mark.learn
def test_without_plasticity_it_stays_at_chance(tmp_path: Path):
    """Chance is 0, with a standard error of 0.07 over 200 episodes of +1 or -1."""
    assert abs(score(tmp_path, "mpn-frozen", 0)) <= 0.25
