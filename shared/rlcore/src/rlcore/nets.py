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


class EnsembleLinear(nn.Module):
    """E linear layers as one batched matmul: (E, B, I) -> (E, B, O), initialised like E separate `nn.Linear`."""

    def __init__(self, ensemble: int, fan_in: int, fan_out: int) -> None:
        super().__init__()
        bound = fan_in**-0.5
        self.weight = nn.Parameter(torch.empty(ensemble, fan_in, fan_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(ensemble, 1, fan_out).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class Ensemble(nn.Module):
    """E multi-layer perceptrons on the same input: (B, I) or (E, B, I) -> (E, B, O)."""

    def __init__(self, ensemble: int, sizes: Sequence[int], activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.ensemble = ensemble
        layers: list[nn.Module] = []
        for fan_in, fan_out in itertools.pairwise(sizes):
            layers += [EnsembleLinear(ensemble, fan_in, fan_out), activation()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 2:
            x = x.expand(self.ensemble, *x.shape)
        output: Tensor = self.layers(x)
        return output


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
