"""What the inference model learns from: pure functions, tensors in, tensors out. Divergences are in nats."""

from __future__ import annotations

import torch
from torch import Tensor

LOG_VAR_MIN, LOG_VAR_MAX = -10.0, 4.0


def kl_to_standard(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, diag exp(log_var)) || N(0, I)): (..., L) each -> (...), >= 0.

    Kingma and Welling 2013, arXiv:1312.6114, appendix B. Cut at 0, below which only rounding can bring it.
    """
    return (0.5 * (log_var.exp() + mean.square() - 1.0 - log_var)).sum(-1).clamp(min=0.0)


def kl_matrix(mean: Tensor, log_var: Tensor, means: Tensor, variances: Tensor) -> Tensor:
    """KL of every diagonal Gaussian to every component: (B, L), (B, L), (K, L), (K, L) -> (B, K), >= 0.

    1/2 sum_d [log(s^2 / v) + (v + (m - m_k)^2) / s^2 - 1].
    """
    ratio = variances.log() - log_var[:, None]
    spread = (log_var.exp()[:, None] + (mean[:, None] - means).square()) / variances
    return (0.5 * (ratio + spread - 1.0)).sum(-1).clamp(min=0.0)


def mixture_kl(resp: Tensor, divergences: Tensor, hard: bool = False) -> Tensor:
    """sum_k p_k KL_k, or that of the most responsible component alone: resp, divergences (B, K) -> (B,).

    No gradient flows through the responsibilities (they are what the mixture says of a drawn z).
    """
    resp = resp.detach()
    if hard:
        return divergences.gather(1, resp.argmax(1, keepdim=True))[:, 0]
    return (resp * divergences).sum(1)


def combine_classes(logits: Tensor, means: Tensor, log_vars: Tensor) -> tuple[Tensor, Tensor]:
    """z = sum_k gamma_k z_k with gamma = softmax(logits) and independent z_k is Gaussian: its mean and log variance.

    sum gamma_k m_k, sum gamma_k^2 v_k (Bing et al. 2021, TIGR). logits (..., K), means, log_vars (..., K, L) ->
    (..., L) each.
    """
    share = logits.softmax(-1).unsqueeze(-1)
    variance = (share.square() * log_vars.exp()).sum(-2)
    return (share * means).sum(-2), variance.clamp(min=1e-12).log()


def separation(means: Tensor, stds: Tensor) -> Tensor:
    """1/2 sum over ordered pairs i != j and d of std_id / (|m_i - m_j|^2 + 1e-8), mean over B: (B, K, L) each -> ().

    Bing et al. 2021 (TIGR). A class has no distance to itself, so i = j is left out: there the term would be 1e8 times
    the standard deviation.
    """
    classes = means.shape[1]
    apart = (means[:, :, None] - means[:, None]).square().sum(-1) + 1e-8  # (B, K, K)
    other = ~torch.eye(classes, dtype=torch.bool, device=means.device)
    return (0.5 * stds.sum(-1)[:, :, None] / apart * other).sum((1, 2)).mean()
