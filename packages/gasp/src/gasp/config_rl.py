"""Options of `gasp rl` and `gasp compare`. The comments are their --help. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import tyro.conf

from gasp.config import SEEDS, check_range
from rlcore.config import RunConfig
from rlcore.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class AgentConfig:
    """The high-level agent: soft actor-critic whose actions are skills."""

    regulariser: Literal["prior", "entropy"] = "prior"  # Pays for: divergence from the skill prior, or for no prior.
    divergence: float = 1.0  # prior: nats from the prior that the temperature is tuned to.
    target_entropy: float | None = None  # entropy: nats a skill; minus its dimension if left out.
    alpha: float = 0.1  # Temperature at the start: worth of a nat in reward.
    learn_alpha: bool = True  # Tune the temperature.
    squash: Literal["range", "spirl"] = "range"  # z = c tanh(a / c), or 2 tanh(a) as published.
    squash_range: float | None = None  # c; left out: from the mixture, and at least 3.
    critics: int = 2  # Critics; the smallest of their values counts.
    critic_hidden: tuple[int, ...] = (256, 256)  # Hidden units of each critic's layers.
    gamma: float = 0.99  # Discount: of a whole skill, or of an env step where `discount` is step.
    discount: Literal["skill", "step"] = "skill"  # step: semi-Markov, rewards within a skill are discounted too.
    actor_lr: float = 3e-4  # Adam's step size for the actor.
    critic_lr: float = 3e-4  # Adam's step size for the critics.
    alpha_lr: float = 3e-4  # Adam's step size for the logarithm of the temperature.
    tau: float = 0.005  # Share of the critics that goes into the target critics at a time, in (0, 1].

    def __post_init__(self) -> None:
        check_range(self, "critics", high=1_025)
        if not self.critic_hidden or min(self.critic_hidden) < 1:
            raise UsageError(f"critic_hidden: expected at least one layer of at least 1 unit, got {self.critic_hidden}")
        for key in ("divergence", "alpha", "squash_range", "actor_lr", "critic_lr", "alpha_lr"):
            if (value := getattr(self, key)) is not None and not 0 < value < 1e6:
                raise UsageError(f"{key}: must be positive, got {value}")
        for key in ("gamma", "tau"):
            if not 0 < getattr(self, key) <= 1:
                raise UsageError(f"{key}: must be in (0, 1], got {getattr(self, key)}")
        if self.squash == "spirl" and self.squash_range is not None:
            raise UsageError("squash_range: the published squashing, 2 tanh(a), has none; use --agent.squash range")


_FAST = {"actor_lr": 1e-3, "critic_lr": 1e-3, "alpha_lr": 1e-3}
_NONE = {"regulariser": "entropy"}
_MAZE: dict[str, Any] = {"task": "maze-medium:3,4", "warmup": 3_000, "batch_size": 128, "updates_per_skill": 1.0}
# Episodes are cut, not ended, after 300 steps, so nothing but the discount makes the maze's agent hurry: at 0.99 it got
# slower again once it had learnt the way.
_MAZE_AGENT: dict[str, Any] = {**_FAST, "critic_hidden": [128, 128], "gamma": 0.95, "alpha": 0.05}
_KITCHEN: dict[str, Any] = {
    "task": "kitchen-complete", "steps": 100_000, "num_envs": 4, "warmup": 5_000, "updates_per_skill": 1.0,
    "replay": 200_000, "eval_every": 20_000, "eval_episodes": 10,
}  # fmt: skip
_KITCHEN_AGENT: dict[str, Any] = {
    **_FAST, "divergence": 5.0, "critic_hidden": [256] * 5, "gamma": 0.97, "alpha": 0.05,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RLConfig(RunConfig):
    """Learn a task by choosing among the skills of a skill run. The same command again continues the run."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "maze/gasp": {**_MAZE, "latent_prior": "dpmm", "agent": _MAZE_AGENT},
        "maze/spirl": {**_MAZE, "latent_prior": "gaussian", "agent": _MAZE_AGENT},
        "maze/none": {**_MAZE, "agent": {**_MAZE_AGENT, **_NONE}},
        "kitchen/gasp": {**_KITCHEN, "latent_prior": "dpmm", "agent": _KITCHEN_AGENT},
        "kitchen/spirl": {**_KITCHEN, "latent_prior": "gaussian", "agent": _KITCHEN_AGENT},
        "kitchen/none": {**_KITCHEN, "agent": {**_KITCHEN_AGENT, **_NONE}},
        "debug": {
            "task": "toy", "steps": 480, "num_envs": 4, "warmup": 160, "batch_size": 16, "replay": 400,
            "eval_every": 240, "eval_episodes": 2, "save_every": 240, "log_every": 80,
            "agent": {"critic_hidden": [8, 8]},
        },
    }  # fmt: skip

    dir: Path = Path("experiments/rl")  # Folder of the runs.
    skills: Path  # Folder of the skill run: experiments/skills/NAME.
    skills_checkpoint: str = "auto"  # best, final, last, a file; auto takes the first there is.
    latent_prior: Literal["any", "dpmm", "gaussian"] = "any"  # Refuse a skill run that was trained under another one.
    task: str = "maze-medium:3,4"  # toy, maze-umaze|medium|large (:ROW,COLUMN of the goal), kitchen-complete|...
    task_order: Literal["any", "enforced"] = "any"  # kitchen: enforced counts subtasks in the task's order only.
    noise: Literal["v1", "d4rl"] = "v1"  # kitchen: of what is observed, as FrankaKitchen-v1 or D4RL has it.
    steps: int = 50_000  # Env steps over all envs.
    num_envs: int = 8  # Envs stepped together.
    backend: Literal["sync", "async"] = "sync"  # async: a process an env; for envs of 1 ms a step or more.
    warmup: int = 6_000  # Env steps before the first update; skills are drawn from the prior (none: uniformly).
    updates_per_skill: float = 2.0  # Updates for each skill that was carried out.
    batch_size: int = 256  # Skills an update.
    replay: int = 100_000  # Skills kept.
    save_replay: bool = True  # Keep them on disk, so that a resumed run repeats bit for bit.
    eval_episodes: int = 20  # Episodes of an evaluation, once with the mean skill and once with a drawn one.
    agent: AgentConfig = field(default_factory=AgentConfig)  # The agent and its learning.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "steps", "num_envs", "batch_size", "replay", "eval_episodes")
        check_range(self, "warmup", low=0)
        if not self.task.startswith("kitchen") and (self.task_order, self.noise) != ("any", "v1"):
            raise UsageError(f"task_order, noise: only a kitchen has them, not {self.task}")
        if not 0 <= self.updates_per_skill < 1_000:
            raise UsageError(f"updates_per_skill: must be in [0, 1000), got {self.updates_per_skill}")
        if self.replay < self.num_envs:
            raise UsageError(f"replay: must be at least num_envs, {self.num_envs}, got {self.replay}")


@dataclass(frozen=True, kw_only=True)
class RLEvalConfig:
    """Score a run on fresh episodes; writes eval.json and pictures."""

    name: str  # Name of the run.
    dir: Path = Path("experiments/rl")  # Folder of the runs.
    checkpoint: str = "auto"  # best, final, last, a file; auto takes the first there is.
    episodes: int = 20  # Of each kind.
    seed_base: int = 10_000  # Decides the starts: the same one gives the same episodes.
    score: Literal["mean", "drawn"] = "mean"  # Whose returns are the `returns` of eval.json; it holds both kinds.
    prior_only: bool = False  # Score the skill prior without what was learnt, as prior.json.
    json: bool = False  # Print the result as JSON.
    debug: bool = False  # Show full tracebacks.

    def __post_init__(self) -> None:
        check_range(self, "episodes", high=100_001)
        check_range(self, "seed_base", low=0, high=SEEDS)


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Compare rl runs by task and method over their seeds: tables, curves, intervals."""

    runs: tyro.conf.Positional[tuple[str, ...]] = ()  # Folders, or names in --dir; none: every rl run there.
    dir: Path = Path("experiments/rl")  # Folder of the runs.
    output: Path | None = None  # Folder for what is written; DIR/compare if left out.
    mode: Literal["mean", "drawn"] = (
        "mean"  # Evaluations by the policy's mean skill, or by drawn ones, as the benchmarks have it.
    )
    json: bool = False  # Print the result as JSON.
    debug: bool = False  # Show full tracebacks.
