"""`taskinfer plot csv`, `plot gif` and `plot belief`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlcore import video
from rlcore.errors import EnvironmentProblem, UsageError
from rlcore.files import explained
from rlcore.provenance import near
from taskinfer.analysis import belief as belief_views
from taskinfer.analysis import curves, records
from taskinfer.analysis.figures import formats_of, save_all
from taskinfer.config_use import PlotBeliefConfig, PlotCsvConfig, PlotGifConfig


def plot_csv(cfg: PlotCsvConfig) -> int:
    """Draw the chosen columns of the runs."""
    formats = formats_of(cfg.format)
    if not cfg.runs:
        raise UsageError("plot csv: name a run, a folder of runs or a csv file")
    tables = [records.read(path) for path in records.find(cfg.runs)]
    if cfg.list:
        print("\n".join(dict.fromkeys(name for table in tables for name in table.columns)))
        return 0
    figure = curves.draw(records.groups(tables), records.choose(tables, cfg.columns), cfg.smooth)
    one = tables[0].path if len(tables) == 1 else None
    default = Path("progress") if one is None else one.with_suffix("") if one.is_file() else one / "plots" / "progress"
    _write(figure, cfg.output or default, formats)
    return 0


def plot_belief(cfg: PlotBeliefConfig) -> int:
    """Draw one agent of a file of beliefs."""
    formats = formats_of(cfg.format)
    path = belief_views.find(cfg.source)
    figure = belief_views.draw(belief_views.read(path, cfg.agent))
    default = cfg.source / "plots" / "belief" if cfg.source.is_dir() else path.with_suffix("")
    _write(figure, cfg.output or default, formats)
    return 0


def _write(figure: Any, stem: Path, formats: tuple[str, ...]) -> None:
    with explained(stem.parent):
        for path in save_all(figure, stem, formats):
            print(path)


def plot_gif(cfg: PlotGifConfig) -> int:
    """Write the gif: frames are left out so that it takes as long as the film, and made narrower if asked for."""
    if not cfg.video.is_file():
        raise UsageError(f"there is no film {cfg.video}{near(cfg.video)}")
    output = cfg.output or cfg.video.with_suffix(".gif")
    if output.suffix != ".gif" or output == cfg.video:
        raise UsageError(f"output: expected the name of another file that ends in .gif, got {output}")
    film, rate = _open(cfg.video)
    fps = min(cfg.fps or rate, rate, 50.0)
    with explained(output.parent):
        video.write(output, _thinned(film, fps / rate, cfg.width), fps)
    print(f"{output}: {fps:g} frames a second, {output.stat().st_size / 2**20:.1f} MiB")
    return 0


def _open(path: Path) -> tuple[Any, float]:
    """A film's frames and their rate."""
    try:
        import imageio.v2 as imageio

        film: Any = imageio.get_reader(path)
        return film, float(film.get_meta_data()["fps"])
    except ImportError as error:
        raise EnvironmentProblem(f"reading films needs pip install 'rlcore[video]' ({error})") from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UsageError(f"{path} cannot be read as a film: {' '.join(str(error).split())[:160]}") from error


def _thinned(film: Any, share: float, width: int | None) -> Iterator[Any]:
    """That share of the frames, evenly; scaled to `width` pixels."""
    import numpy as np
    from PIL import Image

    for i, frame in enumerate(film):
        if math.floor((i + 1) * share) == math.floor(i * share) and share < 1.0:
            continue
        if width is not None and width != frame.shape[1]:
            size = (width, max(1, round(frame.shape[0] * width / frame.shape[1])))
            frame = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS))
        yield frame
