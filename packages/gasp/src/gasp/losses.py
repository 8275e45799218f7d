"""Losses of skill learning, as functions of tensors.

B windows, H steps, A action dimensions, Z latent dimensions, K components. Divergences to the latent prior are means
over Z and B, whatever the prior is: so beta weighs the same before the first fit of a mixture as after it. The
published codes mean one and sum the other, a factor of Z between them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlblocks import gaussians
from rlblocks.gaussians import HALF_LOG_2PI


def reconstruction(action: Tensor, decoded: Tensor) -> Tensor:
    """(): mean over all of -log N(action; decoded, 1), nats a number: (B, H, A) each. Pertsch et al. 2020, eq. 1."""
    assert action.shape == decoded.shape, (action.shape, decoded.shape)
    return 0.5 * (action - decoded).square().mean() + HALF_LOG_2PI


def kl_standard(mean: Tensor, log_std: Tensor) -> Tensor:
    """(B,) KL(q || N(0, I)), nats, mean over Z: (B, Z) each."""
    return gaussians.kl_to_standard(mean, log_std) / mean.shape[-1]


def kl_components(mean: Tensor, log_std: Tensor, means: Tensor, variances: Tensor) -> Tensor:
    """(B, K) KL(q || N(m_k, diag v_k)), nats, mean over Z: mean, log_std (B, Z), means, variances (K, Z).

    The quadratic form is two matrix products over Z in place of (B, K, Z) numbers.
    """
    assert mean.shape == log_std.shape, (mean.shape, log_std.shape)
    assert means.shape == variances.shape, (means.shape, variances.shape)
    precision = variances.reciprocal()  # (K, Z)
    second = torch.addcmul((2.0 * log_std).exp(), mean, mean)  # E[z^2]
    constant = (variances.log() + means.square() * precision - 1.0).sum(1)  # (K,)
    quadratic = second @ precision.T - 2.0 * (mean @ (means * precision).T)
    return 0.5 * (constant + quadratic - 2.0 * log_std.sum(1, keepdim=True)) / mean.shape[-1]


def mixture_kl(resp: Tensor, divergences: Tensor) -> Tensor:
    """(B,) sum_k r_bk KL_k, the weighted sum of divergences of Ghiara's DIVA (arXiv 2305.14067): (B, K) each."""
    assert resp.shape == divergences.shape, (resp.shape, divergences.shape)
    return (resp.detach() * divergences).sum(-1)


def prior_nll(z: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """(): mean over B of -log p(z|s), nats, summed over Z; z counts as data. Pertsch et al. 2020, eq. 2, by samples."""
    return -gaussians.log_prob(z.detach(), mean, log_std).mean()


def prior_kl(q_mean: Tensor, q_log_std: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """(): mean over B of KL(q(z|s,a) || p(z|s)), nats, summed over Z; q counts as data."""
    return gaussians.kl(q_mean.detach(), q_log_std.detach(), mean, log_std).mean()


def log_beta_loss(log_beta: Tensor, divergence: Tensor, target: float) -> Tensor:
    """(): beta (target - KL), whose descent raises beta where KL is above its target (dual descent)."""
    return log_beta.exp() * (target - divergence.detach())
