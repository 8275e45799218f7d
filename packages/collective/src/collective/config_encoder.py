"""Options of `train-encoder` and `embed`. The comments are their --help. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from collective.config import SEEDS, WINDOW, check_range
from rlcore.config import RunConfig
from rlcore.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes of the network that reads windows."""

    length: int = WINDOW  # States in a full window, L.
    code_dim: int = 6  # Numbers in a task code.
    width: int = 32  # Units of a token; of the LSTM and the GRU, too.
    layers: int = 3  # Layers of the transformer, or of the LSTM or GRU.
    heads: int = 8  # Attention heads; they share the width.
    hidden: int = 128  # Units of a feed-forward layer.
    dropout: float = 0.1  # Share of activations dropped while learning; acting drops none.

    def __post_init__(self) -> None:
        check_range(self, "length", low=2, high=1_025)
        check_range(self, "code_dim", "width", "layers", "heads", "hidden", high=2**14)
        if self.width % self.heads:
            raise UsageError(f"width: must be a multiple of heads, {self.heads}, got {self.width}")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout: must be in [0, 1), got {self.dropout}")


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """What is hidden from the network while it learns. Positions are chosen apart in states, actions and rewards."""

    share: float = 0.15  # Chance of a position to be chosen; its value must then be told from the rest.
    zero: float = 0.8  # Share of the chosen that become 0.
    noise: float = 0.1  # Share of the chosen that become noise, uniform in [0, 1); the rest are left as they are.

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UsageError(f"mask.share: must be in (0, 1], got {self.share}")
        if not (self.zero >= 0 and self.noise >= 0 and self.zero + self.noise <= 1):
            raise UsageError(f"mask.zero, mask.noise: must add up to 0 .. 1, got {self.zero} and {self.noise}")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of what is learnt."""

    state: float = 1.0  # Weight of the squared error of hidden states, in standard deviations.
    action: float = 1.0  # Of hidden actions.
    reward: float = 1.0  # Of hidden rewards, which are divided by 10.
    contrast: float = 0.25  # Of the contrast of codes; of the cross-entropy with --objective classify.
    temperature: float = 0.15  # Of the contrast.

    def __post_init__(self) -> None:
        for key in ("state", "action", "reward", "contrast"):
            if not 0 <= getattr(self, key) < 1e6:
                raise UsageError(f"loss.{key}: must not be negative, got {getattr(self, key)}")
        if not 0 < self.temperature < 1e6:
            raise UsageError(f"loss.temperature: must be positive, got {self.temperature}")


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(RunConfig):
    """Learn to say in six numbers which task a window of behaviour is of. The same command continues the run."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "cpu": {},
        "gpu": {
            "updates": 20_000, "batch": 512, "lr": 8e-4, "log_every": 500, "eval_every": 2_000, "save_every": 2_000,
            "model": {"dropout": 0.1},
        },
        "reference": {
            "updates": 20_000, "batch": 128, "lr": 2e-4, "lr_end": 1.0, "warmup_updates": 0, "log_every": 500,
            "eval_every": 2_000, "save_every": 2_000, "model": {"dropout": 0.1},
        },
        "debug": {
            "updates": 24, "batch": 12, "warmup_updates": 4, "log_every": 6, "eval_every": 12, "save_every": 12,
            "validated": 6, "model": {"width": 16, "layers": 2, "heads": 4, "hidden": 32},
        },
    }  # fmt: skip

    dir: Path = Path("experiments/encoders")  # Folder of the runs.
    data: tuple[Path, ...] = ()  # Folders of data sets that `collective record` has written.
    encoder: Literal["transformer", "lstm", "gru"] = "transformer"  # What reads the windows.
    objective: Literal["contrastive", "classify"] = "contrastive"  # Codes by contrast, or by telling tasks apart.
    contrast_by: Literal["task", "arm", "none"] = "task"  # What must differ; windows that share it are no negatives.
    # --- length of the run; a step is an update
    updates: int = 1_000  # Updates.
    batch: int = 32  # Windows an update, as many of each task.
    full_share: float = 0.5  # Share of the windows that are of full length; the others have any, 1 to L - 1.
    start_share: float = 0.5  # Share of the shorter ones that begin with an episode, as they do while acting.
    action_dropout: float = 0.0  # Share of the windows whose actions are all hidden; 1: codes never know of actions.
    # --- optimiser: Adam
    lr: float = 1e-3  # Step size.
    lr_end: float = 0.1  # Share of the step size that is left at the end; it falls linearly.
    warmup_updates: int = 50  # The step size rises linearly over so many.
    clip: float = 1.0  # Longest gradient.
    # --- validation and saving
    validated: int = 60  # Held-out windows of each task and each range of lengths that a validation looks at.
    log_every: int = 50  # Updates between training rows in metrics.jsonl.
    eval_every: int = 250  # Updates between validations; they never change training.
    save_every: int = 250  # Updates between checkpoints.
    keep_every: int | None = None  # Keep the checkpoints at multiples of this many updates, too.
    model: ModelConfig = ModelConfig()  # Network.
    mask: MaskConfig = MaskConfig()  # What is hidden.
    loss: LossConfig = LossConfig()  # Weights.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "updates")
        check_range(self, "batch", "validated", low=2, high=2**20)
        check_range(self, "warmup_updates", low=0)
        for key in ("lr", "clip"):
            if not 0 < getattr(self, key) < 1e6:
                raise UsageError(f"{key}: must be positive, got {getattr(self, key)}")
        for key in ("full_share", "start_share", "action_dropout", "lr_end"):
            if not 0 <= getattr(self, key) <= 1:
                raise UsageError(f"{key}: must be in [0, 1], got {getattr(self, key)}")


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """Draw the codes of held-out windows, and measure how well they tell tasks apart."""

    encoder: Path  # Run of `collective train-encoder`, or one of its checkpoints.
    data: tuple[Path, ...] = ()  # Data sets; without them, those that the encoder learnt from.
    method: Literal["pca", "tsne"] = "pca"  # How codes become a plane; tsne needs scikit-learn.
    split: Literal["validation", "train"] = "validation"  # Trajectories to draw.
    windows: int = 60  # Windows of each task and each range of lengths.
    out: Path | None = None  # Picture to write, .png, .svg or .pdf, and .json beside it; None: in the run's plots.
    seed: int = 0  # Decides which windows, and where t-SNE begins.
    json: bool = False  # Print the findings as JSON.
    debug: bool = False  # Show full tracebacks.

    def __post_init__(self) -> None:
        check_range(self, "seed", low=0, high=SEEDS)
        check_range(self, "windows", low=2, high=2**20)
