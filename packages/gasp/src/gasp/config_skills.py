"""Options of skill learning. The comments are its --help. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from gasp.config import check_range
from rlcore.config import RunConfig
from rlcore.errors import UsageError


def check_positive(config: object, *keys: str) -> None:
    """UsageError for the first of the options `keys` that is set and not a positive number below 1e6."""
    for key in keys:
        if (value := getattr(config, key)) is not None and not 0 < value < 1e6:
            raise UsageError(f"{key}: must be positive, got {value}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Encoder, closed-loop decoder and skill prior, as SPiRL has them."""

    horizon: int = 10  # Env steps of a skill, H.
    latent_dim: int = 10  # Size of z.
    hidden: int = 128  # Units of every hidden layer, and of the encoder's LSTM.
    decoder_layers: int = 5  # Hidden layers of the decoder after its first.
    prior_layers: int = 6  # Those of the skill prior.
    norm: Literal["layer", "batch", "none"] = "layer"  # Of these layers; SPiRL has batch, which acting must freeze.
    normalize_obs: bool = True  # Observations count in standard deviations of the demonstrations.

    def __post_init__(self) -> None:
        check_range(self, "horizon", "latent_dim", "hidden", high=2**16)
        check_range(self, "decoder_layers", "prior_layers", low=0, high=65)


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """The Dirichlet-process mixture over skills, and when it is fitted."""

    schedule: Literal["adaptive", "every"] = "adaptive"  # adaptive: ever more seldom; every: after each epoch.
    windows: int = 50_000  # Windows encoded afresh for a fit; all, where there are fewer.
    max_laps: int = 30  # Passes over them that a fit may take.
    tolerance: float = 1e-5  # A fit ends when a pass raises the bound by less than this share of it.
    concentration: float = 5.0  # Larger expects more components.
    max_components: int = 100  # Never more.
    variance: float = 0.1  # Expected variance of a component before any data.
    min_new_frac: float = 0.0013  # Least share of the windows for a new component; at least 16 of them.
    min_new: float | None = None  # Least windows for a new component, in place of the share (published: 800 of 616k).
    min_target: float | None = None  # Least windows for one that is split; 1.2 times min_new if left out.
    min_retain: float | None = None  # Least windows with which a new one stays; min_new if left out.

    def __post_init__(self) -> None:
        check_range(self, "windows", "max_laps", "max_components")
        check_positive(self, "tolerance", "concentration", "variance", "min_new", "min_target", "min_retain")
        if not 0 < self.min_new_frac < 1:
            raise UsageError(f"min_new_frac: must be in (0, 1), got {self.min_new_frac}")


_SPIRL: dict[str, Any] = {"latent_prior": "gaussian", "prior_loss": "nll"}
_MAZE: dict[str, Any] = {
    "epochs": 16, "updates_per_epoch": 75, "lr": 2e-3, "log_every": 75, "eval_every": 225, "save_every": 225,
    "model": {"latent_dim": 6, "decoder_layers": 3, "prior_layers": 3},
    "mixture": {"windows": 2_500, "max_laps": 8, "min_new_frac": 0.02},  # of 16 epochs, the last one ends with a fit
}  # fmt: skip
_KITCHEN: dict[str, Any] = {
    "epochs": 12, "updates_per_epoch": 500, "beta": 7e-3, "lr": 2e-3, "warmup_updates": 500, "log_every": 250,
    "eval_every": 1_000, "save_every": 1_000, "mixture": {"windows": 10_000, "min_new_frac": 0.03},
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SkillsConfig(RunConfig):
    """Learn skills from demonstrations. The same command again continues the run."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "maze/gasp": _MAZE,
        "maze/spirl": {**_MAZE, **_SPIRL},
        "kitchen/gasp": _KITCHEN,
        "kitchen/spirl": {**_KITCHEN, **_SPIRL},
        "debug": {
            "epochs": 4, "updates_per_epoch": 6, "batch": 16, "warmup_updates": 4, "log_every": 4, "eval_every": 12,
            "save_every": 12, "mixture": {"windows": 400, "max_laps": 5},
            "model": {"latent_dim": 3, "hidden": 16, "decoder_layers": 1, "prior_layers": 1},
        },
    }  # fmt: skip

    dir: Path = Path("experiments/skills")  # Folder of the runs.
    data: Path | None = None  # Demonstrations: a file or folder that `gasp data inspect` can read.
    latent_prior: Literal["gaussian", "dpmm"] = "dpmm"  # What skills are pulled to: N(0, I) (SPiRL), a mixture (GASP).
    # --- length of the run; a step is an update
    epochs: int = 12  # The mixture is fitted after some of them.
    updates_per_epoch: int = 75  # Updates.
    # --- losses
    beta: float = 1e-2  # Weight of the divergence to the latent prior; where target_kl is set, at the start.
    target_kl: float | None = None  # Nats a dimension that beta is steered to, if set.
    beta_lr: float = 1e-3  # Adam's step size for log beta.
    prior_loss: Literal["nll", "kl"] = "kl"  # Of the skill prior: -log p(z|s), or the divergence from q(z|s,a).
    resp: Literal["z", "mu", "expected"] = "z"  # Components' shares in a skill: of its sample, mean, or expected.
    legacy_reduction: bool = False  # Sum the divergence to the mixture over z, as the thesis did, not its mean.
    # --- optimiser
    optimizer: Literal["radam", "adam"] = "adam"  # SPiRL has radam.
    lr: float = 1e-3  # Step size.
    batch: int = 128  # Windows an update.
    warmup_updates: int = 100  # The step size rises linearly over so many.
    lr_end: float = 0.1  # Share of the step size that is left at the end; it falls linearly.
    clip: float = 1.0  # Longest gradient.
    # --- validation and saving
    val_share: float = 0.05  # Share of the episodes that is held out.
    log_every: int = 75  # Updates between training rows in metrics.jsonl.
    eval_every: int = 150  # Updates between validations; they never change training.
    save_every: int = 150  # Updates between checkpoints.
    keep_every: int | None = None  # Keep the checkpoints at multiples of this many updates, too.
    model: ModelConfig = ModelConfig()  # Networks.
    mixture: MixtureConfig = MixtureConfig()  # The mixture.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "epochs", "updates_per_epoch", "batch")
        check_range(self, "warmup_updates", low=0)
        if self.model.norm == "batch" and self.batch < 2:
            raise UsageError("batch: batch norm needs at least 2 windows in each update, got 1")
        check_positive(self, "beta", "target_kl", "beta_lr", "lr", "clip")
        if not 0 <= self.lr_end <= 1:
            raise UsageError(f"lr_end: must be in [0, 1], got {self.lr_end}")
        if not 0 < self.val_share < 1:
            raise UsageError(f"val_share: must be in (0, 1), got {self.val_share}")

    @property
    def total(self) -> int:
        """Updates of the run."""
        return self.epochs * self.updates_per_epoch
