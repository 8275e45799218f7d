"""Skill learning: one update of the encoder, the decoder and the skill prior, and the fits of the mixture.

SPiRL (Pertsch et al. 2020, arXiv 2010.11944) with a Gaussian latent prior; GASP with a mixture that grows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from gasp import losses
from gasp.config_skills import SkillsConfig
from gasp.latent import LatentPrior, fit_epochs
from gasp.model import SkillModel
from rlcore.errors import DataError
from rlcore.seeding import derive, set_torch_state, torch_generator

Batch = tuple[Tensor, Tensor]  # obs (B, H + 1, S), action (B, H, A)


class SkillLearner:
    """Networks, latent prior, optimiser and noise of a skill run.

    Args:
        facts: what a checkpoint must agree on: obs_dim, action_dim, task, ...
        windows: how many a fit of the mixture will see. seed: decides first weights, noise and fits.
    """

    def __init__(
        self, cfg: SkillsConfig, facts: Mapping[str, Any], windows: int, seed: int, device: str | torch.device = "cpu"
    ) -> None:
        self.cfg, self.facts, self.device = cfg, dict(facts), torch.device(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "skill weights"))
            self.model = SkillModel(cfg.model, facts["obs_dim"], facts["action_dim"]).to(self.device)
        self.prior = LatentPrior(cfg, windows, derive(seed, "mixture"), self.device)
        self.noise = torch_generator(seed, "skill noise", device=str(self.device))
        prior, coder = self.model.skill_prior, (self.model.encoder, self.model.decoder)
        # Clipped apart: no loss is shared, and the prior's, a sum over Z, is by far the larger.
        self.clipped = [[p for part in coder for p in part.parameters()], list(prior.parameters())]
        self.optimizer: torch.optim.Optimizer = (
            torch.optim.Adam(self.model.parameters(), lr=cfg.lr, fused=True)
            if cfg.optimizer == "adam"
            else torch.optim.RAdam(self.model.parameters(), lr=cfg.lr, foreach=True)
        )
        self.log_beta = torch.tensor(math.log(cfg.beta), device=self.device, requires_grad=True)
        self.beta_optimizer = torch.optim.Adam([self.log_beta], lr=cfg.beta_lr)
        self.updates = 0

    # --- learning -----------------------------------------------------------------------------------------------------
    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One gradient step on a batch; the parts of its loss, as tensors."""
        cfg = self.cfg
        self.model.train()
        noise = torch.randn(len(batch[0]), cfg.model.latent_dim, generator=self.noise, device=self.device)
        loss, parts = self.loss(batch, noise)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        lengths = [torch.nn.utils.clip_grad_norm_(group, cfg.clip, foreach=True) for group in self.clipped]
        for group in self.optimizer.param_groups:
            group["lr"] = cfg.lr * self.rate()
        self.optimizer.step()
        if cfg.target_kl is not None:
            self.beta_optimizer.zero_grad(set_to_none=True)
            losses.log_beta_loss(self.log_beta, parts["kl"], cfg.target_kl).backward()  # type: ignore[no-untyped-call]
            self.beta_optimizer.step()
        self.updates += 1
        metrics = {name: value.detach() for name, value in parts.items()}
        return {**metrics, "gradient_length": lengths[0], "prior_gradient_length": lengths[1]}

    def rate(self) -> float:
        """Share of the step size in this update: it rises while warming up and falls to `lr_end` at the last one."""
        cfg = self.cfg
        left = 1.0 - self.updates / cfg.total
        return min(1.0, (self.updates + 1) / (cfg.warmup_updates + 1)) * (cfg.lr_end + (1.0 - cfg.lr_end) * left)

    def loss(self, batch: Batch, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its parts, each (). noise (B, Z): standard normal, for z."""
        mean, log_std, z, decoded, prior_mean, prior_log_std = self.model(*batch, noise)
        if self.cfg.prior_loss == "nll":
            prior = losses.prior_nll(z, prior_mean, prior_log_std)
        else:
            prior = losses.prior_kl(mean, log_std, prior_mean, prior_log_std)
        reconstruction = losses.reconstruction(batch[1], decoded)
        divergence = self.prior.kl(mean, log_std, z).mean()
        beta = self.log_beta.detach().exp()
        total = reconstruction + beta * divergence + prior
        return total, {
            "loss": total, "reconstruction": reconstruction, "kl": divergence, "prior_loss": prior, "beta": beta,
        }  # fmt: skip

    # --- the mixture --------------------------------------------------------------------------------------------------
    def fits_after(self, epoch: int) -> bool:
        """Whether the mixture is fitted after `epoch` (from 0)."""
        return self.prior.mixture is not None and epoch in fit_epochs(self.cfg.epochs, self.cfg.mixture.schedule)

    def fit(self, batches: Iterable[Batch]) -> dict[str, Any]:
        """Fit the mixture to skills of these windows, encoded by the encoder as it is now; a row of its history.

        fit_cpu_s counts the encoding, too.
        """
        begin = time.process_time()
        row = self.prior.fit(self.draw(batches))
        return {**row, "fit_cpu_s": time.process_time() - begin}

    @torch.no_grad()
    def draw(self, batches: Iterable[Batch]) -> Tensor:
        """(N, Z) skills drawn from q of every window."""
        self.model.eval()
        found = []
        for batch in batches:
            mean, log_std = self.model.encode(*batch)
            noise = torch.randn(mean.shape, generator=self.noise, device=self.device)
            found.append(torch.addcmul(mean, log_std.exp(), noise))
        return torch.cat(found)

    # --- saving -------------------------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """Everything that shapes the future, and all that acting needs."""
        return {
            "facts": dict(self.facts), "model": self.model.state_dict(), "prior": self.prior.state_dict(),
            "optimizer": self.optimizer.state_dict(), "log_beta": self.log_beta.detach(),
            "beta_optimizer": self.beta_optimizer.state_dict(), "noise": self.noise.get_state(),
            "updates": self.updates,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave. DataError where it learnt from other data."""
        for name, here in self.facts.items():
            if (there := state["facts"].get(name)) != here:
                raise DataError(f"skills: {name} is {here} in these demonstrations and {there} in the checkpoint")
        self.model.load_state_dict(state["model"])
        self.prior.load_state_dict(state["prior"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.beta_optimizer.load_state_dict(state["beta_optimizer"])
        with torch.no_grad():
            self.log_beta.copy_(state["log_beta"])
        set_torch_state(self.noise, state["noise"])
        self.updates = int(state["updates"])
