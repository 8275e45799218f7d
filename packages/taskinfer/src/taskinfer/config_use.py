"""Options of the verbs that use or compare what was trained. The comments are their --help. Loads no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import tyro.conf

from rlcore.errors import UsageError
from taskinfer.config import SEEDS, Arm, ToyConfig, check_range


@dataclass(frozen=True, kw_only=True)
class BenchToyConfig(ToyConfig):
    """Train what the policy may know of the task (a belief, the truth, nothing) on the same seeds, and compare.

    Every run is an ordinary one of `taskinfer toy train`; the same command again goes on where it stopped. The options
    below are those of all runs.
    """

    dir: Path = Path("output/bench")  # Folder of the benches; the runs are in DIR/NAME.
    name: str | None = "toy"  # Name of the bench.
    seed: tyro.conf.Suppress[tyro.conf.Fixed[int]] = 0  # One of --seeds.
    arm: tyro.conf.Suppress[tyro.conf.Fixed[Arm]] = "inferred"  # Each of --arms.
    resume: tyro.conf.Suppress[tyro.conf.Fixed[Literal["auto", "never", "must"]]] = "auto"  # Always.
    overwrite: tyro.conf.Suppress[tyro.conf.Fixed[bool]] = False  # Never: take another --name.
    seeds: str = "0-4"  # Seeds of the runs: 0-4 or 0,1,7.
    arms: tuple[Arm, ...] = ("inferred", "oracle", "none")  # What is compared; two of them give no fraction.
    causality: bool = True  # Also say whether beliefs cause what the runs that infer do; see `eval causality`.
    workers: int = 1  # Runs at a time, each with its own process and --threads.
    json: bool = False  # Print the result as JSON.

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_seeds(self.seeds)
        if self.seed or self.arm != "inferred" or self.resume != "auto" or self.overwrite:
            raise UsageError("seed, arm, resume, overwrite: a bench has --seeds and --arms, and another --name")
        if not self.arms or len(set(self.arms)) < len(self.arms):
            raise UsageError(f"arms: expected some of inferred oracle none, each once, got {self.arms}")
        check_range(self, "workers", high=1_025)

    @property
    def folder(self) -> Path:
        """Where the runs, their logs and the result go."""
        return self.dir / (self.name or "toy")

    def run_config(self, arm: Arm, seed: int) -> ToyConfig:
        """The options of one of the runs."""
        own = {f.name: getattr(self, f.name) for f in fields(ToyConfig)}
        return ToyConfig(**{**own, "arm": arm, "seed": seed, "name": f"{arm}-s{seed}", "dir": self.folder})


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds from `0-4` or `0,1,7`, in that order. UsageError for anything else, and for a seed named twice."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if not first <= last < first + 1000:
            raise UsageError(f"seeds: expected e.g. 0-4 or 0,1,7, got {text!r}")
        seeds += range(first, last + 1)
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"seeds: {text!r} names a seed twice")
    return tuple(seeds)


@dataclass(frozen=True, kw_only=True)
class ToyEvalConfig:
    """Score a toy run on its held-out tasks, by deterministic episodes from fresh starts; writes eval.json."""

    name: str  # Name of the run.
    dir: Path = Path("output/toy")  # Folder of the runs.
    checkpoint: str = "auto"  # best, final, last, a file; auto takes the first there is.
    repeats: int = 5  # Episodes of each task.
    seed_base: int = 10_000  # Decides the starts: the same one gives the same episodes.
    json: bool = False  # Print the result as JSON.
    debug: bool = False  # Show full tracebacks.

    def __post_init__(self) -> None:
        check_range(self, "repeats", high=100_001)
        check_range(self, "seed_base", low=0, high=SEEDS)


@dataclass(frozen=True, kw_only=True)
class ConfigShowConfig:
    """Print the options of a run as YAML; what is not the default has the default beside it.

    `config show toy` and `config show low` print those of a run that is still to come, with any options and presets.
    """

    run: tyro.conf.Positional[Path]  # Folder of a run.
    debug: bool = False  # Show full tracebacks.


@dataclass(frozen=True, kw_only=True)
class ConfigDiffConfig:
    """Print the options in which two runs differ, or a run and the defaults."""

    run: tyro.conf.Positional[Path]  # Folder of a run.
    other: tyro.conf.Positional[Path | None] = None  # Folder of another one; left out: the defaults.
    json: bool = False  # Print them as JSON.
    debug: bool = False  # Show full tracebacks.


@dataclass(frozen=True, kw_only=True)
class PlotCsvConfig:
    """Draw what was learnt, from the records of runs or from any progress.csv.

    Runs that differ by their seed alone are one line: the interquartile mean and its 95 % bootstrap band.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]  # Runs, folders of runs (such as a bench's), or csv files.
    columns: str = ""  # Comma-separated, a panel each: test_return,test_success; left out: what the stage is about.
    smooth: int = 1  # Rows of each run in a moving average; an odd number.
    format: str = "png"  # Of the files: png,pdf,svg or some of them.
    output: Path | None = None  # File, less its suffix; left out: RUN/plots/progress, or progress here for several.
    list: bool = False  # Only print the columns that there are.
    debug: bool = False  # Show full tracebacks.

    def __post_init__(self) -> None:
        if self.smooth < 1 or self.smooth % 2 == 0:
            raise UsageError(f"smooth: must be odd (a row and its neighbours on either side), got {self.smooth}")


@dataclass(frozen=True, kw_only=True)
class PlotLatentConfig:
    """Draw the latents of a toy run, coloured by family and labelled with specs; save them for other tools."""

    run: tyro.conf.Positional[Path]  # Folder of the run.
    checkpoint: str = "auto"  # best, final, last, a file; auto takes the first there is.
    dims: Literal[2, 3] = 2  # Of the pictures.
    tsne: bool = True  # Also draw t-SNE, where scikit-learn is installed.
    times: int = 5  # Beliefs of each episode, evenly spaced; the last one is labelled.
    seed_base: int = 10_000  # Decides the episodes.
    format: str = "png"  # Of the files: png,pdf,svg or some of them.
    debug: bool = False  # Show full tracebacks.

    def __post_init__(self) -> None:
        check_range(self, "times", high=10_001)
        check_range(self, "seed_base", low=0, high=SEEDS)


@dataclass(frozen=True, kw_only=True)
class PlotGifConfig:
    """Make a gif of a film."""

    video: tyro.conf.Positional[Path]  # Such as RUN/videos/film.mp4.
    output: Path | None = None  # The film's name with .gif if left out.
    fps: float | None = None  # Frames a second, at most 50; left out: the film's own.
    width: int | None = None  # Pixels; left out: the film's own.
    debug: bool = False  # Show full tracebacks.

    def __post_init__(self) -> None:
        if self.fps is not None and not 0 < self.fps <= 50:
            raise UsageError(f"fps: must be in (0, 50] (gif viewers show no more), got {self.fps}")
        if self.width is not None and not 8 <= self.width <= 8192:
            raise UsageError(f"width: must be in 8 .. 8192, got {self.width}")


@dataclass(frozen=True, kw_only=True)
class PlotBeliefConfig:
    """Draw a belief over time under task switches, beside the truth. `eval nonstationary` writes what is drawn."""

    source: tyro.conf.Positional[Path]  # A run, or the npz file itself.
    agent: int = 0  # Which of those in the file.
    format: str = "png"  # Of the files: png,pdf,svg or some of them.
    output: Path | None = None  # File, less its suffix; left out: RUN/plots/belief, or beside the npz file.
    debug: bool = False  # Show full tracebacks.
