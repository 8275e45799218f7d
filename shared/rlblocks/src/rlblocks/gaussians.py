"""Diagonal and tanh-squashed Gaussians: densities, divergences, products. Everything is differentiable.

`D` is the last axis, over which densities and divergences are summed; they are in nats. The other axes broadcast.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def log_prob(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """log N(x; mean, exp(log_std)^2), summed over the last axis: (..., D) each -> (...), nats."""
    return -(0.5 * ((x - mean) * torch.exp(-log_std)).square() + log_std + HALF_LOG_2PI).sum(-1)


def log_tanh_slope(u: Tensor) -> Tensor:
    """log(d tanh(u) / du) = log(1 - tanh(u)^2), elementwise, nats, as 2 (log 2 - u - softplus(-2u)).

    That form is exact for every u; log(1 - tanh^2) is -inf from u = 9 on in float32, and an epsilon in it is an error.
    """
    return 2.0 * (math.log(2.0) - u - F.softplus(-2.0 * u))


def tanh_gaussian(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """A sample a = tanh(u), u = mean + std * noise, and its log-density in a-space, by change of variables.

    Haarnoja et al. 2018, arXiv:1812.05905, appendix C. Gradients flow through the sample.

    Args: mean, log_std (..., D). noise (..., D): standard normal draws.
    Returns: a (..., D) in [-1, 1]; log pi(a) (...), nats, finite for every finite u.
    """
    assert mean.shape == log_std.shape == noise.shape, (mean.shape, log_std.shape, noise.shape)
    action, log_prob = _TanhGaussian.apply(mean, log_std, noise)  # type: ignore[no-untyped-call]
    return action, log_prob


class _TanhGaussian(torch.autograd.Function):
    """`tanh_gaussian` with its gradient by hand: half the time, for d log_tanh_slope(u) / du is only -2 tanh(u)."""

    @staticmethod
    def forward(ctx: Any, mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        shift = log_std.exp().mul_(noise)
        u = mean + shift
        density = torch.addcmul(log_std, noise, noise, value=0.5).add_(log_tanh_slope(u))  # sign and constant missing
        action = u.tanh_()
        ctx.save_for_backward(action, shift)
        return action, density.sum(-1).neg_().sub_(mean.shape[-1] * HALF_LOG_2PI)

    @staticmethod
    def backward(ctx: Any, of_action: Tensor, of_log_prob: Tensor) -> Any:  # type: ignore[override]
        action, shift = ctx.saved_tensors
        of_log_prob = of_log_prob.unsqueeze(-1)
        # da/du = 1 - a^2, d log pi / du = 2 a; log_std enters through u and, with -1, directly
        of_u = torch.addcmul(of_action, of_action * action, action, value=-1.0).addcmul_(action, of_log_prob, value=2.0)
        return of_u, torch.addcmul(-of_log_prob, of_u, shift), None


def tanh_gaussian_log_prob(action: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """log pi(a) of an action that somebody else chose: (..., D) each, a in [-1, 1] -> (...), nats.

    Inverting tanh costs precision near the bounds, and actions on them are moved inside by one rounding step: use the
    value from `tanh_gaussian` where the sample is one's own.
    """
    bound = 1.0 - torch.finfo(action.dtype).eps
    u = torch.atanh(action.clamp(-bound, bound))
    return log_prob(u, mean, log_std) - log_tanh_slope(u).sum(-1)


def tanh_log_std(x: Tensor, low: float, high: float) -> Tensor:
    """A log-std in (low, high) from any x, elementwise, by tanh: never without a gradient; 0 gives the middle."""
    return low + 0.5 * (high - low) * (x.tanh() + 1.0)


def clamp_log_std(x: Tensor, low: float, high: float) -> Tensor:
    """A log-std in [low, high] from any x, elementwise, by cutting off: no gradient outside."""
    return x.clamp(low, high)


def kl(mean_p: Tensor, log_std_p: Tensor, mean_q: Tensor, log_std_q: Tensor) -> Tensor:
    """KL(p || q) of diagonal Gaussians, summed over the last axis: (..., D) each -> (...), nats; 0 where equal.

    Per dimension: log(s_q / s_p) + (s_p^2 + (m_p - m_q)^2) / (2 s_q^2) - 1/2.
    """
    ratio = log_std_p - log_std_q
    shift = (mean_p - mean_q) * torch.exp(-log_std_q)
    return (0.5 * (torch.exp(2.0 * ratio) + shift.square() - 1.0) - ratio).sum(-1)


def kl_to_standard(mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(N(mean, exp(log_std)^2) || N(0, 1)), summed over the last axis: (..., D) each -> (...), nats.

    Kingma and Welling 2013, arXiv:1312.6114, appendix B.
    """
    return (0.5 * (torch.exp(2.0 * log_std) + mean.square() - 1.0) - log_std).sum(-1)


def product(mean: Tensor, var: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The normalised product of T Gaussians where `mask` holds: 1/v = sum_t 1/v_t, m = v sum_t m_t / v_t.

    Rakelly et al. 2019, arXiv:1903.08254, section 4.1 (a belief from the evidence of each step). Variances count as at
    least 1e-7. Where nothing is left of a row, it is the standard normal.

    Args: mean, var (T, ..., D). mask (T, ...) bool.
    Returns: mean, variance (..., D).
    """
    assert mean.shape == var.shape, (mean.shape, var.shape)
    assert mask.shape == mean.shape[:-1], (mask.shape, mean.shape)
    keep = mask.unsqueeze(-1)
    precision = torch.where(keep, var.clamp(min=1e-7).reciprocal(), 0.0)
    some = keep.any(0)
    total = torch.where(some, precision.sum(0), 1.0)
    # where, not a product with 0: what is masked may be inf or NaN
    return torch.where(keep, mean, 0.0).mul(precision).sum(0) / total, total.reciprocal()
