"""A real learning run, in seconds: the world model learns to steer a point, also where half of the plane turns forces
around. Random actions return 9 of 50."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from prismatic.cli import main

SHORT = "--seed-steps 400 --seed-hold 1 --num-samples 64 --iterations 3 --batch-size 64 --eval-every 10000 --quiet"


@pytest.mark.learn
@pytest.mark.parametrize(
    ("task", "experts", "steps", "bar"),
    # Measured at first: 29 (17 where the replay held each action one step late), 32 and 35.
    [("toy-cross", False, 800, 24), ("toy-cross", True, 1_000, 27)],
    ids=["dense", "experts"],
)
def test_it_learns_to_steer(task: str, experts: bool, steps: int, bar: float, tmp_path: Path):
    torch.set_num_threads(1)
    where = ["--dir", str(tmp_path), "--name", "run"]
    options = ["--preset", "cpu", "--task", task, "--seed", "1", "--steps", str(steps), *SHORT.split()]
    assert main(["train", *where, *options, "--use-moe" if experts else "--no-use-moe"]) == 0
    assert main(["eval", *where, "--checkpoint", "final", "--eval-episodes", "40"]) == 0
    scores = json.loads((tmp_path / "run" / "eval.json").read_text())["tasks"][task]
    assert scores["return_mean"] >= bar, scores
