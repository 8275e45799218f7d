"""`gasp data inspect|convert`: is a file of demonstrations sound, what is in it; the same as a file of ours."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from gasp import envs
from gasp.config import ConvertConfig, InspectConfig
from gasp.data import Demos, as_mode, fit, load, save
from rlcore.errors import UsageError


def inspect(cfg: InspectConfig) -> int:
    """Print the findings. DataError where the file is damaged."""
    demos = load(cfg.path)
    if cfg.task is not None:
        fit(demos, envs.describe(cfg.task))
    found = findings(demos, cfg.horizon)
    if cfg.json:
        print(json.dumps(found))
        return 0
    width = max(map(len, found))
    for key, value in found.items():
        print(f"{key:{width}}  {value}")
    return 0


def convert(cfg: ConvertConfig) -> int:
    """Write what was read. UsageError where the file exists; DataError where the observations cannot be had."""
    if cfg.out.exists() and not cfg.overwrite:
        raise UsageError(f"{cfg.out} exists: use another --out, or --overwrite")
    demos = load(cfg.path)
    demos = demos if cfg.obs_mode == "keep" else as_mode(demos, cfg.obs_mode)
    save(cfg.out, demos)
    size = f"{demos.obs.shape[1]} numbers ({demos.meta.get('obs_mode')})"
    print(f"{cfg.out}: {demos.episodes} episodes, {demos.transitions:,} steps, observations of {size}")
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
