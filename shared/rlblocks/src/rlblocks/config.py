"""Options of what is in this package, to nest in a method's configuration. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rlcore.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class SACConfig:
    """Soft actor-critic. The defaults are those of stable-baselines3."""

    hidden: tuple[int, ...] = (256, 256)  # Hidden units of each layer, in the actor and in each critic.
    critics: int = 2  # Critics; the smallest of their values counts.
    actor_lr: float = 3e-4  # Adam's step size for the actor.
    critic_lr: float = 3e-4  # Adam's step size for the critics.
    alpha_lr: float = 3e-4  # Adam's step size for the logarithm of the temperature.
    tau: float = 0.005  # Share of the critics that goes into the target critics at a time, in (0, 1].
    target_every: int = 1  # Critic updates between updates of the target critics.
    actor_every: int = 1  # Critic updates between updates of the actor and of the temperature.
    alpha: float = 1.0  # Temperature: worth of a nat of entropy (or of divergence) in reward, at the start.
    learn_alpha: bool = True  # Tune the temperature towards the target.
    target_entropy: float | None = None  # Nats an action vector; minus its dimension if left out.
    log_std_min: float = -20.0  # Smallest log standard deviation before squashing.
    log_std_max: float = 2.0  # Largest one.
    log_std_map: Literal["clamp", "tanh"] = "clamp"  # How the actor's output is kept between them.
    init: Literal["torch", "xavier"] = "torch"  # First weights: uniform by fan-in, or by fan-in and -out with biases 0.
    precision: Literal["float32", "bf16"] = "float32"  # bf16: inner layers multiply in bfloat16; all else is float32.
    cuda_graph: bool = True  # On a GPU, record the update once and replay it as one CUDA graph.

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise UsageError(f"hidden: expected at least one layer of at least 1 unit, got {self.hidden}")
        for key in ("critics", "target_every", "actor_every"):
            if getattr(self, key) < 1:
                raise UsageError(f"{key}: must be at least 1, got {getattr(self, key)}")
        for key in ("actor_lr", "critic_lr", "alpha_lr", "alpha"):
            if not 0 < getattr(self, key) < 1e6:
                raise UsageError(f"{key}: must be positive, got {getattr(self, key)}")
        if not 0 < self.tau <= 1:
            raise UsageError(f"tau: must be in (0, 1], got {self.tau}")
        if not self.log_std_min < self.log_std_max < 20:
            raise UsageError(
                f"log_std_min, log_std_max: need min < max < 20, got {self.log_std_min}, {self.log_std_max}"
            )
