"""What skills are pulled towards: N(0, I), or a Dirichlet-process mixture that is fitted to them now and then."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gasp import losses
from gasp.config_skills import MixtureConfig, SkillsConfig
from rlblocks.dpmm import DPMixture
from rlcore.errors import DataError

ROUNDING = 1e-9  # by which share a bound may fall and still count as the same


def fit_epochs(epochs: int, schedule: str = "adaptive") -> tuple[int, ...]:
    """The epochs after which the mixture is fitted, of `epochs` counted from 0.

    adaptive: e_0 = 0, e_{i+1} = e_i + floor(exp(4 e_i / epochs)): often while skills change fast. It depends on nothing
    else, so that a resumed run fits when the whole run would have.
    """
    if schedule == "every":
        return tuple(range(epochs))
    found, epoch = [], 0
    while epoch < epochs:
        found.append(epoch)
        epoch += math.floor(math.exp(4 * epoch / epochs))
    return tuple(found)


class LatentPrior:
    """The latent prior over z (Z,): N(0, I) for SPiRL, and for GASP until the first fit.

    Args:
        windows: how many skills a fit will be given; thresholds are shares of it.
        seed: decides the fits.
    """

    def __init__(self, cfg: SkillsConfig, windows: int, seed: int, device: str | torch.device = "cpu") -> None:
        self.cfg, self.device, dim = cfg, torch.device(device), cfg.model.latent_dim
        self.mixture = (
            make_mixture(cfg.mixture, dim, windows, seed, self.device) if cfg.latent_prior == "dpmm" else None
        )
        self.means = self.variances = torch.zeros(0, dim, device=self.device)  # (K, Z); K = 0: N(0, I)
        self._weights = torch.zeros(0, 1 + 2 * dim, device=self.device)  # (K, F): E[log pi_k N_k] from features
        self._shift = torch.zeros(dim, device=self.device)

    @property
    def components(self) -> int:
        """K; 0 while the prior is N(0, I)."""
        return len(self.means)

    def kl(self, mean: Tensor, log_std: Tensor, z: Tensor) -> Tensor:
        """(B,) nats, of q = N(mean, exp(log_std)^2) to the prior; all (B, Z); z was drawn from q."""
        if not self.components:
            return losses.kl_standard(mean, log_std)
        divergences = losses.kl_components(mean, log_std, self.means, self.variances)
        weighted = losses.mixture_kl(self.shares(mean, log_std, z), divergences)
        return weighted * mean.shape[-1] if self.cfg.legacy_reduction else weighted

    @torch.no_grad()
    def shares(self, mean: Tensor, log_std: Tensor, z: Tensor) -> Tensor:
        """(B, K) shares of the components in each skill: by its sample z, by its mean, or expected over q.

        As `DPMixture.responsibilities`, from weights read once a fit, in float32.
        """
        x = (z if self.cfg.resp == "z" else mean) - self._shift
        squares = x * x + (2 * log_std).exp() if self.cfg.resp == "expected" else x * x
        return torch.softmax(torch.cat((torch.ones_like(x[:, :1]), x, squares), 1) @ self._weights.T, 1)

    def fit(self, z: Tensor) -> dict[str, Any]:
        """Fit the mixture to skills z (N, Z), beginning with its last components; returns a row of its history.

        A fit whose bound is below that of the components it began with is undone (`kept`: 0): exact moves never lower
        it, so this tells of a bug, or of numbers out of range.
        """
        assert self.mixture is not None
        limits: dict[str, Any] = {"max_laps": self.cfg.mixture.max_laps, "tolerance": self.cfg.mixture.tolerance}
        floor = -math.inf
        before = self.mixture.state_dict()
        if self.mixture.num_components:
            floor = self.mixture.fit(z, max_laps=1, moves=()).elbo[-1]
        report = self.mixture.fit(z, **limits)
        kept = report.elbo[-1] >= floor - ROUNDING * abs(floor)
        if not kept:
            self.mixture.load_state_dict(before)
        self.publish()
        moves = {f"{move}s": report.accepted.get(move, 0) for move in ("birth", "merge", "delete")}
        gain = report.elbo[-1] - floor if math.isfinite(floor) else None  # nats, over the components it began with
        return {
            "components": self.components, "elbo_per_window": report.elbo[-1] / len(z), "elbo_gain": gain, **moves,
            "laps": len(report.elbo), "converged": int(report.converged), "kept": int(kept),
            "entropy": self._entropy(z), "weights": [round(float(w), 4) for w in self.mixture.weights],
            "latent_std": float(z.std(0).mean()), "windows": len(z),
        }  # fmt: skip

    def _entropy(self, z: Tensor) -> float:
        """Mean entropy of the shares, nats: 0 where every skill belongs to one component."""
        assert self.mixture is not None
        shares = self.mixture.responsibilities(z.double())
        return float(-torch.xlogy(shares, shares).sum(1).mean())

    def publish(self) -> None:
        """Let the loss see the components of the last fit."""
        mixture = self.mixture
        if mixture is None or mixture.bound is None:
            return
        weights = mixture.bound.log_weights(mixture.stats)
        self.means, self.variances, self._weights, self._shift = (
            value.to(self.device, torch.float32) for value in (mixture.means, mixture.variances, weights, mixture.shift)
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that shapes the future, as plain tensors: no model of somebody else's in a pickle."""
        return {"mixture": None if self.mixture is None else self.mixture.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        if (state["mixture"] is None) != (self.mixture is None):
            raise DataError(f"latent_prior is {self.cfg.latent_prior} here, and another in the checkpoint")
        if self.mixture is not None:
            self.mixture.load_state_dict(state["mixture"])
            self.publish()


def make_mixture(cfg: MixtureConfig, dim: int, windows: int, seed: int, device: torch.device) -> DPMixture:
    """A mixture over z (dim,) with thresholds for fits to `windows` skills, or as published."""
    least = cfg.min_new if cfg.min_new is not None else max(16.0, cfg.min_new_frac * windows)
    return DPMixture(
        dim, concentration=cfg.concentration, k_max=cfg.max_components, prior_variance=cfg.variance, min_new=least,
        min_target=cfg.min_target, min_retain=cfg.min_retain, seed=seed, device=device,
    )  # fmt: skip
