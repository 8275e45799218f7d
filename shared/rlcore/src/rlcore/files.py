"""Files that are either whole or not there: write to a temporary name, fsync, rename, fsync the folder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator
from io import BufferedRandom
from pathlib import Path
from typing import Any

from rlcore.errors import DataError, EnvironmentProblem, UsageError

TEMPORARY = ".tmp-"  # prefix of names nobody may rely on; left-overs of a killed process are swept on open


def fsync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, write: Callable[[BufferedRandom], Any]) -> None:
    """Call `write(file)` on a temporary neighbour of `path`, then rename it. The old file survives any failure."""
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        with open(temporary, "w+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        fsync_folder(path.parent)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # write and fsync do not say
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """Write `value` as JSON, atomically. NaN is refused: JSON has none."""
    data = json.dumps(value, indent=indent, allow_nan=False).encode() + b"\n"
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


def sweep_temporaries(folder: Path) -> None:
    """Remove what a killed process left half-written. Only the owner of the run's lock may call this."""
    for path in folder.glob(f"{TEMPORARY}*"):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Own `folder` while inside. The system frees the lock when its owner dies: it is never stale, whatever the clock.

    Raises: UsageError naming the owner's process and host when another process holds it.
    """
    with open(folder / ".lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise UsageError(f"{folder} is in use by {owner}: stop it, or use another --name") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def set_aside(folder: Path) -> None:
    """Nothing is lost: the old folder becomes NAME.old1, NAME.old2, ... UsageError where a process owns it."""
    with locked(folder):
        number = next(n for n in range(1, 10**6) if not folder.with_name(f"{folder.name}.old{n}").exists())
        folder.rename(folder.with_name(f"{folder.name}.old{number}"))


def problem(error: OSError, folder: Path) -> EnvironmentProblem:
    """One clear line for a file operation that failed somewhere in `folder`."""
    cause = f"{error.filename or folder}: {error.strerror or error}"
    return EnvironmentProblem(f"cannot write {cause}; make room or give access, then run the same command")


@contextlib.contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn a failed file operation into EnvironmentProblem."""
    try:
        yield
    except OSError as error:
        raise problem(error, folder) from error
