"""Checkpoints: one immutable `.pt` file a step, whole or not there, checked before use, never executed.

A file is what `torch.save` writes (a zip archive of plain tensors), with the SHA-256 of all its other bytes as the
archive's comment: zip's own CRCs leave headers and padding unguarded. `torch.load(path, weights_only=True)` opens it
as usual. Only plain types and tensors go in, and `weights_only=True` is the only way anything is read back.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from io import BufferedRandom
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from rlcore import files
from rlcore.errors import DataError, QuintetWarning

FORMAT = 1
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}  # format n -> function that makes format n + 1
_MARK = b"sha256:"
_COMMENT_BYTES = len(_MARK) + 64
_NAME = re.compile(r"step_(\d{9,})\.pt")


class Damaged(DataError):
    """The bytes are not those that were written."""


def portable(value: Any) -> Any:
    """Copy of `value` with numpy arrays as tensors and numpy scalars as Python numbers: what a checkpoint may hold."""
    if isinstance(value, Mapping):
        return {key: portable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(portable(item) for item in value)
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, str):
        return str(value)  # a subclass (torch.__version__ is one) would not be read back
    if value is None or isinstance(value, torch.Tensor | bool | int | float | bytes):
        return value
    raise TypeError(f"a checkpoint holds tensors and plain types only, not {type(value).__name__}")


def nonfinite(value: Any, name: str) -> str | None:
    """The name of the first tensor in nested `value` that holds NaN or Inf, None when all are finite."""
    if isinstance(value, np.ndarray):
        return None if value.dtype.kind != "f" or np.isfinite(value).all() else name
    if isinstance(value, torch.Tensor):
        return name if value.is_floating_point() and not bool(torch.isfinite(value).all()) else None
    if isinstance(value, Mapping):
        pairs = [(f"{name}.{key}", item) for key, item in value.items()]
    elif isinstance(value, list | tuple):
        pairs = [(f"{name}.{i}", item) for i, item in enumerate(value)]
    else:
        return None
    return next((bad for key, item in pairs if (bad := nonfinite(item, key))), None)


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state` to `path` atomically and durably, with the checksum of its bytes in it."""

    def write(file: BufferedRandom) -> None:
        told = _Telling(file)
        try:
            torch.save({"format": FORMAT, **portable(state)}, told)  # type: ignore[arg-type]
        except RuntimeError:
            raise told.error or RuntimeError(f"torch could not write {path}") from None
        file.seek(-2, os.SEEK_END)  # the length of the archive comment is a zip file's last field
        file.write(_COMMENT_BYTES.to_bytes(2, "little"))
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0, os.SEEK_END)
        file.write(_MARK + digest.encode())

    files.write_atomic(path, write)


class _Telling:
    """A file that remembers why a write failed: torch turns any reason into a RuntimeError about positions."""

    def __init__(self, file: BufferedRandom) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def load(path: Path) -> dict[str, Any]:
    """The state in `path`, on the CPU. DataError names file and cause: damage, foreign, newer format."""
    try:
        _verify(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"checkpoint {path} does not exist") from None
    except Exception as error:  # torch raises many types here: pickle, zip, EOF, RuntimeError, ...
        cause = " ".join(str(error).split())[:200]
        raise DataError(f"checkpoint {path} cannot be read: {cause}") from error
    if not isinstance(state, dict) or not isinstance(state.get("format"), int):
        raise DataError(f"{path} is a torch file, but not a Quintet checkpoint")
    if state["format"] > FORMAT:
        raise DataError(
            f"checkpoint {path} has format {state['format']}, this version reads up to {FORMAT}: install a newer one"
        )
    while state["format"] < FORMAT:
        state = {**UPGRADES[state["format"]](state), "format": state["format"] + 1}
    return state


def _verify(path: Path) -> None:
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size <= _COMMENT_BYTES:
            raise Damaged(f"checkpoint {path} is only {size} bytes long: truncated or empty")
        file.seek(-_COMMENT_BYTES, os.SEEK_END)
        comment = file.read()
        if not comment.startswith(_MARK):
            raise Damaged(f"checkpoint {path} does not end in its checksum: truncated, or not written by Quintet")
        if _digest(file, size - _COMMENT_BYTES) != comment[len(_MARK) :].decode("ascii", "replace"):
            raise Damaged(f"checkpoint {path} is damaged: its bytes do not match its SHA-256")
    with zipfile.ZipFile(path) as archive:  # a file with a right checksum may still be hostile: no zip bombs
        if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size > size for entry in archive.infolist()):
            raise Damaged(f"checkpoint {path} holds compressed or oversized entries: not written by Quintet")


def _digest(file: IO[bytes], count: int) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while count > 0 and (block := file.read(min(count, 1 << 20))):
        digest.update(block)
        count -= len(block)
    return digest.hexdigest()


class Checkpoints:
    """The checkpoints of one run: `step_000012000.pt`, with links such as `best.pt` and `last.pt` to some of them."""

    def __init__(self, folder: Path, keep: int = 2, keep_every: int | None = None) -> None:
        self.folder, self.keep, self.keep_every = folder, keep, keep_every

    def path(self, step: int) -> Path:
        return self.folder / f"step_{step:09d}.pt"

    def steps(self) -> list[int]:
        """Steps with a checkpoint, oldest first."""
        names = (_NAME.fullmatch(p.name) for p in self.folder.glob("step_*.pt"))
        return sorted(int(match[1]) for match in names if match)

    def save(self, step: int, state: Mapping[str, Any]) -> Path:
        """Write the checkpoint of `step`. What is there already stays untouched until the new one is in place."""
        path = self.path(step)
        save(path, {**state, "step": step})
        return path

    def link(self, step: int, *names: str) -> None:
        """Let each of `names` point to the checkpoint of `step`."""
        for name in names:
            files.link(self.path(step), self.folder / name)

    def linked(self) -> set[int]:
        """Steps that some link points to."""
        targets = (_NAME.fullmatch(os.readlink(p)) for p in self.folder.iterdir() if p.is_symlink())
        return {int(match[1]) for match in targets if match}

    def rotate(self) -> None:
        """Delete all but the last `keep`, those that links point to, and every `keep_every`-th step."""
        steps, linked = self.steps(), self.linked()
        for step in steps[: -self.keep]:
            if step not in linked and not (self.keep_every and step % self.keep_every == 0):
                self.path(step).unlink()

    def newest_first(self) -> Iterator[dict[str, Any]]:
        """Load valid checkpoints, newest first. A damaged one is reported, set aside as `.bad`, and skipped.

        DataError for a sound one that cannot be read here and now, of a newer format say: nothing is set aside.
        """
        for step in reversed(self.steps()):
            try:
                state = load(self.path(step))
            except Damaged as error:
                self.reject(step, error)
            else:
                yield state

    def reject(self, step: int, error: Exception) -> None:
        """Set the checkpoint of `step` aside, so that nothing later trusts it, and say so."""
        path = self.path(step)
        warnings.warn(f"{error}; set aside as {path.name}.bad, trying the one before", QuintetWarning, stacklevel=2)
        with contextlib.suppress(OSError):
            path.rename(path.with_name(path.name + ".bad"))

    def find(self, *names: str) -> Path:
        """The first of `names` that exists here, links resolved. A link that leads out of the folder is refused."""
        found = [path for name in names if (path := self.folder / name).exists()]
        if not found:
            when = "" if self.steps() else ": a run has its first after --save-every steps, or when it is stopped"
            raise DataError(f"no checkpoint named {' or '.join(names)} in {self.folder}{when}")
        if found[0].resolve().parent != self.folder.resolve():
            raise DataError(f"{found[0]} points outside {self.folder}: refused")
        return found[0].resolve()
