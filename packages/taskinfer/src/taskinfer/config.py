"""Options of the `taskinfer` command. The comments are its --help. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import tyro.conf

from rlblocks.config import SACConfig
from rlcore.config import RunConfig, nearest
from rlcore.errors import UsageError
from taskinfer.tasks import GROUPS, families_of

Arm = Literal["inferred", "oracle", "none"]
SEEDS = 2**63


def check_range(config: object, *keys: str, low: int = 1, high: int = 2**40) -> None:
    """UsageError for the first of the options `keys` outside [low, high); None, or none such, passes."""
    for key in keys:
        if (value := getattr(config, key, None)) is not None and not low <= value < high:
            wanted = "must not be negative" if low == 0 and value < 0 else f"must be in {low:,} .. {high - 1:,}"
            raise UsageError(f"{key}: {wanted}, got {value}")


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """Check the installation."""

    json: bool = False  # Print the findings as JSON.
    debug: bool = False  # Show full tracebacks.


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """The inference model: encoder, decoders, prior, and how they learn."""

    encoder: Literal["deepset", "gru", "mlp"] = "deepset"  # deepset: weighted means over steps, in any order.
    context: Literal["window", "recurrent"] = "window"  # The last `window` steps alone, or all of the episode, too.
    window: int = 32  # Transitions of the window; a recurrent context looks further back (a gru has no window then).
    latent_dim: int = 4  # Size of z.
    hidden: int = 64  # Hidden units of the encoder; at least 5 (2 ds + 1) are used.
    decoder_hidden: int = 64  # Hidden units of the decoders and of the head that names the family.
    symlog: bool = True  # Compress states and rewards; without it far goals drown near ones.
    reward_scale: float = 5.0  # symlog: of 1 + r before it is compressed; larger tells small progress apart.
    change_scale: float = 20.0  # symlog: of what a step changes, before that is compressed.
    layer_norm: bool = True  # Normalise hidden layers.
    predict_delta: bool = False  # Decode the change of the state instead of the next state.
    prior: Literal["gauss", "gmm", "dpmm"] = "dpmm"  # Of z; gmm: one Gaussian a family, mixed by the encoder.
    hard_assignment: bool = False  # dpmm: pull to the most responsible component alone.
    concentration: float = 5.0  # dpmm: larger expects more components.
    max_components: int = 20  # dpmm: never more.
    component_variance: float = 0.1  # dpmm: expected variance of a component before any data.
    kl_weight: float = 1e-4  # Of the divergence to the prior.
    task_weight: float = 0.1  # Of the cross-entropy of the family; 0: z is not told families.
    sparsity_weight: float = 1e-3  # gmm: of |z|.
    separation_weight: float = 5e-4  # gmm: of the closeness of the classes.
    class_weight: float = 0.1  # gmm: of the cross-entropy of the mixing weights.
    lr: float = 2e-3  # Adam's step size.
    batch: int = 128  # Beliefs an update.
    times: int = 4  # Of them from one episode; it must divide `batch`. A recurrent context reads all of it once.
    targets: int = 32  # Transitions decoded from each belief.
    ema: float = 0.998  # Each update the slow encoder, which acts, keeps this share; 0: it is the learning one.

    def __post_init__(self) -> None:
        check_range(self, "window", "latent_dim", "hidden", "decoder_hidden", "batch", "times", "targets", high=2**24)
        check_range(self, "max_components", high=2**24)
        for key in ("concentration", "component_variance", "lr", "reward_scale", "change_scale"):
            if not 0 < getattr(self, key) < 1e6:
                raise UsageError(f"{key}: must be positive, got {getattr(self, key)}")
        for key in ("kl_weight", "task_weight", "sparsity_weight", "separation_weight", "class_weight"):
            if not 0 <= getattr(self, key) < 1e6:
                raise UsageError(f"{key}: must not be negative, got {getattr(self, key)}")
        if not 0 <= self.ema < 1:
            raise UsageError(f"ema: must be in [0, 1), got {self.ema}")
        if self.context == "recurrent" and self.encoder == "mlp":
            raise UsageError("context: an mlp reads windows only; add --inference.context window")
        if self.batch % self.times:
            raise UsageError(f"times: {self.times} does not divide batch {self.batch}")


@dataclass(frozen=True, kw_only=True)
class ToyConfig(RunConfig):
    """Learn to infer tasks, and to act on what is believed, on the toy. The same command again continues the run."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "toy1d-cpu": {},
        "debug": {
            "total_steps": 600, "num_train": 4, "num_eval": 4, "horizon": 20, "warmup_rounds": 2, "warmup_updates": 3,
            "encoder_updates": 2, "policy_updates": 3, "policy_episodes": 8, "policy_batch": 16, "ring": 40,
            "log_every": 80, "eval_every": 240, "save_every": 240, "policy": {"hidden": [8, 8]},
            "inference": {"batch": 16, "targets": 4, "hidden": 8, "window": 8},
        },
    }  # fmt: skip

    dir: Path = Path("output/toy")  # Folder of the runs.
    toy: str = "toy1d"  # toy1d, toy1d-multi (with pitch and height) or toy2d.
    tasks: str = "goal,velocity"  # Groups and families of tasks.
    arm: Arm = "inferred"  # What the policy knows of the task: a belief, the truth, nothing.
    num_train: int = 80  # Training tasks, one episode each an epoch.
    num_eval: int = 40  # Held-out tasks.
    horizon: int = 200  # Steps of an episode.
    noise_std: float = 0.0  # Noise on what is observed, m and m/s; 0.1 makes beliefs robust for bodies.
    # --- length of the run
    total_steps: int = 960_000  # Env steps over all points.
    ring: int = 1_600  # Episodes kept.
    warmup_rounds: int = 5  # Epochs of aimless movement before the policy acts.
    warmup_updates: int = 2_000  # Encoder updates after them.
    # --- learning, each epoch
    greedy_share: float = 0.3  # Share of the episodes that are played as in evaluations, without the policy's noise.
    encoder_updates: int = 240  # Encoder updates an epoch.
    anneal: tuple[int, int] = (
        384_000,
        960_000,
    )  # First and last env step of the fall of the encoder's step size to 0; a shorter run is never at rest.
    policy_updates: int = 300  # Policy updates an epoch.
    policy_episodes: int = 400  # Episodes that they draw from, encoded once.
    relabel: float = 0.5  # Share of drawn episodes that get another target of their family (arm inferred).
    informed_critics: bool = True  # Critics are told the true task in training; the policy never is (arm inferred).
    policy_batch: int = 256  # Transitions a policy update.
    gamma: float = 0.97  # Discount a step.
    symlog_reward: bool = (
        True  # The policy learns from symlog of the reward, so that far targets do not drown near ones.
    )
    inference: InferenceConfig = InferenceConfig()  # The inference model.
    policy: SACConfig = field(
        default_factory=lambda: SACConfig(hidden=(128, 128), actor_lr=1e-3, critic_lr=1e-3, alpha_lr=1e-3, alpha=0.2)
    )  # The policy's networks and their learning.
    eval_every: int = 80_000  # Env steps between evaluations; they never change training.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "total_steps", "num_train", "num_eval", "horizon", "ring", "warmup_rounds")
        check_range(self, "policy_episodes", "policy_batch")
        check_range(self, "warmup_updates", "encoder_updates", "policy_updates", low=0, high=2**24)
        for key in ("greedy_share", "relabel"):
            if not 0 <= getattr(self, key) <= 1:
                raise UsageError(f"{key}: must be in [0, 1], got {getattr(self, key)}")
        if not 0 <= self.anneal[0] < self.anneal[1]:
            raise UsageError(f"anneal: expected a first step and a later one, got {self.anneal[0]} {self.anneal[1]}")
        if not 0 <= self.noise_std < 100 or not 0 < self.gamma < 1:
            raise UsageError(f"noise_std, gamma: need 0 <= noise and 0 < gamma < 1, got {self.noise_std}, {self.gamma}")
        families_of(self.tasks, self.toy)

    @property
    def stride(self) -> int:
        """Env steps of an epoch."""
        return self.num_train * self.horizon


_Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class LowConfig(RunConfig):
    """Teach a body to follow sub-goals. The same command again continues the run."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "cpu": {},
        "debug": {
            "steps": 960, "num_envs": 4, "horizon": 100, "learning_starts": 160, "utd": 0.1, "batch_size": 16,
            "buffer_size": 2_000, "eval_every": 480, "save_every": 480, "log_every": 160, "sac": {"hidden": [8, 8]},
        },
    }  # fmt: skip

    dir: Path = Path("output/low_level_policy")  # Folder of the runs.
    body: str = "cheetah"  # cheetah, a Gymnasium id, or module:factory; see `taskinfer body check`.
    groups: tuple[str, ...] = ("goal", "velocity")  # What it learns to be asked for: goal velocity stand jump.
    # --- length of the run
    steps: int = 150_000  # Env steps over all bodies.
    num_envs: int = 8  # Bodies stepped together.
    horizon: int = 1_000  # Steps of an episode.
    # --- sub-goals; sizes, the sign is drawn
    shares: tuple[float, ...] = ()  # How often each of the groups is asked for; none: equally.
    goal_range: _Range = (0.5, 1.5)  # m from where the body is.
    velocity_range: _Range = (0.5, 2.5)  # m/s.
    stand_range: _Range = (0.52, 1.57)  # rad of pitch.
    jump_range: _Range = (1.5, 3.0)  # m/s up or down.
    hold: tuple[int, int] = (30, 100)  # A sub-goal stays for so many steps, uniformly drawn.
    # --- learning
    gamma: float = 0.98  # Discount a step, in (0, 1).
    tip: float = 2.0  # rad of pitch at which a body has fallen and its training episode ends; 0: as the body says.
    fall_cost: float = 20.0  # What the step of a fall costs.
    alive: float = 1.0  # Added to each step's reward in training, so that 0 is a body that does not move.
    relabel: float = 0.5  # Share of each batch whose sub-goals are drawn afresh.
    utd: float = 0.5  # Updates an env step.
    batch_size: int = 256  # Transitions an update.
    buffer_size: int = 300_000  # Transitions kept.
    learning_starts: int = 1_000  # Env steps, at random, before the first update.
    sac: SACConfig = field(
        default_factory=lambda: SACConfig(
            actor_lr=1e-3, critic_lr=1e-3, alpha_lr=1e-3, alpha=0.1, tau=0.01, target_entropy=-3.0
        )
    )  # Networks and their learning; each group has a temperature of its own.
    # --- evaluation, saving
    eval_repeats: int = 1  # Bodies for each of the fixed sub-goals of an evaluation.
    save_replay: bool = True  # Keep the replay memory on disk, so that a resumed run repeats bit for bit.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "steps", "num_envs", "horizon", "batch_size", "eval_repeats")
        for key in ("buffer_size", "learning_starts"):
            if getattr(self, key) < self.num_envs:
                least = f"must be at least {self.num_envs}, the number of bodies"
                raise UsageError(f"{key}: {least}, got {getattr(self, key)}")
        if not self.groups or len(set(self.groups)) < len(self.groups):
            raise UsageError(f"groups: expected some of {', '.join(GROUPS)}, each once, got {self.groups}")
        for name in self.groups:
            if name not in GROUPS:
                raise UsageError(f"groups: unknown group {name!r}{nearest(name, GROUPS)} (known: {', '.join(GROUPS)})")
        if self.shares and (len(self.shares) != len(self.groups) or not all(0 < s < 1e6 for s in self.shares)):
            raise UsageError(f"shares: expected a positive number for each of {self.groups}, got {self.shares}")
        for key in ("goal_range", "velocity_range", "stand_range", "jump_range", "hold"):
            low, high = getattr(self, key)
            if not 0 < low <= high:
                raise UsageError(f"{key}: expected 0 < smallest <= largest, got {low} {high}")
        if not 0 <= self.tip < 1e3 or not 0 <= self.fall_cost < 1e6:
            raise UsageError(f"tip, fall_cost: must not be negative, got {self.tip}, {self.fall_cost}")
        if not 0 < self.gamma < 1 or not 0 <= self.relabel <= 1:
            raise UsageError(f"gamma, relabel: must be in (0, 1) and [0, 1], got {self.gamma}, {self.relabel}")
        if not 0 < self.utd <= 100:
            raise UsageError(f"utd: must be in (0, 100], got {self.utd}")

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Sizes of the sub-goals of each group."""
        return {name: getattr(self, f"{name}_range") for name in self.groups}


@dataclass(frozen=True, kw_only=True)
class LowEvalConfig:
    """Score how well a low level follows fixed sub-goals, on fresh bodies; writes eval.json."""

    name: str  # Name of the run.
    dir: Path = Path("output/low_level_policy")  # Folder of the runs.
    checkpoint: str = "auto"  # best, final, last, a file; auto takes the first there is.
    repeats: int = 5  # Bodies for each sub-goal.
    seed_base: int = 10_000  # Decides the bodies' first states: the same one gives the same episodes.
    json: bool = False  # Print the result as JSON.
    debug: bool = False  # Show full tracebacks.

    def __post_init__(self) -> None:
        check_range(self, "repeats", high=2**20)
        check_range(self, "seed_base", low=0, high=SEEDS)


@dataclass(frozen=True, kw_only=True)
class BodyCheckConfig:
    """Say whether an environment can serve as a body, and what is missing if not."""

    env: tyro.conf.Positional[str]  # cheetah, a Gymnasium id, or module:factory.
    steps: int = 200  # Random steps to take.
    seed: int = 0  # Decides them.
    json: bool = False  # Print the findings as JSON.
    debug: bool = False  # Show full tracebacks.

    def __post_init__(self) -> None:
        check_range(self, "steps", high=2**24)
        check_range(self, "seed", low=0, high=SEEDS)
