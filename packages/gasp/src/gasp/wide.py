"""Linear layers over many rows on a CPU, by oneDNN.

torch's own call MKL, which uses half the vector width on AMD's processors: 1,280 rows by 128 x 128 took 493 us there,
oneDNN 229 (one thread of an EPYC, torch 2.13). Forward and backward are the same sums in another order.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROWS = 512  # with fewer, calling costs more than is gained
# Not part of torch's public interface (its compiler calls it): where it is gone, F.linear does the same.
_MULTIPLY: Any = getattr(getattr(torch.ops, "mkldnn", None), "_linear_pointwise", None)


class WideLinear(nn.Linear):
    """nn.Linear, by oneDNN where that is faster."""

    def forward(self, input: Tensor) -> Tensor:
        return wide_linear(input, self.weight, self.bias)


def wide_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W' + b: x (N, I), weight (O, I), bias (O,)."""
    if _MULTIPLY is None or x.ndim != 2 or len(x) < ROWS or not x.is_cpu or x.dtype != torch.float32:
        return F.linear(x, weight, bias)
    return cast(Tensor, _Product.apply(x, weight, bias))  # type: ignore[no-untyped-call]


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            product(grad, weight.T) if of_x else None, product(grad.T, x.T) if of_weight else None,
            grad.sum(0) if of_bias else None,
        )  # fmt: skip


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W' + b by oneDNN, without a gradient."""
    return cast(Tensor, _MULTIPLY(dense(x), dense(weight), bias, "none", [], ""))


def dense(matrix: Tensor) -> Tensor:
    """A matrix, or its copy where it is a slice of another one: with those oneDNN is ten times slower."""
    return matrix if matrix.is_contiguous() or matrix.T.is_contiguous() else matrix.contiguous()
