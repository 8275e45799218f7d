"""The maths by hand. Numbers come from the papers' formulas, not from this code."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import tensor
from torch.testing import assert_close

from prismatic import losses

BINS = losses.bin_values()


@pytest.mark.parametrize(
    ("x", "low", "weights"),
    [
        (1.0, 53, (0.534264, 0.465736)),
        (3.0, 56, (0.068527, 0.931473)),
        (100.0, 73, (0.9244, 0.0756)),
        (0.0, 50, (1.0, 0.0)),
        (1e9, 99, (0.0, 1.0)),
        (-1e9, 0, (1.0, 0.0)),
    ],
)
def test_two_hot_by_hand(x: float, low: int, weights: tuple[float, float]):
    code = losses.two_hot(tensor(x))
    assert_close(code[low : low + 2], tensor(weights), rtol=0, atol=5e-5 if x == 100 else 2e-6)
    assert_close(code.sum(), tensor(1.0))
    if abs(x) < 1e9:
        assert_close(losses.two_hot_inverse(code.log(), BINS), tensor(x), rtol=1e-5, atol=1e-6)


def test_the_largest_value_has_a_code_and_the_next_one_does_not():
    assert_close(losses.two_hot_inverse(losses.two_hot(tensor(1e9)).log(), BINS), tensor(22025.465), rtol=1e-6, atol=0)


@given(st.floats(-20_000, 20_000, width=32))
def test_codes_come_back(x: float):
    back = losses.two_hot_inverse(losses.two_hot(tensor(x)).log(), BINS).item()
    assert back == pytest.approx(x, rel=1e-5, abs=1e-5)


def test_not_a_number_stays_one():
    assert losses.two_hot(tensor([1.0, math.nan]))[1].isnan().any()
    assert_close(losses.two_hot(tensor([math.inf]))[0, 100], tensor(1.0))


def test_a_zero_head_says_zero_and_costs_ln_101():
    logits = torch.zeros(7, 101)
    cost = losses.soft_cross_entropy(logits, losses.two_hot(torch.linspace(-50, 50, 7)))
    assert_close(cost, torch.full((7,), 4.615121))
    assert_close(losses.two_hot_inverse(logits, BINS), torch.zeros(7), rtol=0, atol=1e-5)


def test_soft_cross_entropy_by_hand():
    logits, target = tensor([0.0, math.log(3)]), tensor([0.25, 0.75])
    assert_close(losses.soft_cross_entropy(logits, target), tensor(-(0.25 * math.log(0.25) + 0.75 * math.log(0.75))))


def test_steps_weigh_less_and_less():
    weights = losses.rho_weights(0.5, 3)
    assert_close(weights.sum(), tensor(0.583333))  # (1 + 0.5 + 0.25) / 3
    z = torch.zeros(3, 2, 4)
    assert_close(losses.consistency_loss(z, z + 2, weights), tensor(4 * 0.583333))
    logits, code = torch.zeros(5, 3, 2, 101), losses.two_hot(torch.ones(3, 2))
    assert_close(losses.code_loss(logits, code, weights), tensor(4.615121 * 0.583333))  # the mean over 5 heads
    assert_close(losses.code_loss(logits[0], code, weights), tensor(4.615121 * 0.583333))


def test_td_target_by_hand():
    next_q = tensor([[[10.0, 10.0]], [[12.0, 99.0]]])  # (E, H, B)
    y = losses.td_target(tensor([[1.0, 1.0]]), tensor(0.99), tensor([[1.0, 0.0]]), next_q)
    assert_close(y, tensor([[1.0, 10.9]]))
    y = losses.td_target(tensor([[1.0, 1.0]]), tensor([0.5, 0.9]), torch.zeros(1, 2), next_q)
    assert_close(y, tensor([[6.0, 10.0]]))  # each row has its task's discount


@pytest.mark.parametrize(("length", "gamma"), [(25, 0.95), (100, 0.95), (500, 0.99), (1000, 0.995), (5000, 0.995)])
def test_discount_by_episode_length(length: int, gamma: float):
    assert losses.discount(length) == pytest.approx(gamma)


def test_termination_loss_by_hand():
    cost = losses.termination_loss(tensor([[0.0, math.log(3)]]), tensor([[1.0, 0.0]]))
    assert_close(cost, tensor((math.log(2) + math.log(4)) / 2))


def test_densities_agree_with_torch():
    g = torch.Generator().manual_seed(0)
    mean, log_std, noise = (torch.randn(5, 3, generator=g) for _ in range(3))
    normal = torch.distributions.Normal(mean, log_std.exp())
    u = mean + noise * log_std.exp()
    assert_close(losses.gaussian_log_prob(noise, log_std), normal.log_prob(u).sum(-1))
    squashed = torch.distributions.TransformedDistribution(normal, [torch.distributions.TanhTransform(cache_size=1)])
    ours = losses.gaussian_log_prob(noise, log_std) - losses.tanh_log_det(u)
    assert_close(ours, squashed.log_prob(squashed.transforms[0](u)).sum(-1), rtol=1e-4, atol=1e-4)
    mask = tensor([1.0, 1.0, 0.0])
    assert_close(losses.gaussian_log_prob(noise, log_std, mask), losses.gaussian_log_prob(noise[:, :2], log_std[:, :2]))
    assert_close(losses.tanh_log_det(u, mask), losses.tanh_log_det(u[:, :2]))


def test_policy_loss_by_hand():
    q, ent = tensor([[2.0, 4.0], [6.0, 6.0]]), tensor([[1.0, 1.0], [0.0, 2.0]])
    loss = losses.policy_loss(q, tensor(2.0), ent, 0.1, losses.rho_weights(0.5, 2))
    assert_close(loss, tensor(-((1.5 + 0.1) + 0.5 * (3.0 + 0.1)) / 2))


def test_scale_by_hand():
    q = torch.arange(101.0)[torch.randperm(101, generator=torch.Generator().manual_seed(0))]
    assert_close(losses.percentile_range(q), tensor(90.0))
    assert_close(losses.scale_step(tensor(1.0), q, 0.01), tensor(1.89))
    assert_close(losses.scale_step(tensor(1.0), q * 1e-3, 0.01), tensor(1.0))  # small returns are not blown up
    assert_close(losses.percentile_range(tensor([3.0])), tensor(0.0))
    x = torch.randn(256, generator=torch.Generator().manual_seed(1))
    assert_close(losses.percentile_range(x).item(), float(np.subtract(*np.percentile(x.numpy(), [95, 5]))))


def test_load_balance_and_entropy_by_hand():
    p = tensor([0.7, 0.1, 0.1, 0.1])
    assert_close(losses.load_balance(p), tensor(1.08))
    assert_close(losses.load_balance(torch.full((4,), 0.25)), tensor(0.0))
    assert_close(losses.load_balance(tensor([0.0, 1.0, 0.0, 0.0])), tensor(3.0))
    spread = losses.normalised_entropy(p.expand(5, 4))
    assert_close(spread, tensor(0.678390), rtol=0, atol=1e-6)
    assert_close(losses.temperature_step(tensor(1.8), spread, 0.5, 0.02, 0.5, 2.0), tensor(1.796432))
    assert_close(losses.temperature_step(tensor(0.5), spread, 0.5, 0.02, 0.5, 2.0), tensor(0.5))


def test_the_entropy_of_gates_cut_to_two_is_over_ln_2():
    p = tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    assert_close(losses.normalised_entropy(p, 2), tensor(0.5))
    assert_close(losses.normalised_entropy(p), tensor(0.25))
    assert losses.normalised_entropy(p[:, 1:2], 2) == 0


def test_one_expert_has_no_entropy_and_no_imbalance():
    one = torch.ones(6, 1)
    assert losses.normalised_entropy(one) == 0
    assert losses.load_balance(one.mean(0)) == 0


def test_a_gate_that_is_zero_has_a_finite_gradient():
    p = tensor([[1.0, 0.0]], requires_grad=True)
    losses.normalised_entropy(p).backward()
    assert p.grad is not None
    assert p.grad.isfinite().all()


def test_mutual_information_by_hand():
    assert_close(losses.mutual_information(torch.eye(2), tensor([0.5, 0.5])), tensor(math.log(2)))
    assert_close(losses.mutual_information(tensor([[0.3, 0.7]] * 2), tensor([0.1, 0.9])), tensor(0.0))
