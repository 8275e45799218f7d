"""Options of `train-student`, `finetune` and `compare-students`. The comments are their --help. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import tyro.conf

from collective.config import check_range, task_name
from rlblocks.config import SACConfig
from rlcore.config import RunConfig
from rlcore.errors import UsageError

# Options of the agent that fine-tuning has; sizes, and what the actor's outputs mean, are the network's.
TUNED = ("actor_lr", "critic_lr", "alpha_lr", "alpha", "target_entropy", "tau", "target_every", "actor_every")


def _student_sac() -> SACConfig:
    return SACConfig(init="xavier", log_std_map="tanh", target_every=2, alpha=1.0)


@dataclass(frozen=True, kw_only=True)
class LearnConfig(RunConfig):
    """What learning a task by soft actor-critic takes, with and without a collective network."""

    dir: Path = Path("experiments/students")  # Folder of the runs.
    task: str  # Task to learn: drawer-open-v3, toy-reach, ...
    num_envs: int = 1  # Envs stepped together.
    horizon: int = 500  # Env steps of an episode, which is cut there, not ended.
    reward_version: Literal["v1", "v2"] = "v2"  # Meta-World's reward function.
    goals: Literal["random", "cycle", "fixed"] = "random"  # Which of the task's 50 goals an episode has.
    goal_seed: int = 0  # Decides the 50 goals.
    updates_per_step: float = 1.0  # Updates an env step.
    batch_size: int = 512  # Transitions an update.
    replay: int = 140_000  # Transitions kept.
    save_replay: bool = True  # Keep them on disk, so that a resumed run repeats bit for bit.
    gamma: float = 0.99  # Discount an env step.
    eval_every: int = 4_000  # Env steps between evaluations.
    eval_episodes: int = 10  # Episodes of an evaluation: greedy, the same ones each time; 50 have a goal each.
    eval_goal_seed: int = 0  # Decides the goals of evaluations; the goal_seed of training means the same 50.
    early_stop: int | None = None  # Stop after this many evaluations in a row that all succeed.

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.task, str):  # not yet there while the command line is being read
            object.__setattr__(self, "task", task_name(self.task))  # -v2 means -v3, and is remarked upon once
        check_range(self, "num_envs", "horizon", "batch_size", "replay", "eval_episodes", "early_stop")
        check_range(self, "goal_seed", "eval_goal_seed", low=0)
        if not 0 <= self.updates_per_step < 1_000:
            raise UsageError(f"updates_per_step: must be in [0, 1000), got {self.updates_per_step}")
        if not 0 < self.gamma <= 1:
            raise UsageError(f"gamma: must be in (0, 1], got {self.gamma}")
        if self.replay < self.num_envs:
            raise UsageError(f"replay: must be at least num_envs, {self.num_envs}, got {self.replay}")


_DEBUG: dict[str, Any] = {
    "task": "toy-reach", "horizon": 20, "num_envs": 2, "batch_size": 16, "updates_per_step": 0.25, "replay": 300,
    "eval_every": 120, "eval_episodes": 3, "save_every": 120, "log_every": 40,
}  # fmt: skip
_CPU: dict[str, Any] = {"batch_size": 128, "replay": 100_000, "eval_every": 1_000, "save_every": 5_000}


@dataclass(frozen=True, kw_only=True)
class StudentConfig(LearnConfig):
    """Learn a task with a teacher who is imitated, may act himself and may pay. The same command goes on."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        # Measured on seed 100 (docs/log.md): cloning and mixing teach, a bonus alone does not, kept advice lasts.
        "cpu": {
            **_CPU, "steps": 15_000, "horizon": 200, "updates_per_step": 0.5, "warmup": 1_000, "constant": 2_000,
            "expire": 8_000, "shaping": "none", "clone": 1.0, "clone_kept": 1.0, "mix": 0.5,
            "sac": {
                "alpha": 0.1, "actor_lr": 1e-3, "critic_lr": 1e-3, "alpha_lr": 1e-3, "tau": 0.02, "target_every": 1,
            },
        },
        "single-gpu": {"num_envs": 8, "batch_size": 1_024, "horizon": 500},
        "reference": {"horizon": 400},
        "debug": {
            **_DEBUG, "steps": 240, "warmup": 40, "constant": 40, "expire": 200, "sac": {"hidden": [8, 8]},
        },
    }  # fmt: skip

    teacher: str  # Run folder of `collective distill`; scripted; or none, plain soft actor-critic.
    shaping: Literal["bonus", "potential", "none"] = "bonus"  # Paid for: acts like the teacher's, or states he values.
    bonus_scale: float = 1.0  # Worth, in reward, of acting exactly like the teacher, at first (--shaping bonus).
    sigma_min: float = 0.3  # For the bonus, the teacher's standard deviation counts as at least this ...
    sigma_max: float = 1.0  # ... and as at most this.
    mix: float = 0.0  # Probability that the teacher acts instead, at first.
    mix_by: Literal["step", "episode"] = "step"  # Tossed for: each step, or a whole episode.
    clone: float = 0.0  # What imitating the teacher's actions counts in the actor's loss, beside the values, at first.
    clone_kept: float = 0.0  # What imitating the advice in memory counts at least, also when the teacher is gone.
    clone_filter: bool = False  # Imitate only where the critics hold that action to be better than the student's own.
    steps: int = 50_000  # Env steps over all envs.
    warmup: int = 4_000  # Env steps of random actions before the first update.
    constant: int = 4_000  # Env steps after those before bonus, clone and mix begin to shrink.
    expire: int = 50_000  # Env step at which they are gone (but for clone_kept), and the teacher is asked no more.
    sac: SACConfig = field(default_factory=_student_sac)  # The student.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "steps", "expire")
        check_range(self, "warmup", "constant", "bonus_scale", "clone", low=0)
        if not 0 <= self.clone_kept <= self.clone:
            raise UsageError(f"clone_kept: must be in [0, clone], [0, {self.clone:g}], got {self.clone_kept}")
        if self.clone_kept and (self.replay < self.steps or not self.save_replay):
            needs = f"a replay of at least {self.steps:,} transitions, one an env step, and save_replay"
            raise UsageError(f"clone_kept: the advice must stay in memory; that needs {needs}")
        if not 0 <= self.mix <= 1:
            raise UsageError(f"mix: must be in [0, 1], got {self.mix}")
        if not 0 < self.sigma_min <= self.sigma_max < 1e6:
            raise UsageError(f"sigma_min, sigma_max: need 0 < min <= max, got {self.sigma_min}, {self.sigma_max}")
        if self.warmup + self.constant >= self.expire:
            raise UsageError(f"expire: must come after warmup + constant, {self.warmup + self.constant:,}")
        if self.clone_filter and not self.clone:
            raise UsageError("clone_filter: nothing is imitated without --clone")
        if self.clone and self.shaping == "potential":
            raise UsageError("clone: its scale is that of returns, which --shaping potential changes; use one of them")
        if self.shaping == "potential" and self.teacher == "scripted":
            raise UsageError("shaping potential: a script has no critics; use --shaping bonus, or a distilled teacher")


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(LearnConfig):
    """Go on learning with a collective network on one task, its encoder frozen. The same command goes on."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "cpu": {**_CPU, "batch_size": 256},
        "single-gpu": {"num_envs": 8},
        "reference": {"horizon": 400},
        "debug": {**_DEBUG, "steps": 240, "warmup": 40, "critic_warmup": 20},
    }  # fmt: skip

    dir: Path = Path("experiments/finetune")  # Folder of the runs.
    collective: str  # Run folder of `collective distill`.
    steps: int = 20_000  # Env steps over all envs.
    warmup: int = 4_000  # Env steps with the loaded policy before the first update; the updates are made up for then.
    critic_warmup: int = 0  # First updates, in which the actor stays as it is.
    actor_lr: float = 3e-4  # Adam's step size for the actor.
    critic_lr: float = 3e-4  # Adam's step size for the critics.
    alpha_lr: float = 1e-4  # Adam's step size for the logarithm of the temperature.
    alpha: float = 0.1  # Temperature at the start: worth of a nat of entropy in reward.
    target_entropy: float | None = None  # Nats an action; minus its dimension, 4, if left out.
    tau: float = 0.01  # Share of the critics that goes into the target critics at a time, in (0, 1].
    target_every: int = 2  # Updates between updates of the target critics.
    actor_every: int = 2  # Updates between updates of the actor and of the temperature.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "steps")
        check_range(self, "warmup", "critic_warmup", low=0)
        SACConfig(**{name: getattr(self, name) for name in TUNED})  # says what is out of range


@dataclass(frozen=True, kw_only=True)
class CompareStudentsConfig:
    """Compare students by task and teacher with plain soft actor-critic over their seeds: table, curves, intervals."""

    runs: tyro.conf.Positional[tuple[str, ...]] = ()  # Folders, or names in --dir; none: every student there.
    dir: Path = Path("experiments/students")  # Folder of the runs.
    output: Path | None = None  # Folder for what is written; DIR/compare if left out.
    first: int = 10_000  # Env steps over which the area under the curve is taken.
    json: bool = False  # Print the result as JSON.
    debug: bool = False  # Show full tracebacks.

    def __post_init__(self) -> None:
        check_range(self, "first")
