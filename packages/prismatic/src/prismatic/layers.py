"""The layers that every network here is made of: linear, LayerNorm, then Mish or SimNorm; and K of them at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prismatic import cpu
from prismatic.cpu_stacked import stacked_mish

INIT_STD = 0.02  # of weights, arXiv:2310.16828


def mish(x: Tensor) -> Tensor:
    """x tanh(softplus(x)): Misra 2020, arXiv:1908.08681."""
    return F.mish(x)


def simnorm(z: Tensor) -> Tensor:
    """Softmax within groups of 8 features (arXiv:2310.16828, sec. 3.1): a latent state lies on D / 8 simplices."""
    return F.softmax(z.float().unflatten(-1, (-1, 8)), -1).flatten(-2)


Activation = Callable[[Tensor], Tensor]


class Linear(nn.Module):
    """y = W x + b: (..., I) -> (..., O). `zero` starts it at 0: heads that must begin by saying nothing."""

    def __init__(self, fan_in: int, fan_out: int, generator: torch.Generator | None, zero: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(fan_out, fan_in)) if zero else _weight(generator, fan_out, fan_in)
        self.bias = nn.Parameter(torch.zeros(fan_out))

    def forward(self, x: Tensor) -> Tensor:
        if cpu.usable(x):
            return cpu.linear(x.reshape(-1, x.shape[-1]), self.weight, self.bias).view(*x.shape[:-1], -1)
        return F.linear(x, self.weight, self.bias)


class NormedLinear(Linear):
    """act(LayerNorm(W x + b)): (..., I) -> (..., O)."""

    def __init__(self, fan_in: int, fan_out: int, act: Activation, generator: torch.Generator | None) -> None:
        super().__init__(fan_in, fan_out, generator)
        self.act = act
        self.scale, self.shift = nn.Parameter(torch.ones(fan_out)), nn.Parameter(torch.zeros(fan_out))

    def forward(self, x: Tensor) -> Tensor:
        if cpu.usable(x):
            own = self.weight, self.bias, self.scale, self.shift
            act = cpu.Mish if self.act is mish else cpu.SimNorm
            return cpu.normed(act, x.reshape(-1, x.shape[-1]), *own).view(*x.shape[:-1], -1)
        return self.act(F.layer_norm(super().forward(x), self.scale.shape, self.scale, self.shift))


class StackedLinear(nn.Module):
    """K linear layers: (R, I), the same for all, or (K, R, I) -> (K, R, O).

    One batched product; on a CPU one product after the other, where batching wins nothing. heads (h,) int64 picks
    layers; `detach` lets gradients through to the input only.
    """

    def __init__(self, stack: int, fan_in: int, fan_out: int, generator: torch.Generator | None, zero: bool = False):
        super().__init__()
        shape = (stack, fan_out, fan_in)
        self.weight = nn.Parameter(torch.zeros(shape)) if zero else _weight(generator, *shape)
        self.bias = nn.Parameter(torch.zeros(stack, 1, fan_out))

    def forward(self, x: Tensor, heads: Tensor | None = None, detach: bool = False) -> Tensor:
        weight, bias = self._picked(heads, detach)
        if cpu.usable(x):
            each = x.unbind() if x.ndim == 3 else [x] * len(weight)
            return torch.stack([cpu.linear(*layer) for layer in zip(each, weight, bias.squeeze(1))])
        return torch.baddbmm(bias, x.expand(len(weight), *x.shape[-2:]), weight.mT)

    def _picked(self, heads: Tensor | None, detach: bool) -> list[Tensor]:
        """The parameters of the layers asked for."""
        own = [p.detach() if detach else p for p in self.parameters()]
        return own if heads is None else [p.index_select(0, heads) for p in own]


class StackedNormedLinear(StackedLinear):
    """mish(LayerNorm(dropout(W_k x + b_k))), each k with its own LayerNorm.

    dropped (K, R, O) is the dropout: 0 or 1 / (1 - p).
    """

    def __init__(self, stack: int, fan_in: int, fan_out: int, generator: torch.Generator | None) -> None:
        super().__init__(stack, fan_in, fan_out, generator)
        self.scale = nn.Parameter(torch.ones(stack, 1, fan_out))
        self.shift = nn.Parameter(torch.zeros(stack, 1, fan_out))

    def forward(
        self, x: Tensor, heads: Tensor | None = None, detach: bool = False, dropped: Tensor | None = None
    ) -> Tensor:
        weight, bias, scale, shift = self._picked(heads, detach)
        if cpu.usable(x):
            return stacked_mish(x, weight, bias, scale, shift, dropped)
        x = torch.baddbmm(bias, x.expand(len(weight), *x.shape[-2:]), weight.mT)
        x = x if dropped is None else x * dropped
        return mish(torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]), scale))


def _weight(generator: torch.Generator | None, *shape: int) -> nn.Parameter:
    """N(0, 0.02^2), cut at +-2 (arXiv:2310.16828)."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=INIT_STD, generator=generator))
