"""`collective dataset`: what is in a data set, is it sound, and parts or sums of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from collective.config_data import InfoConfig, MergeConfig, SplitConfig, SubsampleConfig, ValidateConfig
from collective.data import SAME, Dataset, Writer, load, merge, read_manifest, read_shard
from rlcore.errors import DataError, UsageError
from rlcore.files import TEMPORARY, explained, locked, write_json
from rlcore.seeding import numpy_generator


def info(cfg: InfoConfig) -> int:
    """Print the findings. DataError where the data are damaged."""
    found = findings(load(cfg.data))
    if cfg.json:
        print(json.dumps(found))
        return 0
    for key, value in found.items():
        if key != "tasks":
            print(f"{key:14} {value}")
    width = max(map(len, found["tasks"]))
    print(f"{'task':{width}}  trajectories  held out    steps  succeed  reward  expert acted")
    for task, row in found["tasks"].items():
        print(
            f"{task:{width}}  {row['trajectories']:12,}  {row['held_out']:8,}  {row['steps']:7,}  "
            f"{row['success']:7.0%}  {row['reward']:6.2f}  {row['by_expert']:13.0%}"
        )
    return 0


def findings(data: Dataset) -> dict[str, Any]:
    """Sizes and shares, as JSON would have them."""
    tasks = {}
    for t, task in enumerate(data.tasks):
        own, rows = data.task_id == t, data.task_of_rows == t
        solved = [bool(data.success[a:b].any()) for a, b in zip(data.offsets[:-1][own], data.offsets[1:][own])]
        tasks[task] = {
            "trajectories": int(own.sum()), "held_out": int(data.split[own].sum()), "steps": int(rows.sum()),
            "success": float(np.mean(solved)) if solved else 0.0,
            "reward": float(data.reward[rows].mean()) if rows.any() else 0.0,
            "by_expert": float(data.executed_expert[rows].mean()) if rows.any() else 0.0,
        }  # fmt: skip
    kept = ("policy", "expert", "p_scripted", "noise", "horizon", "goal_seed", "reward_version", "versions", "digest")
    values = {key: data.meta[key] for key in kept if data.meta.get(key) is not None}
    known = float(np.isfinite(data.q_target).mean())
    sizes = {"trajectories": data.trajectories, "steps": len(data.obs), "with values": f"{known:.0%}"}
    return {"folder": data.where, **sizes, **values, "tasks": tasks}


def validate(cfg: ValidateConfig) -> int:
    """Name every damaged shard; with --repair drop them. DataError where some are left, or an array is wrong."""
    manifest = read_manifest(cfg.data)
    bad = {}
    for shard in manifest["shards"]:
        try:
            read_shard(cfg.data, shard)
        except DataError as error:
            bad[shard["file"]] = str(error)
            print(error)
    if bad and not cfg.repair:
        raise DataError(f"{cfg.data}: {len(bad)} of {len(manifest['shards'])} shards are damaged")
    if bad:
        drop(cfg.data, manifest, set(bad))
    data = load(cfg.data)
    dropped = f"; {len(bad)} damaged shards were dropped" if bad else ""
    print(f"{cfg.data}: {data.trajectories:,} trajectories, {len(data.obs):,} steps, all sound{dropped}")
    return 0


def drop(folder: Path, manifest: dict[str, Any], names: set[str]) -> None:
    """Take shards out of the manifest and rename their files."""
    kept, validation, first = list[dict[str, Any]](), list[int](), 0
    for shard in manifest["shards"]:
        count = int(shard["trajectories"])
        if shard["file"] not in names:
            shift = sum(int(each["trajectories"]) for each in kept) - first
            validation += [number + shift for number in manifest["validation"] if first <= number < first + count]
            kept.append(shard)
        first += count
    with explained(folder), locked(folder):
        write_json(folder / "manifest.json", {**manifest, "shards": kept, "validation": validation})
        for name in names:
            if (folder / name).exists():
                (folder / name).rename(folder / f"{name}.bad")


def split(cfg: SplitConfig) -> int:
    """Draw a share of each task's trajectories."""
    data, manifest = load(cfg.data), read_manifest(cfg.data)
    rng = numpy_generator(cfg.seed, "split")
    chosen: list[int] = []
    for t, task in enumerate(data.tasks):
        own = np.flatnonzero(data.task_id == t)
        if len(own) == 1:
            raise DataError(f"{cfg.data}: one trajectory of {task} cannot be split; record more")
        count = min(max(round(cfg.fraction * len(own)), 1), len(own) - 1) if len(own) else 0
        chosen += rng.permutation(own)[:count].tolist()
    with explained(cfg.data), locked(cfg.data):
        write_json(cfg.data / "manifest.json", {**manifest, "validation": sorted(chosen)})
    print(f"{cfg.data}: {len(chosen):,} of {data.trajectories:,} trajectories are held out")
    return 0


def write_merged(cfg: MergeConfig) -> int:
    """Write the sum of several data sets."""
    return write_as(cfg.out, merge([load(folder) for folder in cfg.data]))


def subsample(cfg: SubsampleConfig) -> int:
    """Write a part: of each task the later trajectories, and at most `max` of them."""
    data, rng = load(cfg.data), numpy_generator(cfg.seed, "subsample")
    kept: list[Any] = []
    for t in range(len(data.tasks)):
        own = np.flatnonzero(data.task_id == t)
        own = own[int(cfg.drop_first * len(own)) :] if len(own) > cfg.above else own
        kept.append(np.sort(rng.permutation(own)[: cfg.max]))
    return write_as(cfg.out, data.take(np.concatenate(kept)))


def write_as(out: Path, data: Dataset) -> int:
    """A new data set of one shard, whole or not there. UsageError where there is something already."""
    if out.exists():
        raise UsageError(f"{out} exists: use another --out")
    half = out.with_name(f"{TEMPORARY}{out.name}")
    shutil.rmtree(half, ignore_errors=True)  # of a process that was killed
    same = ("horizon", "reward_version", "goal_seed", "policy", "expert", "noise", "p_scripted", "seed")
    writer = Writer(half, data.tasks, {key: data.meta.get(key) for key in same})
    writer.manifest |= {key: data.meta[key] for key in SAME if data.meta.get(key) is not None}
    writer.append(replace(data, meta={}), keep_split=True)
    with explained(out):
        half.rename(out)
    print(f"{out}: {data.trajectories:,} trajectories, {len(data.obs):,} steps of {len(data.tasks)} tasks")
    return 0
