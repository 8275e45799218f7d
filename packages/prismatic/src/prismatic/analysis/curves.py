"""Learning curves of one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlcore.plots import read_metrics, training_panels

PANELS = [
    ("Return of planned episodes (evaluation)", ["return_mean"], "eval"),
    ("Return while exploring", ["return_mean"], "train"),
    ("Loss of the latent prediction", ["consistency_loss"], "train"),
    ("Losses of reward and value", ["reward_loss", "value_loss"], "train"),
    ("Policy: mean value of its actions", ["q_mean"], "train"),
]
GATES = [
    ("Gate entropy (1: all experts alike)", ["moe/dyn/entropy", "moe/rew/entropy"], "train"),
    ("Gate temperature", ["moe/dyn/tau", "moe/rew/tau"], "train"),
]


def training_curves(folder: Path) -> Any:
    """What the agent earns, how it learns, and how its experts are used, over agent steps."""
    keys = {key for row in read_metrics(folder) for key in row}
    tasks = [("Return while exploring, by task", sorted(key for key in keys if key.startswith("return/")), "train")]
    return training_panels(folder, PANELS[:2] + tasks + PANELS[2:] + GATES * ("moe/dyn/entropy" in keys))
