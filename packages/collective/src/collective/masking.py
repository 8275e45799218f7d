"""What is hidden from the encoder while it learns to tell it from the rest (as in BERT, Devlin et al. 2019,
arXiv:1810.04805, with positions of states, actions and rewards chosen apart).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from collective.config_encoder import MaskConfig


class Masked(NamedTuple):
    """Values with some positions hidden."""

    values: Tensor  # (B, T, F)
    chosen: Tensor  # (B, T) bool: positions whose true values a loss may ask for


def hide(values: Tensor, valid: Tensor, cfg: MaskConfig, rng: torch.Generator) -> Masked:
    """Choose positions of one modality at random and hide them.

    Of the chosen, `cfg.zero` become 0, `cfg.noise` become noise, fresh for each element, the others stay. Where chance
    has chosen none of a row's valid positions, its last one is, so that every window teaches something. A row with one
    position is left to chance: without its only state, a window of one would never be seen as acting shows it.

    Args: values (B, T, F), right-aligned. valid (B, T) bool. rng: on the device of `values`; decides everything.
    """
    assert valid.shape == values.shape[:2], (valid.shape, values.shape)
    draw, kind = torch.rand((2, *valid.shape), generator=rng, device=values.device)
    chosen = (draw < cfg.share) & valid
    if valid.shape[1] > 1:
        chosen[:, -1] |= valid[:, -2] & ~chosen.any(1)  # right-aligned: the last position is the last valid one
    noise = torch.rand(values.shape, generator=rng, device=values.device)
    zeroed, noised = chosen & (kind < cfg.zero), chosen & (kind >= cfg.zero) & (kind < cfg.zero + cfg.noise)
    hidden = torch.where(noised[..., None], noise, values).masked_fill(zeroed[..., None], 0.0)
    return Masked(hidden, chosen)
