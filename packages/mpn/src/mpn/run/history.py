"""training_history.json: one list entry an episode, as users of this method know it."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from io import BufferedRandom
from pathlib import Path
from typing import Any

import numpy as np

from rlcore.files import write_atomic
from rlcore.logger import Meters

PIECE = 4_096  # episodes written at a time


class History:
    """Every finished episode: 16 bytes each, so that a million of them do not matter."""

    KEYS = ("rewards", "lengths", "losses", "epsilons")

    def __init__(self, folder: Path) -> None:
        self.path = folder / "training_history.json"
        self.columns = {key: array("f") for key in self.KEYS}
        self._shown = 0  # episodes that were in the last row
        self._loss = float("nan")  # of the last train row

    @property
    def episodes(self) -> int:
        return len(self.columns["rewards"])

    def complete(self, wanted: int | None) -> bool:
        """Whether `wanted` episodes have finished."""
        return wanted is not None and self.episodes >= wanted

    def add(self, finished: Sequence[tuple[float, int]], epsilon: float) -> None:
        """Take up (return, length) pairs of episodes that have just ended."""
        for episode in finished:
            for key, value in zip(self.KEYS, (*episode, self._loss, epsilon)):
                self.columns[key].append(value)

    def row(self, meters: Meters) -> dict[str, Any]:
        """What a train row says of the episodes since the last one."""
        new = slice(self._shown, None)
        returns, lengths = self.columns["rewards"][new], self.columns["lengths"][new]
        self._shown = self.episodes
        self._loss = meters.mean("loss", self._loss)
        if not returns:
            return {"episodes": self.episodes}
        means = {"return_mean": float(np.mean(returns)), "length_mean": float(np.mean(lengths))}
        return {"episodes": self.episodes, **means}

    def write(self) -> None:
        """Write the file, atomically and piece by piece, in constant memory. A loss not known yet is null."""

        def write(file: BufferedRandom) -> None:
            columns: dict[str, Any] = {"episodes": range(1, self.episodes + 1), **self.columns}
            for key, values in columns.items():
                file.write(f'{"{" if key == "episodes" else ", "}"{key}": ['.encode())
                for start in range(0, len(values), PIECE):
                    piece = ", ".join("null" if v != v else f"{v:.7g}" for v in values[start : start + PIECE])
                    file.write((", " * (start > 0) + piece).encode())
                file.write(b"]")
            file.write(b"}\n")

        write_atomic(self.path, write)

    def state_dict(self) -> dict[str, Any]:
        columns = {key: np.array(values, np.float32) for key, values in self.columns.items()}
        # A loss of an episode before the first update is NaN on purpose: keep it out of the check for NaN.
        columns["losses"] = columns["losses"].view(np.int32)
        return {**columns, "shown": self._shown, "loss": self._loss}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for key in self.KEYS:
            self.columns[key] = array("f", np.asarray(state[key]).view(np.float32).tobytes())
        self._shown, self._loss = int(state["shown"]), float(state["loss"])
