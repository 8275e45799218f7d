"""The maths of TD-MPC2 (Hansen et al. 2024, arXiv:2310.16828) and of its gates: tensors and numbers in, tensors out.

Shapes: H steps, B batch, A action, K experts, T tasks; "..." is any leading shape. Everything here is float32.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

NUM_BINS, LIMIT = 101, 10.0  # of the scalar code: symlog values -10 .. 10 in steps of 0.2
WIDTH = 2 * LIMIT / (NUM_BINS - 1)
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def symlog(x: Tensor) -> Tensor:
    """sign(x) ln(1 + |x|): Hafner et al. 2023, arXiv:2301.04104."""
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    """sign(x) (e^|x| - 1), the inverse of symlog."""
    return x.sign() * x.abs().expm1()


def bin_values() -> Tensor:
    """(101,) symlog values of the bins. Modules keep it as a buffer: nothing is allocated per call."""
    return torch.linspace(-LIMIT, LIMIT, NUM_BINS)


def two_hot(x: Tensor) -> Tensor:
    """x (...) -> (..., 101): symlog(x) as weights of the two bins around it. Values beyond +-22025.47 are clipped."""
    position = (symlog(x.float()).clamp(-LIMIT, LIMIT) + LIMIT) / WIDTH
    low = position.floor().clamp(0, NUM_BINS - 2).unsqueeze(-1)  # the top value is all weight on the last bin
    weight = position.unsqueeze(-1) - low
    out = torch.zeros(*x.shape, NUM_BINS, device=x.device)
    index = low.nan_to_num().long()  # a NaN keeps its NaN weight: the loss shows it, the index must not
    return out.scatter_(-1, index, 1 - weight).scatter_(-1, index + 1, weight)


def two_hot_inverse(logits: Tensor, bins: Tensor) -> Tensor:
    """logits (..., 101) -> (...): symexp of the mean bin, bins as from `bin_values`."""
    return symexp(F.softmax(logits.float(), -1) @ bins)


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """-sum_i target_i log softmax(logits)_i over the last axis: (..., 101), broadcast against each other -> (...)."""
    return -(target * F.log_softmax(logits.float(), -1)).sum(-1)


def rho_weights(rho: float, steps: int) -> Tensor:
    """(steps,) rho^t / steps: how much each step of a window counts (arXiv:2310.16828, sec. 3.1)."""
    return rho ** torch.arange(steps) / steps


def consistency_loss(z: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """sum_t w_t mean (z_t - target_t)^2: z, target (H, B, D), weights (H,). arXiv:2310.16828, sec. 3.1."""
    assert z.shape == target.shape, (z.shape, target.shape)
    return (weights * (z.float() - target).square().mean((1, 2))).sum()


def code_loss(logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """sum_t w_t mean CE of two-hot codes: logits (..., H, B, 101), target (H, B, 101). arXiv:2310.16828, sec. 3.1.

    Axes before H are heads of an ensemble; the loss is their mean.
    """
    assert logits.shape[-3:] == target.shape, (logits.shape, target.shape)
    return (weights * soft_cross_entropy(logits, target).mean(-1)).sum(-1).mean()


def termination_loss(logits: Tensor, terminated: Tensor) -> Tensor:
    """Mean binary cross-entropy: logits (H, B) of s_{t+1}, terminated (H, B) float 0 or 1."""
    assert logits.shape == terminated.shape, (logits.shape, terminated.shape)
    return F.binary_cross_entropy_with_logits(logits.float(), terminated)


def td_target(reward: Tensor, discount: Tensor, terminated: Tensor, next_q: Tensor) -> Tensor:
    """y = r + gamma (1 - d) min_e Q_e(s', a'), a' ~ pi: arXiv:2310.16828, sec. 3.1.

    Args: reward, terminated (H, B); discount () or (B,) gamma of each row's task; next_q (E, H, B) target critics.
    Returns: (H, B), detached. A time limit is not a termination.
    """
    assert next_q.shape[1:] == reward.shape == terminated.shape, (next_q.shape, reward.shape, terminated.shape)
    return (reward + discount * (1 - terminated) * next_q.amin(0)).detach()


def discount(episode_length: int, low: float = 0.95, high: float = 0.995) -> float:
    """gamma of a task by its length in agent steps, (L/5 - 1) / (L/5) within limits (arXiv:2310.16828, appendix)."""
    fifth = episode_length / 5
    return min(max((fifth - 1) / fifth, low), high)


def gaussian_log_prob(noise: Tensor, log_std: Tensor, mask: Tensor | None = None) -> Tensor:
    """log N(mean + std noise; mean, std) (...), summed over actions (..., A), masked ones left out."""
    each = -0.5 * noise.square() - log_std - HALF_LOG_2PI
    return (each if mask is None else each * mask).sum(-1)


def tanh_log_det(u: Tensor, mask: Tensor | None = None) -> Tensor:
    """sum_a log(1 - tanh(u_a)^2) (...), without overflow: 2 (ln 2 - u - softplus(-2u))."""
    each = 2 * (math.log(2) - u - F.softplus(-2 * u))
    return (each if mask is None else each * mask).sum(-1)


def policy_loss(q: Tensor, scale: Tensor, entropy: Tensor, coef: float, weights: Tensor) -> Tensor:
    """-sum_t w_t mean[ Q(z_t, a_t) / S + coef * entropy ], a ~ pi: arXiv:2310.16828, sec. 3.1.

    Args: q, entropy (H+1, B); scale () the running S; weights (H+1,).
    """
    assert q.shape == entropy.shape, (q.shape, entropy.shape)
    return -(weights * (q / scale + coef * entropy).mean(-1)).sum()


def percentile_range(x: Tensor, low: float = 0.05, high: float = 0.95) -> Tensor:
    """P95 - P5 of x (B,), with linear interpolation, as numpy.percentile has it."""
    ordered = x.float().sort().values
    ends = []
    for share in (low, high):
        position = share * (len(x) - 1)
        below = min(int(position), max(len(x) - 2, 0))
        above = min(below + 1, len(x) - 1)
        ends.append(torch.lerp(ordered[below], ordered[above], position - below))
    return ends[1] - ends[0]


def scale_step(scale: Tensor, q: Tensor, tau: float) -> Tensor:
    """S <- (1 - tau) S + tau max(1, P95 - P5 of q (B,)): returns of any size come to the policy as about 1."""
    return torch.lerp(scale, percentile_range(q).clamp(min=1.0), tau)


def load_balance(load: Tensor) -> Tensor:
    """K sum_k load_k^2 - 1, load (..., K) summing to 1: 0 if uniform, K - 1 on one expert.

    The squared coefficient of variation of the importance (Shazeer et al. 2017, arXiv:1701.06538, eq. 6-7).
    """
    return load.shape[-1] * load.square().sum(-1) - 1


def entropy(p: Tensor) -> Tensor:
    """-sum p ln p over the last axis, in nats; 0 ln 0 = 0, and its gradient is finite."""
    return -(p * p.clamp(min=1e-12).log()).sum(-1)


def normalised_entropy(p: Tensor, top_k: int = 0) -> Tensor:
    """Mean entropy of the rows p (..., K) over ln K, in [0, 1]; 0 where there is only one expert.

    top_k: how many of a row may be above 0; its logarithm is the largest entropy then. 0: all.
    """
    experts = min(top_k or p.shape[-1], p.shape[-1])
    return entropy(p).mean() / math.log(experts) if experts > 1 else p.new_zeros(())


def temperature_step(tau: Tensor, spread: Tensor, target: float, beta: float, low: float, high: float) -> Tensor:
    """tau <- clip(tau + beta (target - spread)): gates that are too flat (spread > target) cool down."""
    return (tau + beta * (target - spread)).clamp(low, high)


def mutual_information(load: Tensor, weight: Tensor) -> Tensor:
    """I(group; expert) in nats, at most ln min(G, K).

    Args: load (G, K) mean gate of each group; weight (G,) its share of the rows.
    """
    return entropy(weight @ load) - (weight * entropy(load)).sum()
