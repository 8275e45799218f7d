"""Films of episodes: GIF through Pillow, MP4 through imageio's own ffmpeg (extra `video`)."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from rlcore.errors import EnvironmentProblem, UsageError
from rlcore.files import write_atomic

Frame = np.ndarray[Any, Any]


def write(path: Path, frames: Iterable[Frame], fps: float = 30) -> None:
    """Write frames, uint8 (H, W, 3) of one size, as a .gif or .mp4 with `fps` frames a second. Makes the folder.

    GIF counts time in 1/100 s and viewers slow down what is shorter than 2/100: at most 50 frames a second. MP4 players
    want even sizes: a missing last row or column is filled by repeating the edge.
    """
    writers = {".gif": _gif, ".mp4": _mp4}
    if path.suffix not in writers or fps <= 0:
        raise UsageError(f"{path} at {fps:g} frames a second: expected a .gif or .mp4 and a rate above 0")
    stream = iter(frames)
    if (first := next(stream, None)) is None:
        raise UsageError(f"{path}: a video needs at least one frame")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_atomic(path, lambda file: writers[path.suffix](file, itertools.chain([first], stream), fps))
    except ImportError as error:
        raise EnvironmentProblem(f"videos need pip install 'rlcore[video]' ({error})") from error


def _gif(file: IO[bytes], frames: Iterator[Frame], fps: float) -> None:
    from PIL import Image

    images = map(Image.fromarray, frames)
    next(images).save(file, "GIF", save_all=True, append_images=images, duration=max(20, round(100 / fps) * 10), loop=0)


def _mp4(file: IO[bytes], frames: Iterator[Frame], fps: float) -> None:
    import imageio.v2 as imageio

    film: Any = imageio.get_writer(file.name, format="FFMPEG", fps=fps, codec="libx264", macro_block_size=1)
    with contextlib.closing(film):  # imageio's own `with` leaves ffmpeg running when a frame cannot be drawn
        for frame in frames:
            film.append_data(np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge"))
