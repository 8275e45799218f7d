"""Jobs of the stand-in, and a folder for their results."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for stand_in, which files of tests share


@pytest.fixture
def make_job(tmp_path: Path) -> Any:
    """See `stand_in.job_maker`."""
    from stand_in import job_maker

    return job_maker(tmp_path)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    (tmp_path / "results").mkdir()
    return tmp_path / "results"
