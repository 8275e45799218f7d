"""Options of `train-worker` and `online-distill`. The comments are their --help. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro.conf

from collective.config import TasksConfig, check_range, resolve_tasks
from rlblocks.config import SACConfig
from rlcore.config import RunConfig
from rlcore.errors import UsageError


def _expert_sac() -> SACConfig:
    return SACConfig(
        init="xavier", log_std_map="tanh", target_every=2, alpha=0.1, alpha_lr=1e-4, target_entropy=-4.0
    )  # fmt: skip


def _copy_sac() -> SACConfig:
    return SACConfig(init="xavier", log_std_map="tanh", actor_lr=1e-3, learn_alpha=False)


@dataclass(frozen=True, kw_only=True)
class ManyConfig(TasksConfig, RunConfig):
    """What working at several tasks at once takes. Options count env steps of each task; records, of all together."""

    tasks: Annotated[tuple[str, ...], tyro.conf.arg(aliases=("--task",))] = ()  # Task names: reach-v3 push-v3 ...
    num_envs: int = 1  # Envs of each task, stepped together.
    workers: int = 0  # Processes that step them; 0 steps here.
    horizon: int = 500  # Env steps of an episode, which is cut there, not ended.
    reward_version: Literal["v1", "v2"] = "v2"  # Meta-World's reward function.
    goals: Literal["random", "cycle", "fixed"] = "random"  # Which of the task's 50 goals an episode has.
    goal_seed: int = 0  # Decides the 50 goals.
    gamma: float = 0.99  # Discount an env step.
    log_every: int = 1_000  # Env steps of each task between training rows in metrics.jsonl.
    eval_every: int = 10_000  # Env steps of each task between evaluations.
    save_every: int = 10_000  # Env steps of each task between checkpoints.
    eval_episodes: int = 50  # Episodes of each task in an evaluation: greedy, each with the next of the 50 goals.
    eval_horizon: int = 500  # Env steps of such an episode.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "num_envs", "horizon", "eval_episodes", "eval_horizon")
        check_range(self, "workers", "goal_seed", low=0)
        if not 0 < self.gamma < 1:
            raise UsageError(f"gamma: must be in (0, 1), got {self.gamma}")

    @cached_property
    def chosen(self) -> tuple[str, ...]:
        """The tasks meant, in their order. UsageError where there is none or an unknown one."""
        return resolve_tasks([name for word in self.tasks for name in word.split(",")], self.benchmark, self.exclude)


@dataclass(frozen=True, kw_only=True)
class WorkerConfig(ManyConfig):
    """Train an expert a task, by soft actor-critic, all in one program. The same command again continues the run."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        # Chosen on seeds 101 and 102 (docs/log.md). Targets follow fast and values reach 20 steps ahead: with 0.99 and
        # a lag of 200 updates 30,000 steps are too few on one seed in three.
        "cpu": {
            "steps": 30_000, "batch_size": 128, "updates_per_step": 1.0, "horizon": 200, "gamma": 0.95,
            "eval_every": 5_000, "eval_episodes": 20,
            "sac": {"actor_lr": 1e-3, "critic_lr": 1e-3, "alpha_lr": 1e-3, "tau": 0.02, "target_every": 1},
        },
        "single-gpu": {"num_envs": 4},
        "gpu-server": {"num_envs": 16, "workers": 16, "updates_per_step": 0.25},
        "reference": {"horizon": 400, "random_steps": 0, "sac": {"alpha": 0.01}},
        "debug": {
            "tasks": ["toy-reach"], "steps": 240, "num_envs": 2, "horizon": 20, "random_steps": 40, "batch_size": 16,
            "updates_per_step": 0.25, "replay": 1_000, "snapshot_after": 80, "snapshot_every": 80, "snapshot_rows": 50,
            "log_every": 40, "eval_every": 120, "save_every": 120, "eval_episodes": 3, "eval_horizon": 20,
            "sac": {"hidden": [8, 8]},
        },
    }  # fmt: skip

    dir: Path = Path("experiments/experts")  # Folder of the runs.
    # --- length of the run, in env steps of each task
    steps: int = 100_000  # Env steps of each task.
    random_steps: int = 2_000  # Of them with random actions, before the first update.
    # --- learning
    updates_per_step: float = 1.0  # Updates of each expert for each env step of its task.
    batch_size: int = 512  # Transitions an update.
    replay: int = 140_000  # Transitions kept of each task.
    save_replay: bool = True  # Keep them on disk, so that a resumed run repeats bit for bit.
    reward_norm: bool = False  # Learn from rewards divided by their running standard deviation.
    sac: SACConfig = field(default_factory=_expert_sac)  # Networks and their learning.
    # --- experience kept as data, labelled at the end by the finished experts
    snapshot_after: int = 8_000  # Env steps of each task before the first snapshot.
    snapshot_every: int = 10_000  # Then a snapshot at each multiple of this many env steps of each task.
    snapshot_rows: int = 800  # Newest transitions of each task that a snapshot keeps, made up to whole episodes.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "steps", "batch_size", "snapshot_every", "snapshot_rows")
        check_range(self, "random_steps", "snapshot_after", low=0)
        if not 0 <= self.updates_per_step < 1_000:
            raise UsageError(f"updates_per_step: must be in [0, 1000), got {self.updates_per_step}")
        if self.replay < self.num_envs:
            raise UsageError(f"replay: must be at least num_envs, {self.num_envs}, got {self.replay}")


@dataclass(frozen=True, kw_only=True)
class OnlineConfig(ManyConfig):
    """Record a task while random actions, an ever better copy of its expert, and the expert itself act in turn.

    Every step is labelled with what the expert would have done. The same command again continues the run.
    """

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "cpu": {"budget": "small", "batch_size": 256, "eval_episodes": 10},
        "single-gpu": {"num_envs": 4},
        "gpu-server": {"num_envs": 16, "workers": 16},
        "debug": {
            "tasks": ["toy-reach"], "expert": "scripted", "num_envs": 2, "horizon": 20, "random_steps": 40,
            "network_steps": 120, "expert_steps": 80, "catch_up": 20, "batch_size": 16, "log_every": 40,
            "eval_every": 80, "save_every": 80, "eval_episodes": 3, "eval_horizon": 20, "sac": {"hidden": [8, 8]},
        },
    }  # fmt: skip

    dir: Path = Path("experiments/online")  # Folder of the runs; the data set is data/ in the run's own.
    expert: Literal["sac", "scripted"] = "sac"  # Whose actions are the labels.
    experts: Path = Path("experiments/experts")  # sac: a run of `collective train-worker`, or the folder of such runs.
    checkpoint: str = "auto"  # sac: best, final, last, a file; auto takes the first there is.
    budget: Literal["small", "full"] = "full"  # small: all counts of steps and updates below, and periods, over 10.
    # --- phases, in env steps of each task
    random_steps: int = 8_000  # Random actions.
    network_steps: int = 32_000  # The temporary network acts, with noise, and learns.
    expert_steps: int = 20_000  # The expert acts; nothing is learnt any more.
    catch_up: int = 8_000  # Updates of the temporary network before it acts for the first time.
    update_every: int = 2  # Env steps of each task between its later updates.
    # --- learning
    batch_size: int = 512  # Transitions an update.
    sac: SACConfig = field(default_factory=_copy_sac)  # The temporary network: only what concerns the actor counts.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "random_steps", "network_steps", "expert_steps", "update_every", "batch_size")
        check_range(self, "catch_up", low=0)

    def scaled(self, count: int) -> int:
        """A count of steps or updates under the budget."""
        return max(count // 10, min(count, 1)) if self.budget == "small" else count

    @property
    def phases(self) -> tuple[int, int, int]:
        """Env steps of each task after which a phase is over."""
        first = self.scaled(self.random_steps)
        second = first + self.scaled(self.network_steps)
        return first, second, second + self.scaled(self.expert_steps)
