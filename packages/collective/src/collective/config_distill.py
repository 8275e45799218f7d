"""Options of `collective distill` and `evaluate`. The comments are their --help. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from collective.config import SEEDS, TasksConfig, check_range
from rlcore.config import RunConfig
from rlcore.errors import UsageError

Code = Literal["cls", "task-id", "zero"]


@dataclass(frozen=True, kw_only=True)
class DistillConfig(RunConfig):
    """Distil labelled data into one policy that is told a task code; the same with a task number and with nothing.

    A step is an update. After each part of the updates the policies act, the experts say what they would have done
    there, and that joins the data (--rounds).
    """

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "cpu": {},
        "mt10": {"updates": 9_000, "rounds": 3},
        "single-gpu": {"batch_size": 512, "updates": 50_000, "critic_updates": 10_000, "eval_every": 5_000},
        "gpu-server": {"batch_size": 4_096, "updates": 50_000, "critic_updates": 10_000, "eval_every": 5_000},
        "reference": {
            "batch_size": 512, "updates": 50_001, "critic_updates": 10_000, "lr": 2e-4, "schedule": "constant",
            "rounds": 0, "code_dropout": 0.0, "eval_every": 1_000, "save_every": 10_000, "arms": ["cls"],
        },
        "debug": {
            "updates": 60, "critic_updates": 20, "batch_size": 32, "hidden": [16, 16], "rounds": 1, "round_steps": 40,
            "eval_every": 30, "save_every": 30, "log_every": 20, "eval_episodes": 1, "horizon": 60,
        },
    }  # fmt: skip

    dir: Path = Path("experiments/collective")  # Folder of the runs.
    data: tuple[Path, ...]  # Folders of the data sets.
    encoder: Path | None = None  # Folder of the encoder's run; needed unless no arm is cls.
    reencode: bool = False  # Compute the data's task codes anew where they are of another encoder.
    arms: tuple[Code, ...] = ("cls", "task-id", "zero")  # What each policy is told; the first one is the result.
    hidden: tuple[int, ...] = (300, 300)  # Hidden units of the actor and of each critic.
    updates: int = 5_000  # Updates of the actors.
    critic_updates: int = 1_000  # Updates of the critics, after those.
    batch_size: int = 256  # Transitions an update, the same number of each task on average.
    lr: float = 1e-3  # Adam's step size at the start.
    schedule: Literal["cosine", "constant"] = "cosine"  # cosine: down to a fiftieth of it at the last update.
    loss: Literal["distil", "kl"] = "distil"  # Squared distance to the expert's action, or KL(expert || policy).
    code_dropout: float = 0.2  # Probability that a row's code is replaced by the mean code of its task.
    rounds: int = 2  # How often the policies collect data that the experts label; 0: never.
    round_steps: int = 3_000  # Env steps of each task in a round, shared by the arms.
    expert: Path | None = None  # Run of `collective train-worker` that labels the rounds; None: the scripts.
    gamma: float = 0.99  # Discount of the critics.
    horizon: int = 300  # Steps of an episode in rounds and evaluations here; an episode ends soon after its success.
    eval_every: int = 2_500  # Updates between evaluations.
    save_every: int = 1_000  # Updates between checkpoints.
    log_every: int = 500  # Updates between rows in metrics.jsonl.
    eval_episodes: int = 5  # Episodes of each task and arm in an evaluation.
    workers: int = 0  # Processes that step envs in rounds and evaluations; 0 steps them here.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "updates", "batch_size", "round_steps", "horizon", "eval_episodes", high=2**31)
        check_range(self, "critic_updates", "rounds", "workers", low=0, high=2**31)
        if not self.hidden or min(self.hidden) < 1:
            raise UsageError(f"hidden: expected at least one layer of at least 1 unit, got {self.hidden}")
        if not 0 < self.lr < 1 or not 0 <= self.code_dropout < 1 or not 0 < self.gamma <= 1:
            raise UsageError(f"lr, code_dropout, gamma: out of range ({self.lr}, {self.code_dropout}, {self.gamma})")
        if not self.arms or len(set(self.arms)) < len(self.arms):
            raise UsageError(f"arms: expected cls, task-id, zero, each at most once, got {self.arms}")
        if self.rounds > self.updates:
            raise UsageError(f"rounds: at most one an update, got {self.rounds} for {self.updates}")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(TasksConfig):
    """Score a policy: 50 episodes a task, one for each goal. Success counts at any step, as is the custom."""

    policy: Literal["collective", "expert", "scripted", "random"] = "collective"  # Whose.
    run: Path | None = None  # Folder of a run of `distill` or `pipeline` (collective), or of `train-worker` (expert).
    name: str | None = None  # Or its name in --dir.
    dir: Path = Path("experiments/collective")  # Folder of the runs; those of train-worker lie elsewhere.
    episodes: int = 50  # Of each task.
    goal_seed: int = 1_000  # Decides the 50 goals; data are recorded with 0, so these are goals never trained on.
    horizon: int = 500  # Steps of an episode.
    stochastic: bool = False  # Draw actions from the policy in place of its means.
    stop_after_success: int | None = None  # End an episode so many steps after success; None: also see its last step.
    whole: bool = False  # Play the other arms' episodes to the end, too; otherwise they end with their first success.
    copies: int = 10  # Episodes of a task at once.
    workers: int = 0  # Processes that step envs; 0 steps them here.
    seed: int = 0  # Decides draws of a stochastic policy.
    arms: tuple[str, ...] = ()  # Policies of a distilled run to score; none: all it has.
    label: str = "eval"  # Of the files written into the run's folder: LABEL.json and LABEL.csv.
    output: Path | None = None  # Folder for them instead; without a run nothing is written unless it is given.
    device: str = "auto"  # auto, cpu, cuda or cuda:0.
    quiet: bool = False  # Show no progress.
    json: bool = False  # Print the result as JSON.
    debug: bool = False  # Show full tracebacks.

    def __post_init__(self) -> None:
        check_range(self, "episodes", "copies", "horizon", "stop_after_success", high=2**31)
        check_range(self, "goal_seed", "workers", low=0, high=2**31)
        check_range(self, "seed", low=0, high=SEEDS)
