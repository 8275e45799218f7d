"""Options of `collective record` and `collective dataset`. The comments are their --help. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import tyro.conf

from collective.config import SEEDS, TasksConfig, Unused, check_range
from rlcore.config import RunConfig
from rlcore.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class RecordConfig(TasksConfig, RunConfig):
    """Record behaviour, and beside every step what the task's scripted expert would have done there."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "cpu": {"steps": 6_000, "policy": "mixed", "p_scripted": 0.9, "noise": 0.6},
        "debug": {
            "benchmark": "toy", "steps": 300, "horizon": 60, "save_every": 300, "log_every": 300, "policy": "mixed",
            "p_scripted": 0.9,
        },
    }  # fmt: skip

    dir: Path = Path("experiments/data")  # Folder of the data sets.
    eval_every: Unused = 10_000
    policy: Literal["random", "scripted", "mixed"] = "scripted"  # Who acts; mixed tosses a coin for every step.
    p_scripted: float = 0.6  # mixed: probability that a step's action is the script's; otherwise it is random.
    noise: float = 0.0  # Scripted actions get drifting noise of up to this standard deviation; drawn for each episode.
    steps: int = 6_000  # Env steps of each task.
    copies: int = 4  # Envs of each task.
    horizon: int = 200  # Steps of the longest episode; most scripts are done in 30 to 125.
    stop_after_success: int | None = 10  # End an episode so many steps after its first success; None: never.
    goals: Literal["random", "cycle", "fixed"] = "random"  # Which of a task's 50 goals an episode has.
    goal_seed: int = 0  # Decides the 50 goals of each task.
    reward_version: Literal["v1", "v2"] = "v2"  # Of Meta-World's rewards; v2 is in 0 .. 10.
    workers: int = 0  # Processes that step envs; 0 steps them here.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "steps", "copies", "horizon", "stop_after_success", high=2**31)
        check_range(self, "workers", "goal_seed", low=0, high=2**31)
        check_range(self, "noise", low=0, high=10)
        if not 0 <= self.p_scripted <= 1:
            raise UsageError(f"p_scripted: a probability, got {self.p_scripted}")
        if self.policy == "random" and self.noise:
            raise UsageError("noise: only scripted actions get some; use --policy scripted or mixed")


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """What the `dataset` commands share."""

    data: tyro.conf.Positional[Path]  # Folder of the data set.
    debug: bool = False  # Show full tracebacks.


@dataclass(frozen=True, kw_only=True)
class InfoConfig(DatasetConfig):
    """Say what is in a data set: tasks, trajectories, success, splits, who acted."""

    json: bool = False  # Print it as JSON.


@dataclass(frozen=True, kw_only=True)
class ValidateConfig(DatasetConfig):
    """Check every shard of a data set against its checksum and every array for its shape and finite numbers."""

    repair: bool = False  # Drop damaged shards from the manifest; the files stay, renamed to .bad.


@dataclass(frozen=True, kw_only=True)
class SplitConfig(DatasetConfig):
    """Choose anew which trajectories are held out for validation. No shard is touched."""

    fraction: float = 0.2  # Share of each task's trajectories; at least one of each.
    seed: int = 0  # Decides which.

    def __post_init__(self) -> None:
        check_range(self, "seed", low=0, high=SEEDS)
        if not 0 < self.fraction < 1:
            raise UsageError(f"fraction: must be in (0, 1), got {self.fraction}")


@dataclass(frozen=True, kw_only=True)
class MergeConfig:
    """Write several data sets as one; they must have the same sizes, rewards and versions."""

    data: tyro.conf.Positional[tuple[Path, ...]]  # Folders of the data sets.
    out: Path  # Folder to write.
    debug: bool = False  # Show full tracebacks.


@dataclass(frozen=True, kw_only=True)
class SubsampleConfig(DatasetConfig):
    """Write a part of a data set: of each task, later trajectories or a random choice, never one twice."""

    out: Path  # Folder to write.
    drop_first: float = 0.25  # Of a task with more than `above` trajectories, drop this share of the first ones.
    above: int = 1_000  # Trajectories up to which nothing is dropped.
    max: int = 2_200  # Trajectories of each task at most; drawn without replacement.
    seed: int = 0  # Decides which.

    def __post_init__(self) -> None:
        check_range(self, "max", "above", high=2**31)
        check_range(self, "seed", low=0, high=SEEDS)
        if not 0 <= self.drop_first < 1:
            raise UsageError(f"drop_first: must be in [0, 1), got {self.drop_first}")
