"""Runs that several files of tests look at, each trained once: tiny skills of the toy, under both latent priors."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gasp.cli import main

sys.path.insert(0, str(Path(__file__).parent))  # helpers lie beside the tests


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Walks on the toy: 600 steps."""
    path = tmp_path_factory.mktemp("data") / "toy.h5"
    assert main(["data", "collect", "toy", "--transitions", "600", "--quiet", "--out", str(path)]) == 0
    return path


def skills(root: Path, data: Path, *options: str) -> Path:
    words = ["skills", "train", "--preset", "debug", "--quiet", "--name", "skills", "--dir", str(root)]
    assert main([*words, "--data", str(data), *options]) == 0
    return root / "skills"


@pytest.fixture(scope="session")
def gasp_skills(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Skills of the toy under a mixture, trained a little, so that it has several components."""
    more = "--beta 1e-6 --updates-per-epoch 30 --lr 5e-3 --warmup-updates 0"
    return skills(tmp_path_factory.mktemp("gasp"), toy_data, *more.split())


@pytest.fixture(scope="session")
def spirl_skills(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same under N(0, I)."""
    return skills(tmp_path_factory.mktemp("spirl"), toy_data, "--latent-prior", "gaussian")
