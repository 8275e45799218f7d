"""Soft actor-critic whose actor is also told what a teacher would do.

Kickstarting (Schmitt et al. 2018, arXiv:1803.03835) in the student's own states, with the Q-filter of Nair et al. 2018
(arXiv:1709.10089) and the scale of TD3+BC (Fujimoto and Gu 2021, arXiv:2106.06860).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from collective.losses import clone_loss
from rlblocks.sac import SAC, Sample


class TutoredSAC(SAC):
    """Imitates the teacher's advice; `choosy`: only where the critics hold it to be better.

    Batches also have "advice" (N, B, A), the teacher's actions in [-1, 1], and "clone" (N, B), what that counts now.
    """

    extra = ("advice", "clone")

    def __init__(self, *args: Any, choosy: bool = True, **options: Any) -> None:
        super().__init__(*args, **options)
        self.choosy = choosy

    def extra_loss(self, obs: Tensor, now: Sample, q: Tensor, extra: Sequence[Tensor]) -> Tensor:
        """(N,): clone_loss, in units of the critics' values."""
        advice, count = extra
        with torch.no_grad():
            own = q.min(-2).values
            weight = count * own.abs().mean(-1, keepdim=True)
            if self.choosy:
                weight = weight * (self.q(self.critic, obs, advice, frozen=True).min(-2).values > own)
        return clone_loss(now.mean, advice, weight)
