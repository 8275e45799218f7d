"""`gasp data collect maze|toy`: walks, recorded. Seconds, so they are written in one piece at the end."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from gasp import data, envs
from gasp.config import CollectConfig, CollectMazeConfig, CollectToyConfig
from gasp.demos.walk import GAINS, LABELS, walk
from rlcore.config import diff, to_dict
from rlcore.errors import UsageError
from rlcore.seeding import numpy_generator

ELSEWHERE = frozenset({"out", "overwrite", "quiet", "debug", "save_every"})  # options that do not decide the content


def collect_walks(cfg: CollectMazeConfig | CollectToyConfig) -> int:
    """Write the walks of `cfg` to its file."""
    path, options = target(cfg, cfg.task), options_of(cfg)
    if finished(path, options, cfg):
        return 0
    suite = cfg.task.partition("-")[0]
    with contextlib.closing(envs.single(cfg.task)) as env:
        walks = [
            walk(env.unwrapped, cfg.episode_length, cfg.noise, GAINS[suite], numpy_generator(cfg.seed, "walk", e))
            for e in range(-(-cfg.transitions // cfg.episode_length))
        ]
    spec = envs.describe(cfg.task)
    meta = {"task": cfg.task, "obs_mode": spec.obs_mode, "labels": LABELS, "options": options}
    demos = data.Demos.of([(w.obs, w.action) for w in walks], meta, [w.label for w in walks])
    data.save(path, demos)
    if not cfg.quiet:
        print(f"{path}: {demos.episodes} episodes, {demos.transitions:,} steps of {cfg.task}")
    return 0


def target(cfg: CollectConfig, task: str) -> Path:
    """The file to write."""
    return cfg.out or Path("data") / f"{task}.h5"


def options_of(cfg: CollectConfig) -> dict[str, Any]:
    """The options that decide what is collected."""
    return {key: value for key, value in to_dict(cfg).items() if key not in ELSEWHERE}


def finished(path: Path, options: dict[str, Any], cfg: CollectConfig) -> bool:
    """Whether this very collection is in its file already. UsageError where something else is."""
    if cfg.overwrite or not path.exists():
        return False
    if changes := diff(data.load(path).meta.get("options") or {}, options):
        text = f"exists, made with other options ({'; '.join(changes)}): use another --out, or --overwrite"
        raise UsageError(f"{path} {text}")
    if not cfg.quiet:
        print(f"{path} is complete; --overwrite makes it anew")
    return True
