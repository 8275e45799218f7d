"""A student's actor that is also told what its teacher would do.

Kickstarting (Schmitt et al. 2018, arXiv:1803.03835) in the student's own states, in the scale of TD3+BC (Fujimoto and
Gu 2021, arXiv:2106.06860), with the Q-filter of Nair et al. 2018 (arXiv:1709.10089) if wanted.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from collective.losses import clone_loss
from rlblocks.config import SACConfig
from rlblocks.sac import SAC, Sample

FIELDS = ("advice", "clone")  # (N, B, A) the teacher's actions in [-1, 1], (N, B) what imitating them counts now


def advised_sac(cfg: SACConfig, obs_dim: int, action_dim: int, *, choosy: bool, **options: Any) -> SAC:
    """Soft actor-critic that imitates the advice in its batches, which have FIELDS, too."""
    pull = functools.partial(imitate, choosy=choosy)
    return SAC(cfg, obs_dim, action_dim, pull=pull, fields=FIELDS, **options)


def imitate(agent: SAC, obs: Tensor, now: Sample, q: Tensor, fields: Sequence[Tensor], *, choosy: bool) -> Tensor:
    """(N,): clone_loss, in units of the critics' values q (N, E, B) of what the policy does `now`.

    choosy: only where the critics hold the advice to be better than that.
    """
    advice, count = fields
    with torch.no_grad():
        own = q.min(-2).values
        weight = count * own.abs().mean(-1, keepdim=True)
        if choosy:
            weight = weight * (agent.q(agent.critic, obs, advice, frozen=True).min(-2).values > own)
    return clone_loss(now.mean, advice, weight)
