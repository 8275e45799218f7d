"""The loss of recurrent double DQN, its targets and schedules: pure functions of tensors and numbers.

Time-major shapes: L training steps, B sequences, A actions. One network reads the L+1 observations of a window once, so
that row t+1 holds Q(s_{t+1}) with the memory it really had; nothing is read twice and no row is padding.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from rlcore.errors import UsageError


def double_q_target(reward: Tensor, discount: Tensor, next_q_online: Tensor, next_q_target: Tensor) -> Tensor:
    """y = r + d Q_target(s', argmax_a Q_online(s', a)): the online net chooses, the target net values.

    van Hasselt et al. 2016, arXiv:1509.06461, eq. 4.

    Args:
        reward:        (...)     the return collected before s'.
        discount:      (...)     gamma^n where the episode goes on at s', 0 where it terminated before.
        next_q_online: (..., A)  Q_online(s', .).
        next_q_target: (..., A)  Q_target(s', .).
    Returns: (...) target, detached.
    """
    assert next_q_online.shape == next_q_target.shape, (next_q_online.shape, next_q_target.shape)
    assert reward.shape == discount.shape == next_q_online.shape[:-1], (reward.shape, next_q_online.shape)
    choice = next_q_online.argmax(-1, keepdim=True)
    return (reward + discount * next_q_target.gather(-1, choice).squeeze(-1)).detach()


def n_step_return(
    reward: Tensor, terminated: Tensor, truncated: Tensor, gamma: float, n_step: int
) -> tuple[Tensor, Tensor, Tensor]:
    """R_t = sum_{k<n} gamma^k r_{t+k}, the sum stopping at a termination.

    Args: reward, terminated, truncated (L, B). `truncated` only where not `terminated`.
    Returns: three (L+1-n, B) tensors. R; the discount of the bootstrap at t+n, gamma^n or 0 after a termination; the
        mask, 0 where a truncation lies in the n steps: the rows behind it belong to another episode.
    """
    rows = len(reward) + 1 - n_step
    if rows < 1:
        raise UsageError(f"n_step {n_step} needs windows of at least {n_step} steps, got {len(reward)}")
    total, mask = reward[:rows], (~truncated[:rows]).to(reward.dtype)
    alive = (~terminated[:rows]).to(reward.dtype)
    for k in range(1, n_step):
        total = total + gamma**k * alive * reward[k : k + rows]
        mask = mask * (1.0 - alive * truncated[k : k + rows].to(total.dtype))
        alive = alive * (1.0 - terminated[k : k + rows].to(total.dtype))
    return total, gamma**n_step * alive, mask


def recurrent_double_dqn_loss(
    q: Tensor,
    target_q: Tensor,
    action: Tensor,
    reward: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    gamma: float,
    n_step: int = 1,
    huber_delta: float = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """sum_t mask_t huber(Q(s_t, a_t) - y_t) / sum_t mask_t, y_t the n-step double-Q target at row t + n.

    Double DQN (see `double_q_target`) on replayed sequences as in R2D2 (Kapturowski et al. 2019, ICLR), without its
    value rescaling. The last n rows are only bootstrapped from. A truncated step has no row to bootstrap from (the next
    one is another episode) and is left out; a terminated one has y = r.

    Args:
        q:        (L+1, B, A)  online net over the window, with gradient.
        target_q: (L+1, B, A)  target net over the same observations.
        action:   (L, B) int64; reward (L, B); terminated, truncated (L, B) bool.
    Returns: the loss (), and detached metrics: td_error (L+1-n, B), 0 where masked; mask, likewise; q_mean and
        target_mean (), over unmasked rows.
    """
    assert q.shape == target_q.shape, (q.shape, target_q.shape)
    assert action.shape == reward.shape == terminated.shape == truncated.shape, (action.shape, reward.shape)
    assert q.shape[:2] == (len(action) + 1, action.shape[1]), (q.shape, action.shape)
    n_return, discount, mask = n_step_return(reward, terminated, truncated, gamma, n_step)
    rows = len(n_return)
    target = double_q_target(n_return, discount, q[n_step:], target_q[n_step:])
    chosen = q[:rows].gather(-1, action[:rows].unsqueeze(-1)).squeeze(-1)  # (L+1-n, B)
    count = mask.sum().clamp(min=1.0)
    loss = (mask * F.huber_loss(chosen, target, reduction="none", delta=huber_delta)).sum() / count
    detached = chosen.detach()
    info = {
        "td_error": mask * (detached - target),
        "mask": mask,
        "q_mean": (mask * detached).sum() / count,
        "target_mean": (mask * target).sum() / count,
    }
    return loss, info


def linear_epsilon(step: int, steps: int, start: float, end: float) -> float:
    """From `start` at step 0 to `end` at `steps` in a straight line, `end` from there on."""
    fraction = min(step / steps, 1.0) if steps > 0 else 1.0
    return start + fraction * (end - start)


def multiplicative_epsilon(episode: int, decay: float, start: float, end: float) -> float:
    """start * decay^episode, never under `end`."""
    return max(end, start * decay**episode)


def burn_in_length(lam: float, fraction: float = 0.1) -> int:
    """Steps K after which an error in the start state M_0 has shrunk to `fraction`: lam^K <= fraction, K >= 1."""
    if not 0.0 <= lam < 1.0:
        raise UsageError(f"no burn-in length for lambda {lam}: it must lie in [0, 1); replay whole episodes instead")
    return 1 if lam == 0.0 else max(1, math.ceil(math.log(fraction) / math.log(lam)))
