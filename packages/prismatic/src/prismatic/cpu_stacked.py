"""K layers mish(LayerNorm(W_k x + b_k)) at once, for float32 on a CPU; see `prismatic.cpu`.

Batched products win nothing there, but small tensors are all overhead: they are handled together, in few calls. Large
ones are handled one after the other, so that what was just written is still in the cache.

Shapes: x (R, I), the same for all, or (K, R, I); weight (K, O, I); bias, scale, shift (K, 1, O); dropped (K, R, O).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prismatic.cpu import Mish, mish_, product, product_gradients

TOGETHER = 2**18  # largest output, in numbers, that is handled in one piece


def stacked_mish(
    x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor, dropped: Tensor | None = None
) -> Tensor:
    """`prismatic.cpu.normed` with Mish for K layers: (K, R, O)."""
    small = x.shape[-2] * weight.shape[0] * weight.shape[1] <= TOGETHER
    if torch.is_grad_enabled():
        x = x.contiguous()  # the weights' gradient takes 100 times as long from a transposed (R, K, I)
        function = _Together if small else _OneByOne
        out: Tensor = function.apply(x, weight, bias, scale, shift, dropped)  # type: ignore[no-untyped-call]
        return out
    if not small:
        return _one_by_one(x, weight, bias, scale, shift, dropped, None)
    h, scale, shift = _products(x, weight, bias, scale, shift, dropped)
    y, _, _ = _layer_norm(h)
    y = mish_(torch.addcmul(shift, y, scale, out=y), h)
    return y.transpose(0, 1) if x.ndim == 2 else y


def _layer_norm(h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Without scale and shift, which differ by layer; means and 1 / deviations besides.

    The same numbers as with None for both, where torch takes 1.7 times as long.
    """
    scale, shift = h.new_ones(h.shape[-1]), h.new_zeros(h.shape[-1])
    return torch.native_layer_norm(h, scale.shape, scale, shift, 1e-5)


def _products(
    x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor, dropped: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """dropped * (W_k x + b_k) with scale and shift to fit: (R, K, O), one product, if x is shared, else (K, R, O)."""
    if x.ndim == 2:
        stack, width, _ = weight.shape
        h = product(x, weight.flatten(0, 1), bias.flatten()).view(-1, stack, width)
        scale, shift = scale.squeeze(1), shift.squeeze(1)
        dropped = None if dropped is None else dropped.transpose(0, 1)
    else:
        h = torch.stack([product(*layer) for layer in zip(x, weight, bias.squeeze(1))])
    return h if dropped is None else h.mul_(dropped), scale, shift


class _Together(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor, dropped: Tensor | None
    ) -> Tensor:
        h, scale, shift = _products(x, weight, bias, scale, shift, dropped)
        normal, mean, rstd = _layer_norm(h)
        out, *kept = Mish.forward(torch.addcmul(shift, normal, scale))
        ctx.save_for_backward(x, weight, scale, dropped, h, normal, mean, rstd, *kept)
        return out.transpose(0, 1) if x.ndim == 2 else out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        x, weight, scale, dropped, h, normal, mean, rstd, *kept = ctx.saved_tensors
        rows = 0 if x.ndim == 2 else 1  # the axis of R
        gradient = gradient.transpose(0, 1) if x.ndim == 2 else gradient
        d = Mish.backward(gradient.contiguous(), *kept)
        of_scale, of_shift = (None, None)
        if ctx.needs_input_grad[3]:
            of_scale, of_shift = (d * normal).sum(rows).unsqueeze(1), d.sum(rows).unsqueeze(1)
        d = torch.ops.aten.native_layer_norm_backward(
            d.mul_(scale), h, h.shape[-1:], mean, rstd, None, None, [True, False, False]
        )[0]
        if dropped is not None:
            d.mul_(dropped if rows else dropped.transpose(0, 1))
        if rows:
            found = [product_gradients(ctx.needs_input_grad, *layer) for layer in zip(d, x, weight)]
            of_x, of_weight, of_bias = (None if column[0] is None else torch.stack(column) for column in zip(*found))
        else:
            of_x, of_weight, of_bias = product_gradients(ctx.needs_input_grad, d.flatten(1), x, weight.flatten(0, 1))
        of_weight = None if of_weight is None else of_weight.view_as(weight)
        of_bias = None if of_bias is None else of_bias.view(len(weight), 1, -1)
        return of_x, of_weight, of_bias, of_scale, of_shift, None


def _one_by_one(
    x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor, dropped: Tensor | None,
    kept: list[Tensor] | None,
) -> Tensor:  # fmt: skip
    """(K, R, O). What the backward pass needs goes to `kept`, six tensors a layer."""
    out = x.new_empty(len(weight), x.shape[-2], weight[0].shape[0])
    for k in range(len(weight)):
        h = product(x if x.ndim == 2 else x[k], weight[k], bias[k][0])
        if dropped is not None:
            h.mul_(dropped[k])
        y, mean, rstd = torch.native_layer_norm(h, h.shape[1:], scale[k][0], shift[k][0], 1e-5)
        if kept is None:
            mish_(y, h, out[k])
        else:
            kept += (h, mean, rstd, *Mish.forward(y, out[k])[1:])
    return out


class _OneByOne(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor, dropped: Tensor | None
    ) -> Tensor:
        kept: list[Tensor] = []
        out = _one_by_one(x, weight, bias, scale, shift, dropped, kept)
        ctx.save_for_backward(x, weight, scale, shift, dropped, *kept)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        x, weight, scale, shift, dropped, *kept = ctx.saved_tensors
        found: list[list[Tensor | None]] = []
        for k in range(len(weight)):
            h, mean, rstd, *rest = kept[6 * k : 6 * k + 6]
            d, of_scale, of_shift = torch.ops.aten.native_layer_norm_backward(
                Mish.backward(gradient[k], *rest), h, h.shape[1:], mean, rstd, scale[k, 0], shift[k, 0],
                [True, *ctx.needs_input_grad[3:5]],
            )  # fmt: skip
            if dropped is not None:
                d.mul_(dropped[k])
            own = x if x.ndim == 2 else x[k]
            found.append([*product_gradients(ctx.needs_input_grad, d, own, weight[k]), of_scale, of_shift])
        of_x, of_weight, *others = (None if column[0] is None else torch.stack(column) for column in zip(*found))
        if of_x is not None and x.ndim == 2:
            of_x = of_x.sum(0)
        return of_x, of_weight, *(None if other is None else other.unsqueeze(1) for other in others), None
