"""Small pieces of networks that several methods build from."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


def mlp(sizes: Sequence[int], activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers of `sizes` (inputs first, outputs last), `activation` between them, none at the end."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers[:-1])


@torch.no_grad()
def polyak_(target: Iterable[Tensor], source: Iterable[Tensor], tau: float) -> None:
    """target <- (1 - tau) target + tau source, in one fused call. tau = 1 copies exactly."""
    targets, sources = list(target), list(source)
    if tau == 1.0:
        torch._foreach_copy_(targets, sources)
    else:
        torch._foreach_lerp_(targets, sources, tau)


def count_parameters(module: nn.Module) -> int:
    """How many numbers the optimiser changes."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
