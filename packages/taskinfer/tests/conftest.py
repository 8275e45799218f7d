"""Runs that several files of tests look at, each trained once: a tiny toy run, and a low level of a tiny body."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from taskinfer.cli import main

sys.path.insert(0, str(Path(__file__).parent))  # bodies are named as users name theirs: `tiny_bodies:slider`


def trained(root: Path, words: str) -> Path:
    assert main([*words.split(), "--preset", "debug", "--quiet", "--name", "run", "--dir", str(root)]) == 0
    return root / "run"


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Goals and velocities, inferred; 640 steps of seed 7."""
    return trained(tmp_path_factory.mktemp("toy"), "toy train --seed 7")


@pytest.fixture(scope="session")
def low_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slider that follows goals and velocities, badly."""
    return trained(tmp_path_factory.mktemp("low"), "low train --steps 480 --body tiny_bodies:slider")


@pytest.fixture(scope="session")
def transfer_run(toy_run: Path, low_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy run's policy on the slider, for three tasks."""
    words = f"transfer reuse --inference {toy_run} --low {low_run} --high-level toy"
    return trained(tmp_path_factory.mktemp("transfer"), words)
