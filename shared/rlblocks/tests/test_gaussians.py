"""Gaussians against numbers worked out by hand, torch.distributions, and finite differences."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Independent, Normal, TransformedDistribution, kl_divergence
from torch.distributions.transforms import TanhTransform

from rlblocks.gaussians import (
    clamp_log_std,
    kl,
    kl_to_standard,
    log_prob,
    log_tanh_slope,
    product,
    tanh_gaussian,
    tanh_gaussian_log_prob,
    tanh_log_std,
)

FEW = settings(max_examples=25)
SEEDS = st.integers(0, 2**31)


def normal(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def close(got: Tensor, want: Any, atol: float = 1e-6) -> None:
    torch.testing.assert_close(got, torch.as_tensor(want, dtype=got.dtype).expand_as(got), atol=atol, rtol=0)


def test_tanh_gaussian_by_hand() -> None:
    zero = torch.zeros(1)
    action, density = tanh_gaussian(zero, zero, zero)
    close(action, 0.0)
    close(density, -0.9189385)  # -log sqrt(2 pi): at u = 0 squashing changes nothing
    action, density = tanh_gaussian(zero, zero, torch.ones(1))
    close(action, math.tanh(1.0))
    close(density, -0.5 - 0.9189385 - math.log(1 - math.tanh(1.0) ** 2))
    close(density, -0.5513769)


@FEW
@given(SEEDS)
def test_tanh_gaussian_is_the_transformed_distribution(seed: int) -> None:
    mean, log_std, noise = normal(seed, 3, 7, 4)
    action, density = tanh_gaussian(mean, log_std, noise)
    peer = TransformedDistribution(Independent(Normal(mean, log_std.exp()), 1), TanhTransform(cache_size=1))
    u = mean + log_std.exp() * noise
    close(action, u.tanh(), 1e-12)
    near = u.abs().amax(-1) < 6  # further out, the peer's inverse tanh has lost its digits
    close(density[near], peer.log_prob(action)[near], 1e-6)
    close(tanh_gaussian_log_prob(action, mean, log_std)[near], density[near], 1e-6)


@FEW
@given(SEEDS)
def test_log_tanh_slope_is_the_slope(seed: int) -> None:
    u = normal(seed, 20, scale=2.0)
    close(log_tanh_slope(u), torch.log(1 - u.tanh() ** 2), 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tanh_gaussian_far_out_is_finite(dtype: torch.dtype) -> None:
    mean = torch.tensor([[20.0, -20.0], [0.0, 500.0]], dtype=dtype, requires_grad=True)
    log_std = torch.tensor([[2.0, -20.0], [2.0, 0.0]], dtype=dtype, requires_grad=True)
    action, density = tanh_gaussian(mean, log_std, torch.tensor([[1.0, -1.0], [3.0, 0.0]], dtype=dtype))
    grads = torch.autograd.grad(density.sum() + action.sum(), (mean, log_std))
    assert all(bool(x.isfinite().all()) for x in (action, density, *grads))
    assert bool(tanh_gaussian_log_prob(torch.tensor([[1.0, -1.0]], dtype=dtype), mean[:1], log_std[:1]).isfinite())
    u = torch.tensor([20.0, -20.0], dtype=dtype)
    close(log_tanh_slope(u), 2 * math.log(2.0) - 40.0, 1e-5)  # 1 - tanh(u)^2 -> 4 exp(-2 |u|)


def test_tanh_gaussian_gradient_is_that_of_the_formula() -> None:
    mean, log_std, noise = normal(0, 3, 5, 2)
    mean.requires_grad_()
    log_std.requires_grad_()
    assert torch.autograd.gradcheck(lambda m, s: tanh_gaussian(m, s, noise), (mean, log_std))
    assert torch.autograd.gradcheck(lambda m, s: tanh_gaussian(m, s, noise)[1], (mean, log_std))
    assert torch.autograd.gradcheck(lambda m, s: tanh_gaussian(m, s, noise)[0], (mean, log_std))


def test_log_std_maps_by_hand() -> None:
    x = torch.tensor([0.0, 50.0, -50.0])
    close(tanh_log_std(x, -20.0, 2.0), torch.tensor([-9.0, 2.0, -20.0]))
    close(clamp_log_std(x, -20.0, 2.0), torch.tensor([0.0, 2.0, -20.0]))


def test_kl_by_hand() -> None:
    def of(*numbers: float) -> float:
        m1, s1, m2, s2 = (torch.tensor([n]) for n in numbers)
        return float(kl(m1, s1.log(), m2, s2.log()))

    assert of(0, 1, 1, 2) == pytest.approx(0.4431472, abs=1e-6)  # log 2 + (1 + 1) / 8 - 1/2
    assert of(1, 0.5, 0, 1) == pytest.approx(0.818147, abs=1e-6)  # log 2 + 0.125 + 0.5 - 0.5
    assert of(3, 0.7, 3, 0.7) == pytest.approx(0.0, abs=1e-7)
    close(kl_to_standard(torch.ones(1), torch.tensor([0.5]).log()), 0.818147)


@FEW
@given(SEEDS, st.integers(1, 5), st.integers(1, 4), st.integers(1, 6))
def test_divergences_are_those_of_torch(seed: int, rows: int, components: int, dims: int) -> None:
    mean, log_std = normal(seed, 2, rows, dims)
    means, log_stds = normal(seed + 1, 2, components, dims)
    wide = Independent(Normal(mean[:, None], log_std.exp()[:, None]), 1)
    want = kl_divergence(wide, Independent(Normal(means, log_stds.exp()), 1))  # (B, K)
    got = kl(mean[:, None], log_std[:, None], means, log_stds)
    torch.testing.assert_close(got, want, atol=1e-8, rtol=1e-8)
    standard = Independent(Normal(torch.zeros_like(mean), torch.ones_like(mean)), 1)
    ours = Independent(Normal(mean, log_std.exp()), 1)
    torch.testing.assert_close(kl_to_standard(mean, log_std), kl_divergence(ours, standard), atol=1e-8, rtol=1e-8)
    x = normal(seed + 2, rows, dims)
    torch.testing.assert_close(log_prob(x, mean, log_std), ours.log_prob(x), atol=1e-8, rtol=1e-8)
    assert bool((got >= -1e-9).all())


def test_product_by_hand() -> None:
    mean, var = torch.tensor([[0.0], [2.0], [float("nan")]]), torch.tensor([[1.0], [1.0], [float("inf")]])
    for kept in ([True, True], [True, True, False]):  # a masked pad changes nothing, whatever is in it
        got = product(mean[: len(kept)], var[: len(kept)], torch.tensor(kept))
        close(got[0], 1.0)
        close(got[1], 0.5)
    got = product(mean, var, torch.zeros(3, dtype=torch.bool))
    close(got[0], 0.0)
    close(got[1], 1.0)
    close(product(torch.zeros(2, 1), torch.zeros(2, 1), torch.ones(2, dtype=torch.bool))[1], 0.5e-7, 1e-12)


@FEW
@given(SEEDS, st.integers(1, 6))
def test_product_does_not_depend_on_order_or_grouping(seed: int, steps: int) -> None:
    mean, log_var = normal(seed, 2, steps, 3, 2)
    var, mask = log_var.exp(), normal(seed + 1, steps, 3) > -1.0
    mask[0] = True
    want = product(mean, var, mask)
    for got in (product(mean.flip(0), var.flip(0), mask.flip(0)), grouped(mean, var, mask)):
        close(got[0], want[0], 1e-9)
        close(got[1], want[1], 1e-9)


def grouped(mean: Tensor, var: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Two at a time."""
    m, v = mean[0], var[0]
    for t in range(1, len(mean)):
        both = torch.stack((torch.ones_like(mask[t]), mask[t]))
        m, v = product(torch.stack((m, mean[t])), torch.stack((v, var[t])), both)
    return m, v


def test_shapes_are_checked() -> None:
    with pytest.raises(AssertionError, match="3"):
        tanh_gaussian(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 1))
    with pytest.raises(AssertionError, match="5"):
        product(torch.zeros(5, 2, 3), torch.ones(5, 2, 3), torch.ones(5, dtype=torch.bool))
