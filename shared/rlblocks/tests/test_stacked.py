"""Nets run one by one beside the batched products, in float32 and bfloat16; their first weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rlblocks import stacked
from rlblocks.stacked import Stacked


def close(a: Tensor, b: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(a, b, atol=tolerance, rtol=0)


@pytest.mark.parametrize("low", [False, True], ids=["float32", "bf16"])
@pytest.mark.parametrize("sizes", [(7, 64, 48, 32, 3), (1, 16, 1, 16, 1), (4, 8, 2)], ids=str)
@pytest.mark.parametrize("shared", [1, 2])
def test_nets_one_by_one_are_the_batched_ones(low: bool, sizes: tuple[int, ...], shared: int) -> None:
    generators = [torch.Generator().manual_seed(g) for g in range(4)]
    net = Stacked(sizes, generators, low=low)
    x = torch.randn(4 // shared, 20, sizes[0], generator=generators[0]).requires_grad_()
    y, z = net(x), net.batched(x, net.parameters)
    close(y, z, 2e-2 if low else 1e-6)
    weights = torch.randn(y.shape, generator=generators[0])
    one, other = (torch.autograd.grad((out * weights).sum(), (x, net.parameters)) for out in (y, z))
    for a, b in zip(one, other):
        torch.testing.assert_close(a, b, atol=0.3 if low else 1e-5, rtol=0.05 if low else 1e-5)
    assert not net(x.detach(), frozen=True).requires_grad


@pytest.mark.parametrize("has", [True, False])
def test_bf16_where_onednn_has_none(has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU without AVX-512 rounded operands are multiplied in float32: what plain bfloat16 products give."""
    monkeypatch.setattr(stacked, "HAS_BFLOAT16", has and stacked.HAS_BFLOAT16)
    net = Stacked((7, 64, 48, 32, 1), [torch.Generator().manual_seed(g) for g in range(2)], low=True)
    x = torch.randn(1, 20, 7, generator=torch.Generator().manual_seed(2))
    y, plain = net(x), net.batched(x, net.parameters)
    close(y, plain, 2e-2)
    grads = [torch.autograd.grad(out.sum(), net.parameters)[0] for out in (y, plain)]
    torch.testing.assert_close(*grads, atol=0.1, rtol=0.05)


@pytest.mark.parametrize("init", ["torch", "xavier"])
def test_first_weights(init: str) -> None:
    net = Stacked((100, 50, 200), [torch.Generator().manual_seed(0)], init=init)
    for weight, bias in net.layers(net.parameters.detach()):
        fan_in, fan_out = weight.shape[1:]
        bound = fan_in**-0.5 if init == "torch" else (6 / (fan_in + fan_out)) ** 0.5
        assert 0.99 * bound < weight.abs().max() <= bound
        assert float(weight.std()) == pytest.approx(bound / 3**0.5, rel=0.05)
        assert bool((bias == 0).all()) == (init == "xavier")
