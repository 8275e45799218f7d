"""What is dear to make and small to keep: arrays in files that know when they are damaged.

The folder is the one in COLLECTIVE_CACHE, else quintet/collective in XDG_CACHE_HOME or ~/.cache. A file that is damaged
or cannot be written stops nothing: the arrays are made anew, with one warning a process.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rlcore.errors import QuintetWarning
from rlcore.files import write_atomic

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]
_told: set[str] = set()  # what this process has warned of


def folder() -> Path:
    """Where caches lie."""
    if given := os.environ.get("COLLECTIVE_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "quintet" / "collective"


def kept(name: str, make: Callable[[], Arrays], fits: Callable[[Arrays], bool]) -> Arrays:
    """The arrays of file `name`.npz in the folder; where there is none that `fits`, what `make` gives, kept there."""
    path = folder() / f"{name}.npz"
    try:
        with np.load(io.BytesIO(path.read_bytes())) as file:  # a zip: its checksums are read, too
            found = {key: file[key] for key in file.files}
        if fits(found):
            return found
        _warn("unfit", f"{path} does not fit this installation: made anew")
    except (FileNotFoundError, NotADirectoryError):
        pass
    except Exception as error:  # zipfile, zlib and numpy have many
        _warn("damaged", f"{path} cannot be read ({type(error).__name__}: {error}): made anew")
    made = make()
    buffer = io.BytesIO()
    np.savez(buffer, **made)  # type: ignore[arg-type]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, lambda file: file.write(buffer.getbuffer()))
    except OSError as error:
        _warn("unwritable", f"{path} cannot be kept ({error}): made anew at each start; set COLLECTIVE_CACHE")
    return made


def _warn(kind: str, text: str) -> None:
    if kind not in _told:
        _told.add(kind)
        warnings.warn(text, QuintetWarning, stacklevel=4)
