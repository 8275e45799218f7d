"""`gasp data collect maze|toy`: walks, recorded. Seconds, so they are written in one piece at the end."""

from __future__ import annotations

import contextlib
from pathlib import Path

from gasp import data, envs
from gasp.config import CollectConfig, CollectMazeConfig, CollectToyConfig
from gasp.demos.walk import GAINS, LABELS, walk
from rlcore.errors import UsageError
from rlcore.seeding import numpy_generator


def collect_walks(cfg: CollectMazeConfig | CollectToyConfig) -> int:
    """Write the walks of `cfg` to its file."""
    path = target(cfg, cfg.task)
    suite = cfg.task.partition("-")[0]
    with contextlib.closing(envs.single(cfg.task)) as env:
        walks = [
            walk(env.unwrapped, cfg.episode_length, cfg.noise, GAINS[suite], numpy_generator(cfg.seed, "walk", e))
            for e in range(-(-cfg.transitions // cfg.episode_length))
        ]
    spec = envs.describe(cfg.task)
    meta = {"task": cfg.task, "obs_mode": spec.obs_mode, "labels": LABELS, "noise": cfg.noise, "seed": cfg.seed}
    demos = data.Demos.of([(w.obs, w.action) for w in walks], meta, [w.label for w in walks])
    data.save(path, demos)
    if not cfg.quiet:
        print(f"{path}: {demos.episodes} episodes, {demos.transitions:,} steps of {cfg.task}")
    return 0


def target(cfg: CollectConfig, task: str) -> Path:
    """The file to write. UsageError where there is one already."""
    path = cfg.out or Path("data") / f"{task}.h5"
    if path.exists() and not cfg.overwrite:
        raise UsageError(f"{path} exists: use another --out, or --overwrite")
    return path
