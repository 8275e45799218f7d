"""`gasp data inspect`: is a file of demonstrations sound, and what is in it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from gasp.config import InspectConfig
from gasp.data import Demos, load


def inspect(cfg: InspectConfig) -> int:
    """Print the findings. DataError where the file is damaged."""
    found = findings(load(cfg.path), cfg.horizon)
    if cfg.json:
        print(json.dumps(found))
        return 0
    width = max(map(len, found))
    for key, value in found.items():
        print(f"{key:{width}}  {value}")
    return 0


def findings(demos: Demos, horizon: int) -> dict[str, Any]:
    """Sizes, ranges and shares, as JSON would have them."""
    lengths, action = demos.lengths, demos.action
    names = list(demos.meta.get("labels", []))
    counts = {name: int((demos.label == i).sum()) for i, name in enumerate(names)}
    return {
        "file": demos.meta.get("file"), "task": demos.meta.get("task"), "obs_mode": demos.meta.get("obs_mode"),
        "episodes": demos.episodes, "transitions": demos.transitions,
        "states": f"{int(lengths.min())} .. {int(lengths.max())} an episode",
        "obs": f"{demos.obs.shape[1]} numbers in {demos.obs.min():.3g} .. {demos.obs.max():.3g}",
        "action": f"{action.shape[1]} numbers in {action.min():.3g} .. {action.max():.3g}, "
        f"at a limit {np.mean(np.abs(action) >= 1):.0%}",
        "windows": f"{len(demos.starts(horizon)):,} of {horizon} steps",
        "labels": ", ".join(f"{name} {n / len(demos.label):.0%}" for name, n in counts.items() if n) or "unknown",
    }  # fmt: skip
