"""Experience that is kept while experts learn: now and then the newest episodes of each task, in files of the run."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from collective.config_worker import WorkerConfig
from collective.data import EACH, ROWS, Dataset
from collective.experience import Experience, unlabelled
from rlcore.errors import DataError
from rlcore.files import explained, write_atomic

KEPT = ("offsets", *ROWS, *EACH)


class Snapshots:
    """RUN/snapshots/step_N.npz: whole episodes without labels, at multiples of `snapshot_every` env steps of a task.

    A file depends on its step alone, so a run that was stopped and goes on writes the same again.
    """

    def __init__(self, run: Path, cfg: WorkerConfig) -> None:
        self.folder, self.cfg = run / "snapshots", cfg

    def due(self, each: int) -> bool:
        """Whether it is time, after so many env steps of each task."""
        return each >= self.cfg.snapshot_after and each % self.cfg.snapshot_every < self.cfg.num_envs

    def take(self, each: int, experience: Experience) -> None:
        """Write the newest `snapshot_rows` transitions of each task, made up to whole episodes."""
        cfg = self.cfg
        parts = [
            (task, experience.rows(span))
            for task in range(len(cfg.chosen))
            for span in experience.newest(task, cfg.snapshot_rows, cfg.horizon)
        ]
        if not parts:
            return
        data, image = unlabelled(parts, cfg.chosen), io.BytesIO()
        np.savez(image, **{name: getattr(data, name) for name in KEPT})
        with explained(self.folder):
            self.folder.mkdir(exist_ok=True)
            write_atomic(self.folder / f"step_{each:09d}.npz", lambda file: file.write(image.getbuffer()))

    def read(self, until: int) -> Iterator[Dataset]:
        """All of them up to env step `until` of each task, oldest first. DataError where one is damaged."""
        for path in sorted(self.folder.glob("step_*.npz")):
            if int(path.stem.removeprefix("step_")) <= until:
                yield self._open(path)

    def _open(self, path: Path) -> Dataset:
        try:
            with np.load(path, allow_pickle=False) as arrays:
                found: dict[str, Any] = {name: arrays[name] for name in KEPT}
        except Exception as error:  # zipfile and numpy raise many types here
            raise DataError(f"{path} cannot be read ({error}); delete it to go on without") from error
        split = np.zeros(len(found["task_id"]), np.int8)
        return Dataset(**found, split=split, tasks=self.cfg.chosen, meta={"folder": str(path)})
