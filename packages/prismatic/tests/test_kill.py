"""R1: a process that is killed, at any moment and without a chance to save, goes on to the same end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from rlcore import checkpoint

CLOCKS = {"wall_s", "cpu_s", "env_steps_per_s", "updates_per_s", "rss_mib"}


def command(root: Path, name: str) -> list[str]:
    options = "--preset debug --save-every 10 --eval-every 1000 --steps 90 --quiet --name".split()
    return [sys.executable, "-m", "prismatic", "train", "--dir", str(root), *options, name]


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in row.items() if key not in CLOCKS} for row in lines]


@pytest.mark.slow
def test_killed_again_and_again_it_ends_the_same(tmp_path: Path):
    environ = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command(tmp_path, "whole"), check=True, env=environ, capture_output=True)
    steps, folder = [], tmp_path / "killed" / "checkpoints"
    for wanted in (20, 50, 70):  # the first falls into the random steps, the second among the updates they are worth
        child = subprocess.Popen(
            command(tmp_path, "killed"), env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        deadline = time.monotonic() + 120
        while child.poll() is None and time.monotonic() < deadline:
            steps = sorted(int(path.stem.removeprefix("step_")) for path in folder.glob("step_*.pt"))
            if steps and steps[-1] >= wanted:
                break
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL, child.stderr.read().decode() if child.stderr else ""
    done = subprocess.run(command(tmp_path, "killed"), env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    ends = [
        checkpoint.load(tmp_path / name / "checkpoints" / "final.pt")["parts"]["agent"] for name in ("whole", "killed")
    ]
    for name, value in ends[0]["model"].items():
        assert torch.equal(value, ends[1]["model"][name]), name
