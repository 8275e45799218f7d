"""What latents are pulled towards: a unit Gaussian, or a Dirichlet-process mixture fitted to them once an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlblocks.dpmm import DPMixture
from taskinfer.config import InferenceConfig
from taskinfer.losses import kl_matrix, kl_to_standard, mixture_kl

MIN_POINTS = 64
TRIES = 4


@dataclass(frozen=True)
class PriorFit:
    """What a fit of the prior came to."""

    components: int  # 0 while the prior is the unit Gaussian
    elbo: float = 0.0  # nats, of the last lap
    kept_gaussian: str = ""  # why the prior stays (or is again) the unit Gaussian


class Prior:
    """The prior over z (L,). Without a mixture, or before its first fit, it is N(0, I)."""

    def __init__(self, cfg: InferenceConfig, seed: int, device: torch.device) -> None:
        self.kind, self.hard, self.device = cfg.prior, cfg.hard_assignment, device
        self.mixture = DPMixture(
            cfg.latent_dim, concentration=cfg.concentration, k_max=cfg.max_components,
            prior_variance=cfg.component_variance, seed=seed, device=device,
        )  # fmt: skip
        self._means = torch.zeros(0, cfg.latent_dim, device=device)  # of the mixture, or none: the unit Gaussian
        self._variances = torch.zeros(0, cfg.latent_dim, device=device)

    @property
    def components(self) -> int:
        """Components in use; 0: the unit Gaussian."""
        return len(self._means)

    def kl(self, mean: Tensor, log_var: Tensor, z: Tensor) -> Tensor:
        """(B,) nats, of posteriors (B, L) to the prior; a mixture is assigned by what it says of the drawn z (B, L)."""
        if not self.components:
            return kl_to_standard(mean, log_var)
        divergences = kl_matrix(mean, log_var, self._means, self._variances)
        return mixture_kl(self.mixture.responsibilities(z.detach()), divergences, self.hard)

    def fit(self, latents: Tensor) -> PriorFit:
        """Fit the mixture to latent means (N, L), beginning with its last components. For gauss and gmm, nothing.

        Too few points, points all alike, or points that are not finite leave the prior as it was.
        """
        if self.kind != "dpmm":
            return PriorFit(0)
        if len(latents) < MIN_POINTS:
            return PriorFit(self.components, kept_gaussian=f"{len(latents)} latents, at least {MIN_POINTS} are needed")
        if not bool(torch.isfinite(latents).all()):
            return PriorFit(self.components, kept_gaussian="latents that are not finite")
        if float(latents.std(0).max()) < 1e-4:
            return PriorFit(self.components, kept_gaussian="the latents are all alike")
        report = self.mixture.fit(latents, max_laps=10)
        for _ in range(TRIES):  # a birth can miss what lies evenly around one mean: draw others
            if self.mixture.num_components > 1:
                break
            report = self.mixture.fit(latents, max_laps=10)
        self._read()
        return PriorFit(self.components, report.elbo[-1])

    def _read(self) -> None:
        self._means, self._variances = (v.to(torch.float32) for v in (self.mixture.means, self.mixture.variances))

    def assign(self, latents: Tensor) -> Tensor:
        """(N,) component of each latent (N, L); all 0 for the unit Gaussian. Only computed when asked for."""
        if not self.components:
            return torch.zeros(len(latents), dtype=torch.int64, device=latents.device)
        numbers: Tensor = self.mixture.predict(latents)
        return numbers

    def state_dict(self) -> dict[str, Any]:
        """Everything that shapes the future."""
        return {"mixture": self.mixture.state_dict(), "fitted": self.components > 0}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.mixture.load_state_dict(state["mixture"])
        if state["fitted"]:
            self._read()


def purity(component: Tensor, family: Tensor) -> float:
    """Share of points (N,) that are of their component's most frequent family."""
    if not len(component):
        return 0.0
    table = torch.zeros(int(component.max()) + 1, int(family.max()) + 1, dtype=torch.float64)
    table.index_put_((component.cpu(), family.cpu()), torch.ones(len(component), dtype=torch.float64), accumulate=True)
    return float(table.amax(1).sum() / len(component))
