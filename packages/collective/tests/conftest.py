"""Helpers lie beside the tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pytest

from collective.cli import main


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mixed behaviour on the toys."""
    root = tmp_path_factory.mktemp("data")
    words = "record --preset debug --steps 500 --noise 0.4 --quiet --name toy --dir"
    assert main([*words.split(), str(root)]) == 0
    return root / "toy"


@pytest.fixture(scope="session")
def toy_encoder(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder that has hardly learnt anything."""
    root = tmp_path_factory.mktemp("encoder")
    words = ["train-encoder", "--preset", "debug", "--quiet", "--name", "toy", "--dir", str(root)]
    assert main([*words, "--data", str(toy_data)]) == 0
    return root / "toy"


@pytest.fixture(scope="session")
def toy_collective(toy_data: Path, toy_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three policies, distilled a little from that, with one round."""
    root = tmp_path_factory.mktemp("collective")
    words = ["distill", "--preset", "debug", "--quiet", "--name", "toy", "--dir", str(root)]
    assert main([*words, "--data", str(toy_data), "--encoder", str(toy_encoder)]) == 0
    return root / "toy"
