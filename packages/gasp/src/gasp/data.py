"""Demonstrations: episodes in flat arrays, windows by one gather, a file format that cannot be half-written.

A file is HDF5 with the fields of `Demos` as datasets with checksums and `meta` as JSON in the attribute "meta".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gasp import formats
from gasp.config import KITCHEN_SETS, EnvSpec
from gasp.kitchen_obs import SIZES, convert
from rlcore.errors import DataError, UsageError
from rlcore.files import explained, write_atomic
from rlcore.seeding import numpy_generator

Array = np.ndarray[Any, Any]
FORMAT = "gasp-demos-1"
KINDS = {"obs": "f4", "action": "f4", "offsets": "i8", "label": "i1"}


@dataclass(frozen=True)
class Demos:
    """E episodes with N states in all. Episode e is rows offsets[e]:offsets[e+1], its last state included.

    obs (N, S) float32; action (N, A) float32, the one taken in that state, zeros in an episode's last; offsets (E+1,)
    int64; label (N,) int8, index into meta["labels"] of what was being done, -1 where unknown. meta: task, obs_mode,
    labels, file and whatever else is known.
    """

    obs: Array
    action: Array
    offsets: Array
    label: Array
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.check()

    @classmethod
    def of(
        cls, episodes: list[tuple[Array, Array]], meta: Mapping[str, Any], labels: list[Array] | None = None
    ) -> Demos:
        """From (T+1, S) states with (T, A) actions, or as many of both, an episode each. DataError naming the episode.

        labels: (T+1,) each.
        """
        where = meta.get("file", "demonstrations")
        if not episodes:
            raise DataError(f"{where}: holds no episode")
        for e, (obs, action) in enumerate(episodes):
            if obs.ndim != 2 or action.ndim != 2 or len(obs) - len(action) not in (0, 1):
                text = f"states {obs.shape} with actions {action.shape}"
                raise DataError(f"{where}: episode {e}: {text}; expected (T+1, S) or (T, S) with (T, A)")
        sizes = {(obs.shape[1], action.shape[1]) for obs, action in episodes}
        if len(sizes) > 1:
            raise DataError(f"{where}: episodes of different (S, A): {sorted(sizes)}")
        lengths = [len(obs) for obs, _ in episodes]
        offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        obs = np.concatenate([obs for obs, _ in episodes]).astype(np.float32)
        action = np.zeros((len(obs), episodes[0][1].shape[1]), np.float32)
        for start, (_, given) in zip(offsets, episodes):
            action[start : start + len(given)] = given
        label = np.full(len(obs), -1, np.int8) if labels is None else np.concatenate(labels).astype(np.int8)
        return cls(obs, action, offsets, label, dict(meta))

    @property
    def episodes(self) -> int:
        """E."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Array:
        """(E,) states of each episode."""
        return np.diff(self.offsets)

    @property
    def transitions(self) -> int:
        """Actions that led somewhere."""
        return len(self.obs) - self.episodes

    def check(self) -> None:
        """DataError naming file, episode and field where something is not what it should be."""
        where, n = self.meta.get("file", "demonstrations"), len(self.obs)
        if self.obs.ndim != 2 or self.action.ndim != 2 or self.action.shape[0] != n or self.label.shape != (n,):
            shapes = f"obs {self.obs.shape}, action {self.action.shape}, label {self.label.shape}"
            raise DataError(f"{where}: {shapes}; expected (N, S), (N, A), (N,)")
        o = self.offsets
        if o.ndim != 1 or len(o) < 2 or o[0] != 0 or o[-1] != n or (np.diff(o) < 1).any():
            raise DataError(f"{where}: offsets: expected rising numbers from 0 to {n}")
        for name, values in (("obs", self.obs), ("action", self.action)):
            if not np.isfinite(values).all():
                row = int(np.argmin(np.isfinite(values).all(1)))
                e = int(np.searchsorted(o, row, "right")) - 1
                raise DataError(f"{where}: episode {e}: {name} is not finite at its step {row - o[e]}")

    def starts(self, horizon: int) -> Array:
        """(W,) all rows from which horizon + 1 states lie within one episode. DataError where there are none."""
        row = np.arange(len(self.obs))
        end = np.repeat(self.offsets[1:], self.lengths)
        found = row[row + horizon < end]
        if not len(found):
            longest = f"its longest episode has {self.lengths.max()} states"
            raise DataError(f"{self.meta.get('file', 'demonstrations')}: {longest}, windows need {horizon + 1}")
        return found

    def gather(self, starts: Array, horizon: int) -> tuple[Array, Array]:
        """Windows from rows (B,): obs (B, H+1, S), action (B, H, A), in one gather each."""
        rows = starts[:, None] + np.arange(horizon + 1)
        return self.obs[rows], self.action[rows[:, :-1]]

    def split(self, fraction: float, seed: int) -> tuple[Demos, Demos]:
        """All but `fraction` of the episodes, and those: at least one each, drawn by the seed alone."""
        if self.episodes < 2:
            raise DataError(f"{self.meta.get('file', 'demonstrations')}: one episode cannot be split; collect more")
        if not 0 < fraction < 1:
            raise UsageError(f"split: the fraction must be in (0, 1), got {fraction}")
        count = min(max(round(fraction * self.episodes), 1), self.episodes - 1)
        order = numpy_generator(seed, "split").permutation(self.episodes)
        return self.take(np.sort(order[count:])), self.take(np.sort(order[:count]))

    def take(self, episodes: Array) -> Demos:
        """Some of the episodes, in the order given."""
        rows = np.concatenate([np.arange(self.offsets[e], self.offsets[e + 1]) for e in episodes])
        offsets = np.concatenate(([0], np.cumsum(self.lengths[episodes]))).astype(np.int64)
        return Demos(self.obs[rows], self.action[rows], offsets, self.label[rows], self.meta)


def save(path: Path, demos: Demos) -> None:
    """Write a file that `load` reads back, whole or not at all. EnvironmentProblem where it cannot be written."""
    import io

    import h5py

    image = io.BytesIO()  # built in memory: HDF5 on a full disk leaves a file that looks whole
    with h5py.File(image, "w") as file:
        file.attrs["format"] = FORMAT
        file.attrs["meta"] = json.dumps({k: v for k, v in demos.meta.items() if k != "file"})
        for name, kind in KINDS.items():
            values = np.asarray(getattr(demos, name), kind)
            file.create_dataset(name, data=values, chunks=True, fletcher32=True, compression="gzip", compression_opts=1)
    with explained(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, lambda file: file.write(image.getbuffer()))


def load(path: Path) -> Demos:
    """Read demonstrations: our own file, D4RL's, Minari's (its folder or main_data.hdf5), maze rollouts.

    DataError names file, episode and field.
    """
    import h5py

    path = Path(path)
    if path.is_dir():
        inside = [path / "data" / "main_data.hdf5", path / "main_data.hdf5"]
        path = next((file for file in inside if file.exists()), inside[0])
    if not path.exists():
        raise DataError(f"{path} does not exist; `gasp data collect` makes demonstrations")
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") == FORMAT:
                return _own(path, file)
            episodes, meta = formats.read(path, file)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    return Demos.of(episodes, {"file": str(path), **meta})


def _own(path: Path, file: Any) -> Demos:
    fields = {}
    for name, kind in KINDS.items():
        if name not in file:
            raise DataError(f"{path}: field {name} is missing")
        fields[name] = np.asarray(file[name], kind)
    return Demos(**fields, meta={**json.loads(file.attrs["meta"]), "file": str(path)})


def fit(demos: Demos, spec: EnvSpec) -> None:
    """DataError where demonstrations do not have the observations and actions of an env. Nothing is ever padded."""
    have, file = str(demos.meta.get("obs_mode")), demos.meta.get("file", "demonstrations")
    if demos.action.shape[1] != spec.action_dim:
        raise DataError(f"{file}: actions of {demos.action.shape[1]} numbers, {spec.name} takes {spec.action_dim}")
    if demos.obs.shape[1] != spec.obs_dim:
        known = have in SIZES and spec.obs_mode in SIZES
        hint = f"; the kitchen shows them with obs_mode {have}, or `gasp data convert` them" if known else ""
        raise DataError(f"{file}: observations of {demos.obs.shape[1]} numbers, {spec.name} has {spec.obs_dim}{hint}")
    if have != spec.obs_mode:
        raise DataError(f"{file}: obs_mode is {have}, of {spec.name} {spec.obs_mode}: numbers that mean something else")


def as_mode(demos: Demos, obs_mode: str) -> Demos:
    """Kitchen data with other observations: legacy60 and full59 hold those of state30.

    legacy60 gets the goals of the subtasks in meta, or of the set in the task's name. DataError where nothing says
    which they were, or the observations lack what is asked for.
    """
    have = str(demos.meta.get("obs_mode"))
    if have == obs_mode:
        return demos
    if have not in SIZES or obs_mode not in SIZES:
        raise DataError(f"{demos.meta.get('file', 'demonstrations')}: obs_mode {have} cannot become {obs_mode}")
    named = KITCHEN_SETS.get(str(demos.meta.get("task")).removeprefix("kitchen-"), ())
    try:
        obs = convert(demos.obs, have, obs_mode, demos.meta.get("subtasks") or named)
    except DataError as error:
        raise DataError(f"{demos.meta.get('file', 'demonstrations')}: {error}") from None
    return replace(demos, obs=np.ascontiguousarray(obs), meta={**demos.meta, "obs_mode": obs_mode})
