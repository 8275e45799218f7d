"""Losses, targets and schedules of the method: tensors in, tensors out.

Equation numbers are those of docs/collective.md. `B` is the batch, `A` the action's dimensions, `D` the code's.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rlblocks.gaussians import kl

Array = np.ndarray[Any, Any]
LOG_STD_SCRIPTED = math.log(0.1)  # of an expert that is a script: it has none of its own


def info_nce(z1: Tensor, z2: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Contrast of two views of B windows: cross-entropy of picking one's own other view (van den Oord et al. 2018,
    arXiv:1807.03748).

    Codes are scaled to length 1, logits are their products / temperature. The other view of another window of the same
    label is no negative: it is left out (as in Khosla et al. 2020, arXiv:2004.11362, where it would be a positive).

    Args: z1, z2 (B, D). labels (B,): task, or arm. Returns: (), nats.
    """
    assert z1.shape == z2.shape, (z1.shape, z2.shape)
    assert labels.shape == z1.shape[:1], (labels.shape, z1.shape)
    logits = F.normalize(z1, dim=-1) @ F.normalize(z2, dim=-1).T / temperature  # (B, B)
    own = torch.eye(len(z1), dtype=torch.bool, device=z1.device)
    alike = (labels[:, None] == labels[None, :]) & ~own
    return F.cross_entropy(logits.masked_fill(alike, -torch.inf), torch.arange(len(z1), device=z1.device))


def masked_mse(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error over the positions where `mask` holds: (..., F), (..., F), (...) bool -> (). 0 for none."""
    assert predicted.shape == target.shape, (predicted.shape, target.shape)
    assert mask.shape == target.shape[:-1], (mask.shape, target.shape)
    error = (predicted - target).square().mean(-1)
    return torch.where(mask, error, 0.0).sum() / mask.sum().clamp(min=1)


def distil_loss(mean: Tensor, log_std: Tensor, expert_mean: Tensor, expert_log_std: Tensor) -> Tensor:
    """How far a policy is from an expert: squared distance of squashed means, and of log-stds with a weight.

    (tanh m - m*)^2 + 0.2 w (log s - log s*)^2 with w = 2 / max(2, -log s*): a very sure expert's log-std is a number
    that nobody needs to hit.

    Args: mean, log_std (..., A) before squashing. expert_mean (..., A) in [-1, 1]; expert_log_std (..., A).
    Returns: (), the mean over everything.
    """
    assert mean.shape == log_std.shape == expert_mean.shape == expert_log_std.shape, (mean.shape, expert_mean.shape)
    weight = 2.0 / (-expert_log_std).clamp(min=2.0)
    spread = 0.2 * weight * (log_std - expert_log_std).square()
    return ((mean.tanh() - expert_mean).square() + spread).mean()


def distil_kl(mean: Tensor, log_std: Tensor, expert_mean: Tensor, expert_log_std: Tensor) -> Tensor:
    """KL(expert || policy) of the Gaussians before squashing, mean over the batch, nats a step: (..., A) each -> ().

    expert_mean in [-1, 1] is taken back through tanh, at most to 0.999: a script's full push has no finite mean.
    """
    bound = 0.999
    return kl(torch.atanh(expert_mean.clamp(-bound, bound)), expert_log_std, mean, log_std).mean()


def critic_label(reward: Tensor, discount: Tensor, next_value: Tensor) -> Tensor:
    """What distilled critics are fitted to: q* = r + d V(s'), d = gamma (1 - terminated). (B,) each -> (B,)."""
    return reward + discount * next_value


def clone_loss(mean: Tensor, advice: Tensor, weight: Tensor) -> Tensor:
    """mean_b w_b |tanh m_b - a*_b|^2, what a student's policy is off from its teacher's actions.

    Args: mean (..., B, A) before squashing; advice (..., B, A) in [-1, 1]; weight (..., B). Returns: (...).
    """
    assert mean.shape == advice.shape, (mean.shape, advice.shape)
    assert weight.shape == mean.shape[:-1], (weight.shape, mean.shape)
    return (weight * (mean.tanh() - advice).square().sum(-1)).mean(-1)


def shaping_bonus(action: Array, mean: Array, log_std: Array, low: float = 0.3, high: float = 1.0) -> Array:
    """How much an action is like the teacher's: rho = prod_i exp(-1/2 ((a_i - mu_i) / sigma_i)^2), in (0, 1].

    sigma is kept in [low, high]: a teacher that is very sure would make a spike of it that no student ever meets.

    Args: action, mean (B, A) in [-1, 1]; log_std (B, A). Returns: (B,) float32.
    """
    sigma = np.clip(np.exp(log_std), low, high)
    rho: Array = np.exp(-0.5 * np.square((action - mean) / sigma).sum(-1))
    return rho.astype(np.float32)


def shaping_weight(step: float, initial: float, constant: float, expire: float, start: float = 1.0) -> float:
    """Weight of the bonus after `step` env steps: `start` for initial + constant steps, then down to 0 at `expire`."""
    flat = initial + constant
    left = 1.0 - (step - flat) / max(expire - flat, 1e-9)
    return start * min(max(left, 0.0), 1.0)


def potential_bonus(value: Array, next_value: Array, gamma: float, terminated: Array) -> Array:
    """gamma Phi(s') - Phi(s), which changes no optimal policy (Ng et al. 1999): (B,) each -> (B,). An end has Phi 0."""
    bonus: Array = gamma * np.where(terminated, 0.0, next_value) - value
    return bonus.astype(np.float32)
