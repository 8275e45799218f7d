"""R1: a process that is killed, at any moment and without a chance to save, goes on to the same end."""

from __future__ import annotations

from pathlib import Path

import pytest
from stopped_runs import killed_ends_the_same, rows


@pytest.mark.slow
def test_killed_again_and_again_it_ends_the_same(tmp_path: Path):
    """The first falls into the random steps, the second among the updates they are worth."""
    words = "prismatic train --preset debug --save-every 10 --eval-every 1000 --steps 90"
    killed_ends_the_same(words.split(), tmp_path, (20, 50, 70))
    assert rows(tmp_path / "killed", "eval") == rows(tmp_path / "whole", "eval")
