"""Layers for float32 on a CPU, several times faster than torch's own there.

Measured on an AMD EPYC with AVX-512, one thread, CPU time, for 512 rows: a product by 384x384 takes 0.6 ms in oneDNN
and 1.4 ms in MKL, which `F.linear` calls; Mish of 384 features 0.1 ms in the passes below and 0.6 ms in `F.mish`, whose
log1p is slow; SimNorm of 512 features 0.3 ms and 3.5 ms in `F.softmax`, which is slow on rows of 8. Backward passes are
written out, so that a layer is one node of the graph.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
LOG2_E = 1 / math.log(2)
HUGE = 1e9  # e^y is cut off here: Mish is y long before, and squares stay finite
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's mallopt: names of the two limits


def reuse_memory() -> None:
    """Let this process keep the memory that tensors give back, up to 256 MiB, for the next ones. Linux with glibc only.

    By default glibc returns it to the kernel, which hands it out again page by page: a tenth to a fifth of an update.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(TRIM_THRESHOLD, 256 << 20)


def return_memory() -> None:
    """Give what is kept for later back to the kernel now."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def usable(x: Tensor) -> bool:
    """Whether these functions may stand in for torch's: not on other devices, under autocast or in torch.compile."""
    plain = x.device.type == "cpu" and x.dtype == torch.float32 and HAS_ONEDNN
    return plain and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling()


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """W x + b: x (R, I), weight (O, I), bias (O,) -> (R, O)."""
    if not torch.is_grad_enabled():
        return product(x, weight, bias)
    y: Tensor = _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return y


def normed(
    act: Activation, x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor,
    dropped: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """act(LayerNorm(dropped * (W x + b))): x (R, I) -> (R, O); scale, shift (O,) of the norm; dropped (R, O)."""
    if torch.is_grad_enabled():
        out: Tensor = _Normed.apply(act, x, weight, bias, scale, shift, dropped)  # type: ignore[no-untyped-call]
        return out
    h = product(x, weight, bias)
    if dropped is not None:
        h.mul_(dropped)
    y, _, _ = torch.native_layer_norm(h, scale.shape, scale, shift, 1e-5)
    return mish_(y, h) if act is Mish else act.forward(y)[0]


def mish_(y: Tensor, scratch: Tensor, out: Tensor | None = None) -> Tensor:
    """Mish in memory that is there already: fresh memory costs as much as several passes over it."""
    q = torch.mul(y, LOG2_E, out=scratch).exp2_().add_(1).square_().add_(1)  # inf for large y, and y / inf is right
    return torch.addcdiv(y, y, q, value=-2, out=y if out is None else out)


def softmax(x: Tensor) -> Tensor:
    """Over a short last axis: torch's, which is used where gradients are asked for, takes three times as long on 4."""
    if torch.is_grad_enabled() or not usable(x):
        return x.softmax(-1)
    e = (x - x.amax(-1, keepdim=True)).mul_(LOG2_E).exp2_()
    return e.div_(e.sum(-1, keepdim=True))


class Activation(Protocol):
    """An activation and its gradient. `forward` may not change y; `backward` gets what it wished to keep."""

    @staticmethod
    def forward(y: Tensor) -> tuple[Tensor, ...]: ...  # the activation, then what to keep
    @staticmethod
    def backward(gradient: Tensor, *kept: Tensor) -> Tensor: ...


class Mish:
    """With w = e^y and q = 1 + (1 + w)^2: mish(y) = y - 2y / q, mish'(y) = 1 + 4 (w (1 + w) y / q - 1/2) / q."""

    @staticmethod
    def forward(y: Tensor, out: Tensor | None = None) -> tuple[Tensor, ...]:
        w = (y * LOG2_E).exp2_().clamp_(max=HUGE)
        q = (w + 1).square_().add_(1)
        return torch.addcdiv(y, y, q, value=-2, out=out), y, w, q

    @staticmethod
    def backward(gradient: Tensor, *kept: Tensor) -> Tensor:
        y, w, q = kept
        d = torch.addcmul(w, w, w).mul_(y).div_(q).sub_(0.5).div_(q)
        return torch.addcmul(gradient, gradient, d, value=4)


class SimNorm:
    """Softmax within groups of 8. Beyond +-80 it saturates, in place of taking the maximum off: y is a LayerNorm's."""

    @staticmethod
    def forward(y: Tensor) -> tuple[Tensor, ...]:
        e = y.clamp(-80, 80).mul_(LOG2_E).exp2_().unflatten(-1, (-1, 8))
        z = e.div_(e.sum(-1, keepdim=True)).flatten(-2)
        return z, z

    @staticmethod
    def backward(gradient: Tensor, *kept: Tensor) -> Tensor:
        d = gradient * kept[0]
        each = d.unflatten(-1, (-1, 8)).sum(-1, keepdim=True)
        return d.sub_((kept[0].unflatten(-1, (-1, 8)) * each).flatten(-2))


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b. Any strides do."""
    if 1 in weight.shape:  # where oneDNN is slow
        return x @ weight.t() if bias is None else torch.addmm(bias, x, weight.t())
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y


def product_gradients(
    wanted: Sequence[bool], gradient: Tensor, x: Tensor, weight: Tensor
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Of x, weight and bias, where they are wanted."""
    wants_x, wants_weight, wants_bias = wanted[:3]
    return (
        product(gradient, weight.t()) if wants_x else None,
        product(gradient.t(), x.t()) if wants_weight else None,
        gradient.sum(0) if wants_bias else None,
    )


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        return product_gradients(ctx.needs_input_grad, gradient, *ctx.saved_tensors)


class _Normed(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, act: Activation, x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor,
        dropped: Tensor | None,
    ) -> Tensor:  # fmt: skip
        h = product(x, weight, bias)
        if dropped is not None:
            h.mul_(dropped)
        y, mean, rstd = torch.native_layer_norm(h, scale.shape, scale, shift, 1e-5)
        out, *kept = act.forward(y)
        ctx.act = act
        ctx.save_for_backward(x, weight, h, mean, rstd, scale, shift, dropped, *kept)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        x, weight, h, mean, rstd, scale, shift, dropped, *kept = ctx.saved_tensors
        d = ctx.act.backward(gradient, *kept)
        wanted = [True, *ctx.needs_input_grad[4:6]]
        d, of_scale, of_shift = torch.ops.aten.native_layer_norm_backward(
            d, h, scale.shape, mean, rstd, scale, shift, wanted
        )
        if dropped is not None:
            d.mul_(dropped)
        return None, *product_gradients(ctx.needs_input_grad[1:], d, x, weight), of_scale, of_shift, None
