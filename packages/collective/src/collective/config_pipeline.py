"""Options of `collective pipeline`. The comments are their --help. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from collective.config import TasksConfig, Unused, check_range
from collective.config_distill import Code
from rlcore.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class PipelineConfig(TasksConfig, RunConfig):
    """From scripted experts to one evaluated policy: record, train-encoder, distill, evaluate, report.

    Each stage is a run of its own command in the folder of the pipeline. The same command goes on with the stage that
    is not complete.
    """

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "cpu": {},
        "mt10": {"benchmark": "mt10", "encoder_updates": 1_000, "updates": 9_000, "rounds": 3},
        "debug": {
            "benchmark": "toy", "steps": 400, "horizon": 60, "encoder_updates": 24, "updates": 60, "critic_updates": 20,
            "rounds": 1, "round_steps": 60, "eval_episodes": 2, "eval_horizon": 60, "stage_preset": "debug",
        },
    }  # fmt: skip

    dir: Path = Path("experiments/pipelines")  # Folder of the pipelines.
    log_every: Unused = 1_000  # These three are the stages' own: see their presets.
    eval_every: Unused = 10_000
    save_every: Unused = 10_000
    stage_preset: str = "cpu"  # Preset of the stages' own commands; options below are put over it.
    # --- record
    steps: int = 6_000  # Env steps recorded of each task.
    p_scripted: float = 0.9  # Probability that a recorded step is the script's; otherwise it is random.
    noise: float = 0.6  # Scripted actions get drifting noise of up to this standard deviation.
    horizon: int = 200  # Steps of the longest recorded episode.
    workers: int = 0  # Processes that step envs; 0 steps them here.
    # --- train-encoder and distill
    encoder_updates: int = 500  # Updates of the encoder.
    updates: int = 5_000  # Updates of the policies.
    critic_updates: int = 1_000  # Updates of their critics.
    rounds: int = 2  # Rounds of on-policy data.
    round_steps: int = 3_000  # Env steps of each task in a round.
    arms: tuple[Code, ...] = ("cls", "task-id", "zero")  # What each policy is told; the first one is the result.
    # --- evaluate
    eval_episodes: int = 50  # Episodes of each task, one a goal, on goals never trained on.
    eval_horizon: int = 500  # Steps of an episode. Those of the other arms end with their first success.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "steps", "horizon", "encoder_updates", "updates", "round_steps", "eval_episodes", high=2**31)
        check_range(self, "critic_updates", "rounds", "workers", low=0, high=2**31)
        check_range(self, "eval_horizon", high=2**31)

    @property
    def called(self) -> str:
        """The name; without one the tasks and the seed make it, so that the same command goes on."""
        return self.name or f"{self.benchmark or '-'.join(self.chosen)[:60]}-s{self.seed}"
