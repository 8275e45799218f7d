"""Files that are either whole or not there: write to a temporary name, fsync, rename, fsync the folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from rlcore.errors import DataError

TEMPORARY = ".tmp-"  # prefix of names nobody may rely on; left-overs of a killed process are swept on open


def fsync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Call `write(file)` on a temporary neighbour of `path`, then rename it. The old file survives any failure."""
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        with open(temporary, "w+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        fsync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN is refused: JSON has none."""
    data = json.dumps(value, indent=2, allow_nan=False).encode() + b"\n"
    write_atomic(path, lambda file: file.write(data))


def read_json(path: Path) -> Any:
    """Read a JSON file; DataError names the file and the place when it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from None


def link(target: Path, name: Path) -> None:
    """Make `name` a relative symbolic link to its neighbour `target`, atomically."""
    temporary = name.with_name(f"{TEMPORARY}{os.getpid()}-{name.name}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target.name)
    os.replace(temporary, name)


def sha256(path: Path) -> str:
    """Hex digest of a file, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sweep_temporaries(folder: Path) -> None:
    """Remove what a killed process left half-written. Only the owner of the run's lock may call this."""
    for path in folder.glob(f"{TEMPORARY}*"):
        path.unlink(missing_ok=True)
