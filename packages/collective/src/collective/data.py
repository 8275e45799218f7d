"""Labelled trajectories: flat arrays in memory; on disk shards that are whole or not there, and a manifest of them.

A data set is a folder: `manifest.json` (format, tasks, sizes, versions, SHA-256 of each shard, which trajectories are
held out) and `shard_000.npz`, ... of plain float32 and integer arrays. Shards are never changed. What a row means is
said at `Dataset`. Task codes are not part of it: they belong to an encoder (collective.codes).
"""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from collective.config import ACTION_DIM, OBS_DIM
from rlcore.errors import DataError
from rlcore.files import explained, read_json, write_atomic, write_json
from rlcore.provenance import version_of

Array = np.ndarray[Any, Any]
FORMAT = "collective-data-1"
ROWS: dict[str, tuple[str, tuple[int, ...]]] = {  # arrays with a row a transition: dtype, shape of a row
    "obs": ("f4", (OBS_DIM,)), "action": ("f4", (ACTION_DIM,)), "reward": ("f4", ()), "success": ("?", ()),
    "expert_mean": ("f4", (ACTION_DIM,)), "expert_log_std": ("f4", (ACTION_DIM,)), "q_target": ("f4", ()),
    "executed_expert": ("?", ()),
}  # fmt: skip
EACH: dict[str, tuple[str, tuple[int, ...]]] = {  # with a row a trajectory
    "last_obs": ("f4", (OBS_DIM,)), "task_id": ("i8", ()), "goal_id": ("i8", ()), "arm_id": ("i8", ()),
}  # fmt: skip
HELD_OUT = 5  # of a task's trajectories every fifth is for validation
SAME = ("obs_dim", "action_dim", "horizon", "reward_version", "versions", "gamma")  # what data that go together share


@dataclass(frozen=True)
class Dataset:
    """E trajectories, N transitions in all; trajectory e is rows offsets[e]:offsets[e+1].

    obs (N, 39), action (N, 4) as executed, reward (N,) raw, success (N,) bool after the step; expert_mean (N, 4) in
    [-1, 1] and expert_log_std (N, 4) before squashing: what the task's expert would have done; q_target (N,), NaN where
    no expert has values; executed_expert (N,) bool: the expert acted, if with noise on it. last_obs (E, 39): after a
    trajectory's last transition. task_id (E,) into `tasks`; goal_id, arm_id (E,); split (E,) int8: 0 training, 1
    validation.
    """

    obs: Array
    action: Array
    reward: Array
    success: Array
    expert_mean: Array
    expert_log_std: Array
    q_target: Array
    executed_expert: Array
    offsets: Array
    last_obs: Array
    task_id: Array
    goal_id: Array
    arm_id: Array
    split: Array
    tasks: tuple[str, ...]
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.check()

    @property
    def trajectories(self) -> int:
        """E."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Array:
        """(E,) transitions of each trajectory."""
        return np.diff(self.offsets)

    @cached_property
    def trajectory_of_rows(self) -> Array:
        """(N,) the trajectory that each row is in."""
        return np.repeat(np.arange(self.trajectories), self.lengths)

    @cached_property
    def task_of_rows(self) -> Array:
        """(N,) the task that each row is of."""
        return self.task_id[self.trajectory_of_rows]

    @property
    def where(self) -> str:
        """What errors call it."""
        return str(self.meta.get("folder", "data"))

    def next_obs(self) -> Array:
        """(N, 39) what each action led to."""
        following = np.concatenate((self.obs[1:], self.obs[:1]))
        following[self.offsets[1:] - 1] = self.last_obs
        return following

    def check(self) -> None:
        """DataError naming array and trajectory where something is not what it should be."""
        n, e, o = len(self.obs), len(self.task_id), self.offsets
        for names, count in ((ROWS, n), (EACH, e)):
            for name, (_, shape) in names.items():
                if (found := getattr(self, name).shape) != (count, *shape):
                    raise DataError(f"{self.where}: {name} has shape {found}, expected {(count, *shape)}")
        if o.shape != (e + 1,) or o[0] != 0 or o[-1] != n or (np.diff(o) < 1).any():
            raise DataError(f"{self.where}: offsets: expected {e + 1} rising numbers from 0 to {n}")
        if e and not 0 <= self.task_id.min() <= self.task_id.max() < len(self.tasks):
            raise DataError(f"{self.where}: task_id reaches {self.task_id.max()}, there are {len(self.tasks)} tasks")
        for name in ("obs", "action", "reward", "expert_mean", "expert_log_std"):
            bad = ~np.isfinite(getattr(self, name).reshape(n, -1)).all(1)
            if bad.any():
                row = int(bad.argmax())
                t = int(np.searchsorted(o, row, "right")) - 1
                raise DataError(f"{self.where}: trajectory {t}: {name} is not finite at its step {row - o[t]}")

    def take(self, trajectories: Array) -> Dataset:
        """Some trajectories, by number, in the order given."""
        chosen = np.asarray(trajectories, np.int64)
        spans = [np.arange(self.offsets[t], self.offsets[t + 1]) for t in chosen]
        rows = np.concatenate(spans) if spans else np.zeros(0, np.int64)
        offsets = np.concatenate(([0], np.cumsum(self.lengths[chosen]))).astype(np.int64)
        picked = {name: getattr(self, name)[rows] for name in ROWS}
        each = {name: getattr(self, name)[chosen] for name in (*EACH, "split")}
        return replace(self, **picked, **each, offsets=offsets)

    def of_split(self, name: str) -> Dataset:
        """Training or validation trajectories: "train", "validation". DataError where there are none."""
        chosen = np.flatnonzero(self.split == (name == "validation"))
        if not len(chosen):
            raise DataError(f"{self.where}: no trajectory is in the {name} split: record more, or `dataset split`")
        return self.take(chosen)

    def rows_of_task(self) -> list[Array]:
        """For each task the numbers of its rows."""
        order = np.argsort(self.task_of_rows, kind="stable")
        counts = np.bincount(self.task_of_rows, minlength=len(self.tasks))
        return np.split(order, np.cumsum(counts)[:-1])


def held_out(task_id: Array, every: int = HELD_OUT, before: Array | None = None) -> Array:
    """(E,) int8 split: of each task's trajectories, counted from `before` (tasks,), every `every`-th is held out."""
    counts = np.zeros(int(task_id.max(initial=0)) + 1, np.int64) if before is None else before.copy()
    split = np.zeros(len(task_id), np.int8)
    for e, task in enumerate(task_id):
        counts[task] += 1
        split[e] = counts[task] % every == 0
    return split


def merge(parts: Sequence[Dataset]) -> Dataset:
    """All as one, their tasks as one list. DataError where they are of different sizes, rewards or versions."""
    if not parts:
        raise DataError("no data to merge")
    shared: dict[str, Any] = {}
    for part, key in itertools.product(parts, SAME):
        if (value := part.meta.get(key)) is None:
            continue
        if (known := shared.setdefault(key, (part.where, value)))[1] != value:
            raise DataError(f"{known[0]} and {part.where} do not go together: {key} is {known[1]} and {value}")
    tasks = tuple(dict.fromkeys(task for part in parts for task in part.tasks))
    ids = [np.array([tasks.index(task) for task in part.tasks], np.int64)[part.task_id] for part in parts]
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in (*ROWS, *EACH, "split")}
    offsets = np.concatenate(([0], np.cumsum(np.concatenate([part.lengths for part in parts])))).astype(np.int64)
    seeds = sorted({seed for part in parts for seed in goal_seeds(part.meta)})
    meta = parts[0].meta | {key: value for key, (_, value) in shared.items()}
    meta |= {"folder": " + ".join(part.where for part in parts), "goal_seed": seeds}
    meta["digest"] = hashlib.sha256("".join(digest_of(part) for part in parts).encode()).hexdigest()
    return Dataset(**{**joined, "task_id": np.concatenate(ids)}, offsets=offsets, tasks=tasks, meta=meta)


def goal_seeds(meta: Mapping[str, Any]) -> list[int]:
    """The seeds of the goals that data were recorded on; none where nobody knows."""
    known = meta.get("goal_seed")
    return [] if known is None else list(known) if isinstance(known, list) else [int(known)]


def digest_of(data: Dataset) -> str:
    """What tells data apart: the hash of their shards, or of the arrays where they were never written."""
    if "digest" in data.meta:
        return str(data.meta["digest"])
    digest = hashlib.sha256()
    for name in (*ROWS, *EACH):
        digest.update(np.ascontiguousarray(getattr(data, name)).tobytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Of what decides observations and rewards."""
    return {name: version for name in ("metaworld", "mujoco") if (version := version_of(name))}


class Writer:
    """Appends trajectories to a data set, a shard at a time. What is there already must be of the same kind.

    Args:
        meta: horizon, reward_version, goal_seed, policy, seed, ... of the manifest.
    """

    def __init__(self, folder: Path, tasks: Sequence[str], meta: Mapping[str, Any]) -> None:
        self.folder, self.tasks = folder, tuple(tasks)
        self.manifest: dict[str, Any] = {
            "format": FORMAT, "obs_dim": OBS_DIM, "action_dim": ACTION_DIM, "tasks": list(tasks), **meta,
            "versions": {} if tasks[0].startswith("toy-") else versions(), "shards": [], "validation": [],
        }  # fmt: skip
        path = folder / "manifest.json"
        if path.exists():
            before = read_json(path)
            for key in ("format", "tasks", *SAME):
                if before.get(key) != self.manifest.get(key):
                    text = f"{key} is {before.get(key)}, not {self.manifest.get(key)}"
                    raise DataError(f"{path} is of other data ({text}): use another --name")
            self.manifest = before
        self._counts = np.zeros(len(self.tasks), np.int64)
        for shard in self.manifest["shards"]:
            self._counts += shard["by_task"]

    @property
    def trajectories(self) -> int:
        """Trajectories written so far."""
        return int(self._counts.sum())

    @property
    def transitions(self) -> int:
        """Transitions written so far."""
        return sum(int(shard["transitions"]) for shard in self.manifest["shards"])

    def append(self, data: Dataset, keep_split: bool = False) -> None:
        """Write the trajectories of `data` as the next shard; they are there once the manifest names them.

        Every fifth of a task is held out, counted over all shards, or with `keep_split` what `data` says.
        """
        if not data.trajectories:
            return
        image = io.BytesIO()
        arrays: dict[str, Any] = {
            name: np.asarray(getattr(data, name), kind) for name, (kind, _) in {**ROWS, **EACH}.items()
        }
        np.savez(image, offsets=data.offsets, **arrays)
        last = max((int(shard["file"][6:-4]) for shard in self.manifest["shards"]), default=-1)
        name = f"shard_{last + 1:03d}.npz"  # numbers may be missing, after a repair
        by_task = np.bincount(data.task_id, minlength=len(self.tasks))
        split = data.split if keep_split else held_out(data.task_id, before=self._counts)
        first = self.trajectories
        shard = {
            "file": name, "sha256": hashlib.sha256(image.getbuffer()).hexdigest(),
            "trajectories": data.trajectories, "transitions": len(data.obs), "by_task": by_task.tolist(),
        }  # fmt: skip
        self.manifest = {
            **self.manifest,
            "shards": [*self.manifest["shards"], shard],
            "validation": [*self.manifest["validation"], *(first + np.flatnonzero(split)).tolist()],
        }
        with explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomic(self.folder / name, lambda file: file.write(image.getbuffer()))
            write_json(self.folder / "manifest.json", self.manifest)
        self._counts = self._counts + by_task

    def state_dict(self) -> dict[str, Any]:
        """How much was written: a resumed recording cuts back to it."""
        return {"shards": len(self.manifest["shards"])}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Forget shards written after the state was saved. DataError where some are missing."""
        keep, shards = int(state["shards"]), self.manifest["shards"]
        if len(shards) < keep:
            text = f"{len(shards)} shards are there, the checkpoint knows of {keep}"
            raise DataError(f"{self.folder}: {text}; what is there can be used, --overwrite records anew")
        total = sum(shard["trajectories"] for shard in shards[:keep])
        validation = [number for number in self.manifest["validation"] if number < total]
        self.manifest = {**self.manifest, "shards": shards[:keep], "validation": validation}
        self._counts = np.zeros(len(self.tasks), np.int64)
        for shard in self.manifest["shards"]:
            self._counts += shard["by_task"]
        with explained(self.folder):
            write_json(self.folder / "manifest.json", self.manifest)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a data set. DataError where there is none, or one of another format."""
    path = Path(folder) / "manifest.json"
    if not path.is_file():
        raise DataError(f"{folder} is no data set: it has no manifest.json; `collective record` makes one")
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DataError(f"{path}: expected the format {FORMAT}, got {str(manifest)[:60]}")
    wrong = [key for key, size in (("obs_dim", OBS_DIM), ("action_dim", ACTION_DIM)) if manifest.get(key) != size]
    if wrong:
        raise DataError(f"{path}: {wrong[0]} is {manifest.get(wrong[0])}: these data are of other environments")
    return manifest


def load(folder: Path | str) -> Dataset:
    """Read a data set whole, every shard checked. DataError names folder, shard and cause."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    parts = [read_shard(folder, shard) for shard in manifest["shards"]]
    if not parts:
        raise DataError(f"{folder}: the data set is empty: `collective record` it, or wait until it has a shard")
    ends = np.cumsum([0, *(int(part["offsets"][-1]) for part in parts)])
    offsets = np.concatenate([[0], *(part["offsets"][1:] + end for part, end in zip(parts, ends))]).astype(np.int64)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in (*ROWS, *EACH)}
    split = np.zeros(len(offsets) - 1, np.int8)
    split[np.asarray(manifest["validation"], np.int64)] = 1
    kept = ("shards", "validation", "format")
    parts_of_digest = [*(shard["sha256"] for shard in manifest["shards"]), str(manifest["validation"])]
    digest = hashlib.sha256("".join(parts_of_digest).encode()).hexdigest()
    meta = {**{k: v for k, v in manifest.items() if k not in kept}, "folder": str(folder), "digest": digest}
    return Dataset(**joined, offsets=offsets, split=split, tasks=tuple(manifest["tasks"]), meta=meta)


def load_all(folders: Iterable[Path | str]) -> Dataset:
    """Several data sets as one."""
    parts = [load(folder) for folder in folders]
    return parts[0] if len(parts) == 1 else merge(parts)


def read_shard(folder: Path, shard: Mapping[str, Any]) -> dict[str, Array]:
    """The arrays of one shard. DataError where it is missing, damaged, or lacks something."""
    path = folder / str(shard["file"])
    advice = "`collective dataset validate --repair` drops it"
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; {advice}") from None
    if hashlib.sha256(raw).hexdigest() != shard["sha256"]:
        raise DataError(f"{path} is damaged: its bytes do not match the SHA-256 in manifest.json; {advice}")
    with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
        missing = [name for name in ("offsets", *ROWS, *EACH) if name not in arrays]
        if missing:
            raise DataError(f"{path}: array {missing[0]} is missing")
        return {name: arrays[name] for name in ("offsets", *ROWS, *EACH)}
