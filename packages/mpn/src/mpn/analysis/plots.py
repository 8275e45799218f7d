"""Figures of one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlcore.plots import training_panels

PANELS = [
    ("Greedy return (evaluation)", ["return_mean"], "eval"),
    ("Return while exploring", ["return_mean"], "train"),
    ("Loss (Huber of the TD error)", ["loss"], "train"),
    ("Mean Q of replayed actions", ["q_mean"], "train"),
    ("Exploration: share of random actions", ["epsilon"], "train"),
    ("Memory: mean Frobenius norm", ["m_norm"], "train"),
]


def training_curves(folder: Path) -> Any:
    """Six panels over env steps: what the policy earns, how it learns, what its memory does."""
    return training_panels(folder, PANELS)
