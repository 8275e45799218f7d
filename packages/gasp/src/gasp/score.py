"""How well skills reproduce actions: of the window itself, of the skill prior, of the mixture.

Errors are mean squares of actions; a `share` is an error over the variance of the actions, so 1 is what the mean action
would have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gasp.data import Array, Demos
from gasp.latent import LatentPrior
from gasp.model import SkillModel
from gasp.windows import batches
from rlblocks import gaussians

SOURCES = ("prior", "mixture", "posterior")
ROWS = 32_768  # states decoded at once


def action_variance(demos: Demos, starts: Array, horizon: int) -> float:
    """Variance of the actions in the windows from `starts`, mean over their dimensions."""
    return float(demos.gather(starts, horizon)[1].reshape(-1, demos.action.shape[1]).var(0).mean())


@torch.no_grad()
def errors(model: SkillModel, prior: LatentPrior, demos: Demos, starts: Array) -> dict[str, float]:
    """Reconstruction from the means of q and of the skill prior, and the divergences, over the windows from `starts`.

    Draws nothing: to look never changes a run.
    """
    horizon, device = model.cfg.horizon, model.obs_mean.device
    model.eval()
    sums: dict[str, float] = dict.fromkeys(("mse", "prior_mse", "kl", "prior_kl"), 0.0)
    for obs, action in batches(demos, starts, horizon, device):
        q, p = model.encode(obs, action), model.prior(obs[:, 0])
        values = {
            "mse": (decode(model, obs, q[0]) - action).square().mean((1, 2)), "kl": prior.kl(*q, q[0]),
            "prior_mse": (decode(model, obs, p[0]) - action).square().mean((1, 2)), "prior_kl": gaussians.kl(*q, *p),
        }  # fmt: skip
        for name, value in values.items():
            sums[name] += float(value.double().sum())
    found = {name: total / len(starts) for name, total in sums.items()}
    variance = max(action_variance(demos, starts, horizon), 1e-12)
    return {**found, "share": found["mse"] / variance, "prior_share": found["prior_mse"] / variance}


def decode(model: SkillModel, obs: Tensor, z: Tensor) -> Tensor:
    """Actions (B, H, A) of one skill z (B, Z) a window in its states obs (B, H + 1, S)."""
    return model.decode(obs[:, : model.cfg.horizon], z[:, None])


@torch.no_grad()
def top_of(
    model: SkillModel, prior: LatentPrior, demos: Demos, starts: Array, draws: int, rng: torch.Generator
) -> dict[str, dict[str, float]]:
    """Draw `draws` skills for each window; by source, the mean error of the best of them, and of all.

    prior: from p(z|s_0), which knows the first state. mixture: from the latent prior, which knows nothing (of SPiRL:
    N(0, I)). posterior: from q(z|s,a), which has seen the window; a bound, no prediction. The published code drew from
    the component of the window's own z under the second name.
    """
    model.eval()
    horizon, device = model.cfg.horizon, model.obs_mean.device
    best: dict[str, list[Tensor]] = {source: [] for source in SOURCES}
    every: dict[str, list[Tensor]] = {source: [] for source in SOURCES}
    most = max(1, ROWS // (draws * horizon))  # windows at once
    for begin in range(0, len(starts), most):
        for obs, action in batches(demos, starts[begin : begin + most], horizon, device):
            for source in SOURCES:
                z = draw(model, prior, source, obs, action, draws, rng)  # (B, N, Z)
                decoded = model.decode(obs[:, None, :horizon], z[:, :, None])  # (B, N, H, A)
                found = (decoded - action[:, None]).square().mean((2, 3))  # (B, N)
                best[source].append(found.amin(1))
                every[source].append(found.mean(1))
    variance = max(action_variance(demos, starts, horizon), 1e-12)
    return {source: _summary(best[source], every[source], variance) for source in SOURCES}


def _summary(best: list[Tensor], every: list[Tensor], variance: float) -> dict[str, float]:
    top, mean = (float(torch.cat(values).mean()) for values in (best, every))
    return {"best": top, "mean": mean, "best_share": top / variance, "mean_share": mean / variance}


def draw(
    model: SkillModel, prior: LatentPrior, source: str, obs: Tensor, action: Tensor, draws: int, rng: torch.Generator
) -> Tensor:
    """(B, N, Z) skills from one of SOURCES."""
    count, dim = len(obs), model.cfg.latent_dim
    if source == "mixture":
        return sample_latent(prior, count * draws, rng)[0].view(count, draws, dim).to(obs)
    mean, log_std = model.encode(obs, action) if source == "posterior" else model.prior(obs[:, 0])
    noise = torch.randn(count, draws, dim, generator=rng).to(obs)
    return mean[:, None] + log_std.exp()[:, None] * noise


def sample_latent(prior: LatentPrior, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """(n, Z) skills from the latent prior and (n,) their components; all 0 for N(0, I)."""
    noise = torch.randn(count, prior.cfg.model.latent_dim, generator=rng)
    if prior.mixture is None or not prior.components:
        return noise, torch.zeros(count, dtype=torch.int64)
    chosen = torch.multinomial(prior.mixture.weights.cpu(), count, replacement=True, generator=rng)
    return prior.means.cpu()[chosen] + prior.variances.cpu()[chosen].sqrt() * noise, chosen


def table(rows: Mapping[str, Mapping[str, float]], draws: int) -> str:
    """The result of `top_of` as lines for people."""
    names = {"prior": "p(z|s0)", "mixture": "latent prior", "posterior": "q(z|s,a)"}
    heads = f"{'skills drawn from':<18} {f'best of {draws}':>14} {'mean of all':>14}"
    lines = [f"{heads}   as shares of the actions' variance"]
    for source, row in rows.items():
        values = f"{row['best']:>14.5f} {row['mean']:>14.5f}   {row['best_share']:.1%}, {row['mean_share']:.1%}"
        lines.append(f"{names[source]:<18} {values}")
    return "\n".join(lines)


def data_facts(demos: Demos, horizon: int) -> dict[str, Any]:
    """What skills learnt from these demonstrations are for; a checkpoint says the same."""
    return {
        "task": str(demos.meta.get("task", "unknown")), "obs_mode": str(demos.meta.get("obs_mode", "unknown")),
        "obs_dim": demos.obs.shape[1], "action_dim": demos.action.shape[1], "horizon": horizon,
        "episodes": demos.episodes, "states": len(demos.obs),
        "checksum": float(np.float64(demos.obs.sum(dtype=np.float64)) + demos.action.sum(dtype=np.float64)),
    }  # fmt: skip
