"""Options of `collective video`, `plot`, `config` and `doctor`. The comments are their --help. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro.conf

from collective.config import TasksConfig, check_range


@dataclass(frozen=True, kw_only=True)
class VideoConfig(TasksConfig):
    """Film a policy, one episode a task."""

    policy: Literal["collective", "expert", "scripted"] = "collective"  # Whose.
    run: Path | None = None  # Folder of a run of `distill` or `pipeline` (collective), or of `train-worker` (expert).
    output: Path = Path("videos")  # Folder of the films; each is called by task, success and return.
    format: Literal["mp4", "gif"] = "mp4"  # Of the films; both need the extra video.
    goal_seed: int = 1_000  # Decides the 50 goals of each task.
    goal: int = 0  # Which of them, 0 .. 49.
    horizon: int = 200  # Steps of a film at most; it ends 20 steps after the first success.
    every: int = 2  # Steps between frames.
    fps: int = 30  # Frames a second.
    arm: str | None = None  # Of a distilled run: cls, task-id or zero; the first one if left out.
    device: str = "auto"  # auto, cpu, cuda or cuda:0.
    debug: bool = False  # Show full tracebacks.

    def __post_init__(self) -> None:
        check_range(self, "horizon", "every", "fps", high=2**20)
        check_range(self, "goal", low=0, high=50)


@dataclass(frozen=True, kw_only=True)
class PlotConfig:
    """Draw what a run has recorded: losses and success over its steps; of a pipeline, success by task."""

    run: tyro.conf.Positional[Path]  # Folder of the run.
    output: Path | None = None  # Picture to write, .png, .svg or .pdf; RUN/plots/training.png if left out.
    debug: bool = False  # Show full tracebacks.


@dataclass(frozen=True, kw_only=True)
class ShowConfig:
    """Print every option of a command with its value under a preset, or those that a run had."""

    what: tyro.conf.Positional[str]  # A command, such as distill, or the folder of a run.
    with_preset: str = "none"  # Preset of the command that is put over its defaults.
    json: bool = False  # Print JSON; otherwise YAML, as --config reads it.
    debug: bool = False  # Show full tracebacks.


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """Check the installation: versions, Meta-World, a few seconds of scripted experts, drawing."""

    tasks: bool = False  # List all tasks and benchmarks instead.
    json: bool = False  # Print the findings as JSON.
    debug: bool = False  # Show full tracebacks.
