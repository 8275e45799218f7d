"""Options of the `mpn` command. The comments are its --help. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro.conf

from rlcore.config import RunConfig
from rlcore.errors import UsageError

MEMORY_TASKS = ("mpn/TMaze-v0", "mpn/DelayedMatch-v0", "mpn/TemporalOrder-v0")
MAY_CHANGE = frozenset({"total_steps", "num_episodes"})  # of a run that goes on; schedules then stretch

# Settings found on seeds >= 100. A task's own preset is used unless --preset says otherwise.
_MEMORY: dict[str, Any] = {
    "total_steps": 50_000, "hidden_dim": 64, "lr": 1e-3, "lambda_decay": 0.95, "burn_in": 0, "n_step": 1,
    "huber_delta": 1.0, "tau": 0.01, "buffer_size": 100_000, "epsilon_end": 0.05, "epsilon_fraction": 0.5,
}  # fmt: skip
PRESETS: dict[str, dict[str, Any]] = {
    "tmaze": _MEMORY | {"eta": 0.1, "sequence_length": 22},
    "delayed-match": _MEMORY | {"eta": 0.2, "sequence_length": 10},
    "temporal-order": _MEMORY | {"eta": 0.2, "sequence_length": 8, "total_steps": 60_000},
    "cartpole-masked": {"eta": 0.2, "lambda_decay": 0.8, "input_map": "learned", "input_dim": 10},
    "debug": {
        "total_steps": 640, "num_envs": 4, "hidden_dim": 8, "batch_size": 8, "sequence_length": 4, "burn_in": 2,
        "n_step": 2, "buffer_size": 2_000, "learning_starts": 80, "target_update_freq": 10, "log_every": 80,
        "eval_every": 320, "save_every": 320, "eval_episodes": 2,
    },
}  # fmt: skip
TASK_PRESETS = {
    "mpn/TMaze-v0": "tmaze",
    "mpn/DelayedMatch-v0": "delayed-match",
    "mpn/TemporalOrder-v0": "temporal-order",
    "mpn/CartPoleMasked-v0": "cartpole-masked",
}


def task_preset(cfg: Any) -> str | None:
    """The preset that suits the environment asked for."""
    return TASK_PRESETS.get(getattr(cfg, "env", "").partition(":")[0])  # mpn/TMaze-v0:length=5 is a T-maze


Core = Literal["mpn", "mpn-frozen", "rnn", "gru", "lstm"]
InputMap = Literal["auto", "none", "one", "random", "learned"]


def _also(*names: str) -> Any:
    """Further names of an option: those that users of this method know from elsewhere."""
    return tyro.conf.arg(aliases=tuple(f"--{name}" for name in names))


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """Learn a task by recurrent double Q-learning. The same command again continues the run."""

    name: Annotated[str | None, _also("experiment-name")] = None  # Name of the run; drawn if left out.
    dir: Annotated[Path, _also("experiments-dir")] = Path("experiments")  # Folder of the runs.
    env: Annotated[str, _also("task", "env-name")] = "CartPole-v1"  # mpn/TMaze-v0 ..., a Gymnasium id, module:factory.
    core: Annotated[Core, _also("model-type")] = "mpn"  # The memory; mpn-frozen is the feed-forward control.
    # --- network
    hidden_dim: int = 128  # Hidden units a layer.
    num_layers: int = 1  # Layers of the core.
    eta: float = 0.05  # Hebbian rate; negative is anti-Hebbian.
    lambda_decay: float = 0.9  # Decay of the Hebbian matrix a step, in [0, 1]; half-life ln 0.5 / ln lambda steps.
    activation: Literal["tanh", "relu", "sigmoid", "linear"] = "tanh"  # Of the plastic layer.
    bias: bool = True  # Whether layers have one.
    m_clip: float | None = None  # Clamp the Hebbian matrix to [-m_clip, m_clip].
    input_map: InputMap = "auto"  # Raw, a constant 1 appended, or a projection; auto: one for the memory tasks.
    input_dim: int = 10  # Outputs of a random or learned projection.
    # --- length of the run
    total_steps: int = 100_000  # Env steps over all envs.
    num_episodes: int | None = None  # Stop after this many finished episodes, if that comes first.
    num_envs: int = 16  # Envs stepped together.
    max_episode_steps: int | None = None  # Time limit; the task's own if left out.
    # --- learning
    gamma: float = 0.99  # Discount a step, in [0, 1].
    lr: float = 2e-3  # Adam's step size at the start.
    lr_end: float = 1e-4  # ... and at the end, falling in a straight line.
    batch_size: Annotated[int, _also("sequence-batch-size")] = 32  # Sequences an update.
    sequence_length: int = 40  # Steps of a sequence that are learnt from.
    burn_in: int = 4  # Steps before them that only warm the memory up.
    store_state_every: int | None = None  # Windows begin at memories stored so often; 0: empty; None: sequence_length.
    buffer_size: int = 20_000  # Transitions kept.
    learning_starts: int = 1_000  # Env steps before the first update.
    train_freq: int = 16  # Env steps for each update.
    n_step: int = 32  # Rewards summed before bootstrapping.
    huber_delta: float = 30.0  # TD errors up to this size count squared, larger ones linearly.
    target_update_freq: int = 100  # Updates between copies to the target net (when tau is not given).
    tau: float | None = None  # Polyak rate of the target net each update, in place of copies.
    grad_clip: float = 10.0  # Largest gradient norm.
    epsilon_start: float = 1.0  # Share of random actions at the start.
    epsilon_end: float = 0.02  # ... and at the end of the decay.
    epsilon_fraction: float = 0.2  # Share of total_steps over which it falls in a straight line.
    epsilon_decay: float | None = None  # Multiply by this each episode, instead.
    # --- evaluation, saving
    eval_every: int = 2_500  # Env steps between greedy evaluations; they never change training.
    eval_episodes: int = 50  # Episodes of each; the best mean becomes best_model.pt.
    save_replay: bool = True  # Keep the replay memory on disk, so that a resumed run repeats bit for bit.

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("hidden_dim", "num_layers", "input_dim", "total_steps", "num_envs", "batch_size", "sequence_length",
                    "buffer_size", "train_freq", "n_step", "target_update_freq", "eval_episodes"):  # fmt: skip
            if not 1 <= getattr(self, key) < 2**40:
                raise UsageError(f"{key}: must be at least 1 and of sensible size, got {getattr(self, key)}")
        for key in (
            "gamma",
            "lambda_decay",
            "epsilon_start",
            "epsilon_end",
            "epsilon_fraction",
            "tau",
            "epsilon_decay",
        ):
            if (value := getattr(self, key)) is not None and not 0 <= value <= 1:
                raise UsageError(f"{key}: must be in [0, 1], got {value}")
        for key in ("lr", "grad_clip", "huber_delta"):
            if not 0 < getattr(self, key) < 1e6:
                raise UsageError(f"{key}: must be positive, got {getattr(self, key)}")
        if not 0 <= self.lr_end < 1e6:
            raise UsageError(f"lr_end: must not be negative, got {self.lr_end}")
        check_limit(self.max_episode_steps)
        if self.n_step > self.sequence_length:
            raise UsageError(f"n_step: {self.n_step} is longer than sequence_length {self.sequence_length}")
        if self.num_episodes is not None and self.num_episodes < 1:
            raise UsageError(f"num_episodes: must be at least 1, got {self.num_episodes}")
        if self.burn_in < 0 or self.learning_starts < 0:
            raise UsageError("burn_in, learning_starts: must not be negative")
        if self.store_state_every is not None and not 0 <= self.store_state_every < 2**20:
            raise UsageError(f"store_state_every: must be at least 0, got {self.store_state_every}")
        need = self.num_envs * (self.window + max(self.resolved_store_state, 1))
        if self.buffer_size < need:
            raise UsageError(f"buffer_size: {self.num_envs} envs x windows of {self.window} steps need at least {need}")

    @property
    def window(self) -> int:
        """Rows of a replayed window: burn-in, training steps, and the one to bootstrap from."""
        return self.burn_in + self.sequence_length + 1

    @property
    def resolved_store_state(self) -> int:
        """Steps between stored memories; 0 for none: the frozen core has nothing to remember."""
        every = self.sequence_length if self.store_state_every is None else self.store_state_every
        return 0 if self.core == "mpn-frozen" else every

    @property
    def resolved_input_map(self) -> str:
        return (
            self.input_map
            if self.input_map != "auto"
            else "one"
            if self.env.partition(":")[0] in MEMORY_TASKS
            else "none"
        )


@dataclass(frozen=True, kw_only=True)
class SavedRun:
    """Where an earlier run lies."""

    name: Annotated[str, _also("experiment-name")]  # Name of the run.
    dir: Annotated[Path, _also("experiments-dir")] = Path("experiments")  # Folder of the runs.
    debug: bool = False  # Show full tracebacks.


def check_limit(steps: int | None) -> None:
    if steps is not None and not 1 <= steps < 2**40:
        raise UsageError(f"max_episode_steps: must be at least 1 and of sensible size, got {steps}")


def check_seed_base(seed: int) -> None:
    if not 0 <= seed < 2**63:
        raise UsageError(f"seed_base: must be in 0 .. {2**63 - 1}, got {seed}")


@dataclass(frozen=True, kw_only=True)
class EvalConfig(SavedRun):
    """Score a run's policy, greedily, on episodes it has never seen; writes eval.json."""

    num_eval_episodes: Annotated[int, _also("episodes")] = 10  # Episodes.
    checkpoint: str = "auto"  # best, final, latest, a file; auto takes the first there is.
    seed_base: int = 10_000  # Run seed of the evaluation episodes: the same one gives the same episodes.
    max_episode_steps: int | None = None  # Time limit; the task's own if left out.
    device: str = "cpu"  # auto, cpu, cuda or cuda:0.
    json: bool = False  # Print the result as JSON.

    def __post_init__(self) -> None:
        check_limit(self.max_episode_steps)
        check_seed_base(self.seed_base)


@dataclass(frozen=True, kw_only=True)
class RenderConfig(SavedRun):
    """Film one greedy episode beside the Hebbian matrix (or hidden state) at each step."""

    output: Path | None = None  # .gif or .mp4; videos/episode_SEED.gif in the run if left out.
    checkpoint: str = "auto"  # best, final, latest, a file; auto takes the first there is.
    seed_base: int = 10_000  # Run seed of the episode.
    fps: int = 25  # Frames a second.
    max_episode_steps: int | None = None  # Time limit; the task's own if left out.

    def __post_init__(self) -> None:
        check_limit(self.max_episode_steps)
        check_seed_base(self.seed_base)


@dataclass(frozen=True, kw_only=True)
class PlotConfig(SavedRun):
    """Draw a run's learning curves into plots/training_curves.png."""

    output: Path | None = None  # .png, .pdf or .svg elsewhere.


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """Check the installation; with --env, what that environment asks of a Hebbian memory."""

    env: Annotated[str | None, _also("task")] = None  # Environment to look into.
    input_map: Literal["auto", "none", "one", "random"] = "auto"  # As in training.
    lambda_decay: float = 0.9  # As in training.
    json: bool = False  # Print the findings as JSON.
    debug: bool = False  # Show full tracebacks.
