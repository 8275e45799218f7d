"""Options of the `prismatic` command, and what the agent knows of a task. The comments are the --help. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro.conf

from rlcore.config import RunConfig
from rlcore.errors import UsageError

NOISE_EPISODE = 500  # steps of what `prismatic bench` learns from
MAY_CHANGE = frozenset({"steps", "memory_limit"})  # of a run that goes on


@dataclass(frozen=True)
class TaskSpec:
    """What the agent must know of an environment. episode_length is in agent steps, after action repeat."""

    name: str
    obs_dim: int
    action_dim: int
    episode_length: int
    episodic: bool = False  # whether episodes can terminate, other than by their time limit

    def __post_init__(self) -> None:
        for key in ("obs_dim", "action_dim", "episode_length"):
            if getattr(self, key) < 1:
                raise UsageError(f"task {self.name}: {key} must be at least 1, got {getattr(self, key)}")


@dataclass(frozen=True)
class Size:
    """Widths of the networks, in units."""

    enc_dim: int  # hidden layers of the encoder
    mlp_dim: int  # M: hidden layers of everything else
    latent_dim: int  # D
    enc_layers: int
    num_q: int
    task_dim: int  # task embedding, where there are several tasks


# TD-MPC2's (Hansen et al. 2024, arXiv:2310.16828), named by millions of parameters; tiny is ours, for CPUs.
SIZES: dict[str | int, Size] = {
    "tiny": Size(128, 128, 64, 2, 2, 32),
    1: Size(256, 384, 128, 2, 2, 96),
    5: Size(256, 512, 512, 2, 5, 64),
    19: Size(1024, 1024, 768, 3, 5, 64),
    48: Size(1792, 1792, 768, 4, 5, 64),
    317: Size(4096, 4096, 1376, 5, 8, 96),
}

CPU: dict[str, Any] = {
    "model_size": "tiny", "moe_expert_dim": 32, "lr": 1e-3, "batch_size": 128, "num_samples": 128,
    "num_elites": 16, "num_pi_trajs": 8, "iterations": 4, "num_envs": 4, "seed_hold": 20, "seed_action": "limits",
    "seed_patience": 4, "buffer_size": 200_000, "eval_every": 5_000, "save_every": 5_000, "log_every": 500,
}  # fmt: skip
PRESETS: dict[str, dict[str, Any]] = {
    "cpu": CPU,
    "mt4": {
        **CPU, "task": "mt4", "entropy": "squashed", "entropy_coef": 1e-3, "tau": 0.05, "utd": 0.5, "seed_rewards": 20,
        "obs_norm": True, "eval_every": 12_000, "save_every": 12_000,
    },
    "debug": {
        "task": "toy-reach", "model_size": "tiny", "steps": 100, "seed_steps": 40, "utd": 0.5, "batch_size": 4,
        "num_samples": 8, "num_elites": 4, "num_pi_trajs": 2, "iterations": 1, "buffer_size": 2_000, "log_every": 20,
        "eval_every": 50, "save_every": 50, "eval_episodes": 1,
    },
}  # fmt: skip

OrthogonalMode = Literal["features", "penalty", "init"]


def _also(*names: str) -> Any:
    """Further names of an option: those that users of this method know from elsewhere."""
    return tyro.conf.arg(aliases=tuple(f"--{name}" for name in names))


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """Learn tasks with a world model and planning. The same command again continues the run."""

    name: Annotated[str | None, _also("exp-name")] = None  # Name of the run; drawn if left out.
    dir: Annotated[Path, _also("work-dir")] = Path("logs")  # Folder of the runs.
    task: Annotated[str, _also("env")] = "cartpole-balance"  # One task, or several with commas between: one agent.
    model_size: Literal["tiny", 1, 5, 19, 48, 317] = 5  # Millions of parameters; tiny is for CPUs.
    episodic: Literal["auto", "true", "false"] = (
        "auto"  # Predict terminations; auto: if a task may (all of Gymnasium's).
    )
    # --- mixture of experts
    use_moe: bool = True  # Experts in dynamics and reward; without them this is TD-MPC2.
    n_experts: Annotated[int, _also("moe-n-experts", "num-experts")] = 4  # Experts in each of the two.
    use_orthogonal: Annotated[bool, _also("moe-use-orthogonal")] = True  # Keep the experts apart.
    orthogonal_mode: OrthogonalMode = "features"  # Gram-Schmidt on their outputs, a penalty, or at the start only.
    moe_tau_init: float = 1.8  # Temperature of the gates at the start.
    moe_tau_min: float = 0.5  # Its lower limit.
    moe_tau_max: float = 2.0  # Its upper limit.
    moe_beta: float = 0.02  # Step of the temperature towards the entropy target, each update.
    moe_lb_alpha: float = 0.03  # Weight of the load-balance loss.
    moe_entropy_coef: float = 1e-3  # Weight of (gate entropy - target)^2.
    moe_entropy_target: float = 0.5  # Gate entropy over ln K, or ln top-k; 0.5 uses about sqrt(K) experts at once.
    moe_gate_dim: int = 64  # Hidden units of a gate.
    moe_expert_dim: int | None = None  # Hidden units of an expert; None: max(64, M / K). M / K costs what dense costs.
    moe_top_k: int = 0  # Use only the k >= 2 likeliest experts; 0 mixes all.
    # --- planning
    mpc: bool = True  # Plan; without it the policy prior acts.
    horizon: int = 3  # Steps planned and learnt over.
    iterations: int = 6  # Of the planner; 2 more from 20 action dimensions on.
    num_samples: int = 512  # Action sequences an iteration.
    num_elites: int = 64  # The best of them, which the next iteration is fitted to.
    num_pi_trajs: int = 24  # Sequences among them that the policy prior proposes.
    min_std: float = 0.05  # Lower limit of the sampling deviation.
    max_std: float = 2.0  # Its upper limit, and its start.
    temperature: float = 0.5  # Elites weigh exp(temperature * value).
    eval_sample: bool = False  # In evaluation draw an elite, as TD-MPC2 does; else their weighted mean acts.
    # --- observations
    obs_norm: bool = False  # Standardise them, by each task's mean and deviation when learning begins.
    # --- length of the run
    steps: int = 3_000_000  # Agent steps over all envs.
    num_envs: int = 1  # Envs of each task, planned for together.
    seed_steps: int | None = None  # Random steps of each task at the start; None: max(1000, 5 episodes).
    seed_hold: int = 1  # Steps that a random action is held for; more reaches further.
    seed_action: Literal["uniform", "limits"] = "uniform"  # Random actions anywhere, or each value at -1 or 1.
    seed_patience: int = 1  # A task whose reward hardly changes gets up to this many times as many random steps.
    seed_rewards: int = 1  # Steps with another reward than the first one that end this patience.
    utd: float = 1.0  # Updates an agent step.
    buffer_size: int = 1_000_000  # Transitions kept.
    # --- learning
    batch_size: int = 256  # Windows of `horizon` steps an update.
    lr: float = 3e-4  # Adam's step size.
    enc_lr_scale: float = 0.3  # The encoder's, as a share of it.
    grad_clip_norm: float = 20.0  # Largest gradient norm.
    tau: float = 0.01  # Rate of the target critics and of the return scale.
    dropout: float = 0.01  # In the critics' first layer.
    rho: float = 0.5  # Loss weight of a step t ahead: rho^t.
    consistency_coef: float = 20.0  # Weight of the latent prediction loss.
    reward_coef: float = 0.1  # Weight of the reward loss.
    value_coef: float = 0.1  # Weight of the value loss.
    termination_coef: float = 1.0  # Weight of the termination loss.
    entropy: Literal["gaussian", "squashed"] = "gaussian"  # Of the policy: before (TD-MPC2) or after its tanh.
    entropy_coef: float = 1e-4  # Weight of the policy's entropy.
    discount_min: float = 0.95  # Discount of the shortest episodes.
    discount_max: float = 0.995  # Discount of the longest.
    # --- evaluation, saving, speed
    eval_every: Annotated[int, _also("eval-freq")] = 50_000  # Agent steps between evaluations.
    eval_episodes: int = 10  # Episodes of each, for each task.
    save_every: Annotated[int, _also("save-freq")] = 50_000  # Agent steps between checkpoints.
    save_replay: Annotated[bool, _also("save-buffer")] = True  # Keep the replay on disk, so that resuming is exact.
    memory_limit: float | None = None  # GiB of resident memory: above it free some, else save and stop (exit 85).
    compile: Literal["auto", "on", "off"] = "auto"  # torch.compile; auto: on a GPU only.
    precision: Literal["float32", "bf16"] = "float32"  # Of the matrix products.

    def __post_init__(self) -> None:
        super().__post_init__()
        names = self.tasks
        if not all(names) or len(set(names)) < len(names):
            raise UsageError(f"task: expected one name, or different ones with commas between, got {self.task!r}")
        for key in ("n_experts", "moe_gate_dim", "horizon", "iterations", "num_samples", "num_elites",
                    "steps", "num_envs", "seed_hold", "seed_patience", "seed_rewards", "buffer_size", "batch_size",
                    "eval_episodes"):  # fmt: skip
            if not 1 <= getattr(self, key) < 2**40:
                raise UsageError(f"{key}: must be at least 1 and of sensible size, got {getattr(self, key)}")
        for key in ("utd", "lr", "enc_lr_scale", "grad_clip_norm", "temperature", "min_std", "moe_tau_min"):
            if not 0 < getattr(self, key) < 1e6:
                raise UsageError(f"{key}: must be positive, got {getattr(self, key)}")
        for key in ("moe_beta", "moe_lb_alpha", "moe_entropy_coef", "consistency_coef", "reward_coef", "value_coef",
                    "termination_coef", "entropy_coef", "num_pi_trajs", "moe_top_k"):  # fmt: skip
            if not 0 <= getattr(self, key) < 1e6:
                raise UsageError(f"{key}: must not be negative, got {getattr(self, key)}")
        for key in ("tau", "rho", "moe_entropy_target", "discount_min", "discount_max"):
            if not 0 <= getattr(self, key) <= 1:
                raise UsageError(f"{key}: must be in [0, 1], got {getattr(self, key)}")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout: must be in [0, 1), got {self.dropout}")
        for low, high in (("moe_tau_min", "moe_tau_max"), ("min_std", "max_std"), ("discount_min", "discount_max")):
            if getattr(self, low) > getattr(self, high):
                raise UsageError(f"{low}: {getattr(self, low)} is above {high} {getattr(self, high)}")
        if not self.moe_tau_min <= self.moe_tau_init <= self.moe_tau_max:
            raise UsageError(f"moe_tau_init: {self.moe_tau_init} is outside {self.moe_tau_min} .. {self.moe_tau_max}")
        if self.num_pi_trajs >= self.num_samples:
            raise UsageError(f"num_pi_trajs: {self.num_pi_trajs} leave nothing to draw of {self.num_samples} samples")
        if self.num_elites > self.num_samples:
            raise UsageError(f"num_elites: {self.num_elites} is more than num_samples {self.num_samples}")
        if self.moe_top_k > self.n_experts:
            raise UsageError(f"moe_top_k: {self.moe_top_k} is more than n_experts {self.n_experts}")
        if self.moe_top_k == 1 < self.n_experts:
            raise UsageError("moe_top_k: one expert alone has weight 1, so its gate never learns; take 2, or 0 for all")
        if self.memory_limit is not None and not self.memory_limit > 0:
            raise UsageError(f"memory_limit: must be positive, got {self.memory_limit}")
        if self.moe_expert_dim is not None and self.moe_expert_dim < 1:
            raise UsageError(f"moe_expert_dim: must be at least 1, got {self.moe_expert_dim}")
        if self.use_moe and self.orthogonal == "features" and self.n_experts > self.size.mlp_dim:
            raise UsageError(f"n_experts: {self.n_experts} cannot be orthogonal in {self.size.mlp_dim} dimensions")
        if self.seed_steps is not None and not 0 <= self.seed_steps < 2**40:
            raise UsageError(f"seed_steps: must not be negative, got {self.seed_steps}")

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, in the order of their ids."""
        return tuple(name.strip() for name in self.task.split(","))

    @property
    def size(self) -> Size:
        return SIZES[self.model_size]

    @property
    def orthogonal(self) -> Literal["off", "features", "penalty", "init"]:
        """How the experts are kept apart."""
        return self.orthogonal_mode if self.use_orthogonal else "off"

    @property
    def variant(self) -> str:
        """Customary name of the experiment: dense, 4 (experts), 4o (orthogonal ones)."""
        return f"{self.n_experts}{'o' * self.use_orthogonal}" if self.use_moe else "dense"

    def resolved_seed_steps(self, episode_length: int) -> int:
        """Random agent steps before learning starts."""
        return max(1_000, 5 * episode_length) if self.seed_steps is None else self.seed_steps


@dataclass(frozen=True, kw_only=True)
class SavedRun:
    """Where an earlier run lies."""

    name: Annotated[str, _also("exp-name")]  # Name of the run.
    dir: Annotated[Path, _also("work-dir")] = Path("logs")  # Folder of the runs.
    debug: bool = False  # Show full tracebacks.


def check_seed_base(seed: int) -> None:
    if not 0 <= seed < 2**63:
        raise UsageError(f"seed_base: must be in 0 .. {2**63 - 1}, got {seed}")


@dataclass(frozen=True, kw_only=True)
class EvalConfig(SavedRun):
    """Score a run on episodes it has never seen, planning without exploration; writes eval.json."""

    eval_episodes: Annotated[int, _also("episodes")] = 10  # Episodes of each task.
    task: str | None = None  # One of the run's tasks; all of them if left out.
    checkpoint: str = "auto"  # best, final, latest, a file; auto takes the first there is.
    seed_base: int = 10_000  # Run seed of the evaluation episodes: the same one gives the same episodes.
    mpc: Literal["auto", "true", "false"] = "auto"  # Plan, or let the policy prior act; auto: as in training.
    save_video: bool = False  # Film the first episode of each task: videos/eval_TASK.mp4 (extra: video).
    device: str = "cpu"  # auto, cpu, cuda or cuda:0.
    json: bool = False  # Print the result as JSON.

    def __post_init__(self) -> None:
        if not 1 <= self.eval_episodes < 2**31:
            raise UsageError(f"eval_episodes: must be at least 1 and of sensible size, got {self.eval_episodes}")
        check_seed_base(self.seed_base)


@dataclass(frozen=True, kw_only=True)
class PlotConfig(SavedRun):
    """Draw a run's learning curves into plots/training_curves.png."""

    output: Path | None = None  # .png, .pdf or .svg elsewhere.


@dataclass(frozen=True, kw_only=True)
class GatingConfig(SavedRun):
    """Draw how much each expert was used over the last 1,000 updates: plots/gating_*.png, and .csv beside it."""

    checkpoint: str = "latest"  # best, final, latest, a file.


@dataclass(frozen=True, kw_only=True)
class EnvsConfig:
    """List the tasks there are, and what the others need."""

    like: str = ""  # Only names that contain this.
    debug: bool = False  # Show full tracebacks.


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """Check the installation; with --task, that this environment opens and steps."""

    task: str | None = None  # Tasks to look into, with commas between.
    json: bool = False  # Print the findings as JSON.
    debug: bool = False  # Show full tracebacks.


_RUNS = tyro.conf.arg(metavar="[RUN ...]")


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Compare runs, finished or not: grouped by task and variant over seeds. Writes report.md, .csv, .json, .png."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, _RUNS] = ()  # Folders, or names in --dir; none: all in it.
    dir: Annotated[Path, _also("work-dir")] = Path("logs")  # Folder of the runs.
    output: Path | None = None  # Folder of what is written; None: `report` in the folder of the runs.
    threshold: str | None = None  # 800, or task=800,task=900; None: 90 % of the best variant's last return.
    debug: bool = False  # Show full tracebacks.


@dataclass(frozen=True, kw_only=True)
class DiagnoseConfig(SavedRun):
    """How good the world model is, where it goes wrong, what its experts do: analysis/diagnose.json and a picture."""

    compare: str | None = None  # Another run of the same tasks in the same folder; both see the same episodes.
    checkpoint: str = "auto"  # best, final, latest, a file; auto takes the first there is.
    compare_checkpoint: str | None = None  # Of the other run; the same choice if left out.
    episodes: int = 4  # Fresh episodes of each task.
    policy: Literal["mixed", "agent", "random"] = "mixed"  # Who acts: planned with exploration, random, half of each.
    horizon: int = 16  # Steps to predict ahead.
    windows: int = 2_000  # At most so many windows of a task, evenly spaced.
    seed_base: int = 10_000  # Run seed of the episodes: the same one gives the same episodes.
    device: str = "cpu"  # auto, cpu, cuda or cuda:0.
    json: bool = False  # Print the result as JSON.

    def __post_init__(self) -> None:
        for key in ("episodes", "horizon", "windows"):
            if not 1 <= getattr(self, key) < 2**31:
                raise UsageError(f"{key}: must be at least 1 and of sensible size, got {getattr(self, key)}")
        if self.policy == "mixed" and self.episodes < 2:
            raise UsageError("episodes: half of 1 is none; take 2, or --policy agent")
        check_seed_base(self.seed_base)
        if self.compare is not None and self.compare_checkpoint is None and self.checkpoint.endswith(".pt"):
            raise UsageError(f"checkpoint: {self.checkpoint} is of one run; name the other's with --compare-checkpoint")
        if self.compare is None and self.compare_checkpoint is not None:
            raise UsageError("compare_checkpoint: name the run that it is of with --compare")


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Updates and plans a second on tasks of noise, with experts and without, where the time goes, and ratios."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]]

    model_size: Literal["tiny", 1, 5, 19, 48, 317] = 5  # Millions of parameters; tiny is for CPUs.
    obs_dim: int = 24  # Numbers in an observation.
    action_dim: int = 6  # Numbers in an action; from 20 on, 2 more iterations.
    n_experts: Annotated[int, _also("moe-n-experts", "num-experts")] = 4  # Experts in dynamics and in reward.
    batch_size: int = 256  # Windows of `horizon` steps an update.
    horizon: int = 3  # Steps planned and learnt over.
    iterations: int = 6  # Of the planner.
    num_samples: int = 512  # Action sequences an iteration.
    num_elites: int = 64  # The best of them.
    num_pi_trajs: int = 24  # Sequences among them that the policy prior proposes.
    num_envs: int = 8  # Envs that are planned for at once, and one by one.
    seconds: float = 3.0  # Measuring time of a row; more where 5 turns take longer.
    device: str = "auto"  # auto, cpu, cuda or cuda:0.
    threads: int = 1  # CPU threads; with more than 1 wall time counts, not CPU time.
    compile: Literal["auto", "on", "off"] = "auto"  # torch.compile; auto: on a GPU only.
    precision: Literal["float32", "bf16"] = "float32"  # Of the matrix products.
    output: Path | None = None  # .json file to write.
    json: bool = False  # Print the result as JSON.
    debug: bool = False  # Show full tracebacks.

    def __post_init__(self) -> None:
        for use_moe in (False, True):
            self.train(use_moe)
        TaskSpec("noise", self.obs_dim, self.action_dim, 1)
        if self.horizon > NOISE_EPISODE:
            raise UsageError(f"horizon: {self.horizon} steps, but an episode of noise has {NOISE_EPISODE}")
        if not 1 <= self.num_envs <= 10_000 or not 0 < self.seconds < 86_400:
            raise UsageError(f"expected num_envs >= 1 and seconds > 0, got {self.num_envs} and {self.seconds}")

    def train(self, use_moe: bool) -> TrainConfig:
        """The agent's options."""
        keys = ("model_size", "n_experts", "batch_size", "horizon", "iterations", "num_samples", "num_elites",
                "num_pi_trajs", "device", "threads", "compile", "precision")  # fmt: skip
        return TrainConfig(use_moe=use_moe, buffer_size=10_000, **{key: getattr(self, key) for key in keys})


BenchConfig.PRESETS = {
    name: {key: value for key, value in preset.items() if key in BenchConfig.__dataclass_fields__}
    for name, preset in PRESETS.items()
}
