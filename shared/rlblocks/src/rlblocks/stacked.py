"""Many multi-layer perceptrons of one shape, run together: G nets on N inputs, each input read by G / N of them.

All parameters lie in one tensor, a row a net, so that an optimiser step, a Polyak step or a copy is one call. On a CPU
the matrix products go to oneDNN, one net after the other: batching products of this size wins nothing there, and
torch's own (MKL's) took twice as long on an AMD core with AVX-512. Elsewhere they are batched products.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
# oneDNN multiplies in bfloat16 only on CPUs with AVX-512; on others it refuses.
HAS_BFLOAT16 = HAS_ONEDNN and torch.ops.mkldnn._is_mkldnn_bf16_supported()


class Stacked:
    """G perceptrons with ReLU between their layers.

    Args:
        sizes: of the layers, inputs first, outputs last.
        generators: one CPU generator a net, from which its first parameters are drawn.
        init: "torch", uniform in +-1/sqrt(fan_in) as in `nn.Linear`; "xavier", weights uniform in
            +-sqrt(6/(fan_in + fan_out)) (Glorot and Bengio 2010), biases 0.
        low: layers that are neither first nor last multiply in bfloat16; inputs, outputs, parameters and gradients
            stay float32.
    """

    def __init__(
        self, sizes: Sequence[int], generators: Sequence[torch.Generator], *, init: str = "torch", low: bool = False,
        device: str | torch.device = "cpu",
    ) -> None:  # fmt: skip
        self.sizes, self.nets, self.low = tuple(sizes), len(generators), low
        parameters = torch.zeros(self.nets, sum((i + 1) * o for i, o in itertools.pairwise(sizes)))
        for weight, bias in self.layers(parameters):
            fan_in, fan_out = weight.shape[1:]
            bound = fan_in**-0.5 if init == "torch" else math.sqrt(6 / (fan_in + fan_out))
            for g, generator in enumerate(generators):
                weight[g].uniform_(-bound, bound, generator=generator)
                if init == "torch":
                    bias[g].uniform_(-bound, bound, generator=generator)
        self.parameters = parameters.to(device).requires_grad_()  # (G, P); change it in place only
        # Of each net and layer, weight (I, O) and bias (O,): making these views costs as much as some of the products.
        of_layers = self.layers(self.parameters.detach())
        self.views = [[(weight[g], bias[g, 0]) for weight, bias in of_layers] for g in range(self.nets)]

    def layers(self, parameters: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Weight (G, I, O) and bias (G, 1, O) of each layer, as views of (G, P)."""
        shapes = [*itertools.pairwise(self.sizes)]
        parts = parameters.split([n for i, o in shapes for n in (i * o, o)], 1)
        return [(w.unflatten(1, shape), b.unsqueeze(1)) for w, b, shape in zip(parts[::2], parts[1::2], shapes)]

    def __call__(self, x: Tensor, frozen: bool = False) -> Tensor:
        """(N, B, I) -> (G, B, O); net g reads input g // (G / N). `frozen`: no gradient reaches the parameters."""
        assert self.nets % len(x) == 0, (self.nets, x.shape)
        assert x.shape[-1] == self.sizes[0], (x.shape, self.sizes)
        parameters = self.parameters.detach() if frozen else self.parameters
        if x.device.type == "cpu" and x.dtype == torch.float32 and HAS_ONEDNN:
            return cast(Tensor, _PerNet.apply(x, parameters, self))  # type: ignore[no-untyped-call]
        return self.batched(x, parameters)

    def batched(self, x: Tensor, parameters: Tensor) -> Tensor:
        """The same from parameters (G, P), one batched product a layer, in plain torch."""
        x = x.unsqueeze(1).expand(-1, self.nets // len(x), -1, -1).flatten(0, 1)
        for i, (weight, bias) in enumerate(self.layers(parameters)):
            dtype = torch.bfloat16 if self.low and 0 < i < len(self.sizes) - 2 else parameters.dtype
            x = torch.baddbmm(bias.to(dtype), (x.relu() if i else x).to(dtype), weight.to(dtype))
        return x


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, then: str = "none") -> Tensor:
    """then(x weight + bias): (B, I), (I, O), (O,) -> (B, O)."""
    if x.dtype == torch.bfloat16 and not HAS_BFLOAT16:  # Sums in float32; torch's own would take nine times as long.
        return _linear(x.float(), weight.float(), None if bias is None else bias.float(), then).bfloat16()
    if then == "none" and (1 in weight.shape or (bias is None and x.dtype == torch.bfloat16)):  # slow in oneDNN
        return torch.mm(x, weight) if bias is None else torch.addmm(bias, x, weight)
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, weight.t(), bias, then, [], ""))


class _PerNet(torch.autograd.Function):
    """Forward and backward pass, written out: fewer and faster calls than autograd's, layer by layer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, parameters: Tensor, net: Stacked) -> Tensor:  # type: ignore[override]
        last, share, kept, outputs = len(net.sizes) - 2, net.nets // len(x), list[Tensor](), []
        for g, views in enumerate(net.views):
            h = x[g // share]
            for i, (weight, bias) in enumerate(views):
                if net.low:
                    dtype = torch.bfloat16 if 0 < i < last else torch.float32
                    h, weight, bias = h.to(dtype), weight.to(dtype), bias.to(dtype)
                kept += (h, weight)
                h = _linear(h, weight, bias, "none" if i == last else "relu")
            outputs.append(h)
        ctx.save_for_backward(*kept)
        ctx.facts = last, share, parameters.shape
        return torch.stack(outputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        last, share, shape = ctx.facts
        wants_x, wants_parameters = ctx.needs_input_grad[:2]
        kept = iter(reversed(ctx.saved_tensors))
        pieces, of_x = list[Tensor](), list[Tensor]()  # last first
        for g in reversed(range(len(grad))):
            d = grad[g]
            for i in reversed(range(last + 1)):
                weight, h = next(kept), next(kept)  # h: what the layer was given
                d = d.to(h.dtype)
                if wants_parameters:
                    pieces += (d.sum(0, dtype=grad.dtype), _linear(h.t(), d).view(-1))
                if i:
                    d = _linear(d, weight.t())
                    torch.ops.aten.threshold_backward.grad_input(d, h, 0, grad_input=d)  # h is a relu's output
                elif wants_x:
                    of_x.append(_linear(d, weight.t()))
        of_parameters = torch.cat(pieces[::-1]).view(shape) if wants_parameters else None
        return torch.stack(of_x[::-1]).unflatten(0, (-1, share)).sum(1) if wants_x else None, of_parameters, None
