"""Task codes of a data set, kept beside it, and never believed of another encoder.

`codes.npz` in a data set's folder holds a code for each of its rows and says which encoder made them, of which shards.
Codes of another encoder are refused until they are computed anew: a policy that is trained on codes which its encoder
would never give learns to ignore them, and nothing shows it.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from collective.data import Array, Dataset, digest_of
from collective.windows import windows_of
from rlcore.errors import DataError
from rlcore.files import explained, write_atomic

BATCH = 1_024  # windows encoded at once


class Coder(Protocol):
    """What makes codes of windows: `collective.encoder.Encoder`."""

    code_dim: int
    length: int
    fingerprint: str

    def codes(self, states: Array, actions: Array, rewards: Array, lengths: Array) -> Array: ...


def encode(data: Dataset, encoder: Coder, show: Callable[[int], None] = lambda done: None) -> Array:
    """(N, D) float32: the code of each row's window."""
    found = np.empty((len(data.obs), encoder.code_dim), np.float32)
    for begin in range(0, len(found), BATCH):
        rows = np.arange(begin, min(begin + BATCH, len(found)))
        found[rows] = encoder.codes(*windows_of(data, rows, encoder.length))
        show(int(rows[-1]) + 1)
    return found


def stored_codes(
    folder: Path, data: Dataset, encoder: Coder, reencode: bool, show: Callable[[int], None] = lambda done: None
) -> Array:
    """The codes in `folder`, or new ones, which are stored. Those of other shards are always computed anew.

    Raises: DataError where there are codes of another encoder and `reencode` is not set.
    """
    path, mine = folder / "codes.npz", (encoder.fingerprint, digest_of(data))
    if path.exists():
        made_by, codes = _read(path)
        if made_by == mine and codes.shape == (len(data.obs), encoder.code_dim):
            return codes
        if made_by[0] != mine[0] and not reencode:
            text = f"holds task codes of encoder {made_by[0]}, this one is {mine[0]}"
            raise DataError(f"{path} {text}: the encoder was trained again; add --reencode to compute them anew")
    codes = encode(data, encoder, show)
    image = io.BytesIO()
    np.savez(image, encoder=np.array(mine[0]), data=np.array(mine[1]), codes=codes)
    with explained(folder):
        write_atomic(path, lambda file: file.write(image.getbuffer()))
    return codes


def _read(path: Path) -> tuple[tuple[str, str], Array]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return (str(arrays["encoder"]), str(arrays["data"])), arrays["codes"]
    except Exception as error:  # numpy and zipfile raise many types for a damaged file
        raise DataError(f"{path} cannot be read ({error!r}): delete it, codes are computed anew") from None
