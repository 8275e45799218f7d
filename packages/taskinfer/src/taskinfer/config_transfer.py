"""Options of `taskinfer transfer` and `taskinfer eval`. The comments are its --help. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import tyro.conf

from rlcore.config import RunConfig
from rlcore.errors import UsageError
from taskinfer.config import SEEDS, check_range
from taskinfer.tasks import parse_tasks

Unused = tyro.conf.Suppress[tyro.conf.Fixed[int]]  # what every run has and would do nothing here
HighLevelName = Literal["toy", "zeroed", "random", "oracle"]
HIGH_LEVELS: tuple[HighLevelName, ...] = get_args(HighLevelName)


def fixed_stride(text: str) -> int | None:
    """Body steps a decision, from `fixed:5`; None from `auto`. UsageError for anything else."""
    if text == "auto":
        return None
    kind, _, number = text.partition(":")
    if kind == "learned":
        raise UsageError("stride: a learned stride is not there yet: use --stride fixed:5")
    if kind != "fixed" or not number.isdecimal() or not 1 <= int(number) <= 1_000:
        raise UsageError(f"stride: expected fixed:K with K in 1 .. 1000, or auto, got {text!r}")
    return int(number)


@dataclass(frozen=True, kw_only=True)
class TransferConfig(RunConfig):
    """Drive a body by what was learnt on the toy, beside three other ways to choose its sub-goals.

    Nothing is trained. A command that was stopped goes on with the first high level that was not done.
    """

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "debug": {"tasks": "goal:2,-2;velocity:1", "repeats": 1, "decisions": 5, "stride": "fixed:2"},
    }

    dir: Path = Path("output/transfer")  # Folder of the runs.
    log_every: Unused = 1_000  # Rows come by tenths of a high level's turn, a checkpoint at its end.
    eval_every: Unused = 10_000
    save_every: Unused = 10_000
    keep_every: tyro.conf.Suppress[tyro.conf.Fixed[int | None]] = None
    inference: Path  # Folder of the toy run that infers the task: output/toy/NAME.
    low: Path  # Folder of the low-level run that moves the body: output/low_level_policy/NAME.
    inference_checkpoint: str = "auto"  # best, final, last, a file; auto takes the first there is.
    low_checkpoint: str = "auto"  # The same for the low level.
    high_level: tuple[HighLevelName, ...] = HIGH_LEVELS  # Who sets the sub-goals.
    tasks: str = "goal:2,-2,5,-5;velocity:1,-1,2,-2"  # What is rewarded: m from x = 0, m/s.
    repeats: int = 5  # Bodies for each task.
    decisions: int = 100  # Of an episode.
    stride: str = "auto"  # Body steps a decision: fixed:K, or auto, as many as last as long as a step of the toy.
    reach: float = 1.5  # m that the toy's full action asks a body to go; on the toy itself it is 0.5.
    sample: bool = True  # The toy's policy acts with its noise: a body that stands still shows nothing of its task.
    reward: Literal["last", "mean", "sum"] = "last"  # What a decision is paid of its body steps.
    json: bool = False  # Print the result as JSON.

    def __post_init__(self) -> None:
        super().__post_init__()
        fixed_stride(self.stride)
        parse_tasks(self.tasks)
        check_range(self, "repeats", "decisions", high=2**20)
        if not 0 < self.reach <= 100:
            raise UsageError(f"reach: must be in (0, 100] m, got {self.reach}")
        if not self.high_level or len(set(self.high_level)) < len(self.high_level):
            raise UsageError(f"high_level: expected some of {', '.join(HIGH_LEVELS)}, each once, got {self.high_level}")


@dataclass(frozen=True, kw_only=True)
class EvalCausalityConfig:
    """Say whether beliefs cause what a toy run does: swapped and zeroed beliefs, noise in place of actions.

    Writes analysis/causality.json.
    """

    run: tyro.conf.Positional[Path]  # Folder of a toy run: output/toy/NAME.
    checkpoint: str = "auto"  # best, final, last, a file; auto takes the first there is.
    pairs: int = 10  # Pairs of opposite tasks for each kind.
    seed_base: int = 10_000  # Decides the points' first states.
    json: bool = False  # Print the result as JSON.
    debug: bool = False  # Show full tracebacks.

    def __post_init__(self) -> None:
        check_range(self, "pairs", high=10_001)
        check_range(self, "seed_base", low=0, high=SEEDS)


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """What all of `taskinfer eval` have that play episodes."""

    run: tyro.conf.Positional[Path]  # Folder of a toy run or of a transfer: output/toy/NAME, output/transfer/NAME.
    tasks: str | None = None  # For example goal:5,-5;velocity:2; left out: some of each family, or the transfer's.
    checkpoint: str = "auto"  # Of a toy run: best, final, last, a file; auto takes the first there is.
    high_level: HighLevelName = "toy"  # Of a transfer: who sets the sub-goals.
    seed_base: int = 10_000  # Decides where points and bodies begin.
    debug: bool = False  # Show full tracebacks.

    def __post_init__(self) -> None:
        if self.tasks is not None:
            parse_tasks(self.tasks)
        check_range(self, "repeats", "num", "steps", "switch", "every", high=2**20)
        check_range(self, "seed_base", low=0, high=SEEDS)


@dataclass(frozen=True, kw_only=True)
class EvalTasksConfig(EvalConfig):
    """Play fixed tasks: how near each episode came, and pictures of trajectories against targets.

    Writes analysis/tasks.csv, .json and .npz, and plots/tasks_KIND.png.
    """

    repeats: int = 5  # Episodes a task.
    steps: int | None = None  # Decisions an episode; left out: as in the run.
    format: str = "png"  # Of the pictures: png,pdf,svg or some of them.
    json: bool = False  # Print the result as JSON.


@dataclass(frozen=True, kw_only=True)
class EvalNonstationaryConfig(EvalConfig):
    """Switch the task in the middle of episodes: how soon is the new one known, and done.

    Writes analysis/nonstationary.npz, which `taskinfer plot belief` draws, and .json.
    """

    switch: int = 60  # Steps (on a body: decisions) of one task.
    steps: int = 299  # Of an episode.
    num: int = 40  # Episodes; their first tasks are all tasks in turn.
    json: bool = False  # Print the result as JSON.


@dataclass(frozen=True, kw_only=True)
class EvalVideoConfig(EvalConfig):
    """Film a transfer's body at its tasks, one after another, with the reward and the belief. Writes videos/."""

    steps: int = 40  # Decisions a task.
    view: Literal["side", "camera"] = "side"  # side: drawn by lines; camera: the simulator's, needs a graphics driver.
    every: int = 2  # Body steps a frame.
    fps: float | None = None  # Frames a second; left out: as fast as the body is.
    gif: bool = False  # Write a .gif in place of an .mp4.
    output: Path | None = None  # File; left out: RUN/videos/HIGH_LEVEL.mp4 (or .gif).

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fps is not None and not 0 < self.fps <= 1_000:
            raise UsageError(f"fps: must be in (0, 1000], got {self.fps}")
