"""Losses of skill learning against hand-worked numbers and identities (oracle 1, defects D7 and D10)."""

from __future__ import annotations

import math

import pytest
import torch

from gasp import losses
from rlblocks import gaussians


def test_divergence_from_the_unit_gaussian_by_hand():
    """KL(N(1, 0.5^2) || N(0, 1)) = ln 2 + 0.125 + 0.5 - 0.5 = 0.818147; the mean over Z of two such is the same."""
    mean, log_std = torch.ones(1, 2), torch.full((1, 2), math.log(0.5))
    torch.testing.assert_close(losses.kl_standard(mean, log_std), torch.tensor([0.818147]))


def test_divergence_from_itself_is_zero():
    mean, log_std = torch.randn(3, 5), torch.randn(3, 5)
    divergences = losses.kl_components(mean, log_std, mean, (2 * log_std).exp())
    torch.testing.assert_close(divergences.diagonal(), torch.zeros(3), atol=1e-5, rtol=0)
    assert bool((divergences > -1e-5).all())


def test_components_one_by_one():
    """The two matrix products are what KL by KL gives."""
    mean, log_std, means, variances = torch.randn(4, 3), torch.randn(4, 3), torch.randn(6, 3), torch.rand(6, 3) + 0.1
    expected = gaussians.kl(mean[:, None], log_std[:, None], means[None], 0.5 * variances.log()[None]) / 3
    torch.testing.assert_close(losses.kl_components(mean, log_std, means, variances), expected)


def test_a_share_of_one_is_the_single_divergence():
    divergences = torch.tensor([[0.7, 3.0], [1.0, 2.0]])
    resp = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
    torch.testing.assert_close(losses.mixture_kl(resp, divergences), torch.tensor([0.7, 1.75]))


def test_one_reduction_before_and_after_the_first_fit():
    """D7, D10: a mixture that is N(0, I) pulls exactly as N(0, I) does, so beta does not jump at the first fit."""
    mean, log_std = torch.randn(8, 10), torch.randn(8, 10)
    divergences = losses.kl_components(mean, log_std, torch.zeros(2, 10), torch.ones(2, 10))
    both = losses.mixture_kl(torch.full((8, 2), 0.5), divergences)
    torch.testing.assert_close(both, losses.kl_standard(mean, log_std))


def test_shares_are_not_learnt_through():
    resp = torch.tensor([[0.5, 0.5]], requires_grad=True)
    assert not losses.mixture_kl(resp, torch.ones(1, 2)).requires_grad


def test_prior_losses_by_hand():
    """One window, one dimension: -log N(1; 0, 1) = 0.5 + log(2 pi) / 2. KL(N(1, 0.5^2) || N(0, 1)) = 0.818147."""
    zero, one = torch.zeros(1, 1), torch.ones(1, 1)
    torch.testing.assert_close(losses.prior_nll(one, zero, zero), torch.tensor(0.5 + 0.5 * math.log(2 * math.pi)))
    torch.testing.assert_close(
        losses.prior_kl(one, torch.full((1, 1), math.log(0.5)), zero, zero), torch.tensor(0.818147)
    )


@pytest.mark.parametrize("kind", ["nll", "kl"])
def test_the_prior_does_not_teach_the_encoder(kind: str):
    q_mean, q_log_std = torch.randn(4, 2, requires_grad=True), torch.zeros(4, 2, requires_grad=True)
    mean, log_std = torch.zeros(4, 2, requires_grad=True), torch.zeros(4, 2, requires_grad=True)
    if kind == "nll":
        loss = losses.prior_nll(q_mean + q_log_std.exp(), mean, log_std)
    else:
        loss = losses.prior_kl(q_mean, q_log_std, mean, log_std)
    loss.backward()
    assert q_mean.grad is None
    assert q_log_std.grad is None
    assert mean.grad is not None
    assert bool((mean.grad != 0).any())


def test_reconstruction_by_hand():
    """Errors of 1 and 3: mean of (0.5, 4.5) and the constant."""
    value = losses.reconstruction(torch.zeros(1, 1, 2), torch.tensor([[[1.0, 3.0]]]))
    torch.testing.assert_close(value, torch.tensor(2.5 + 0.5 * math.log(2 * math.pi)))


def test_beta_rises_while_the_divergence_is_above_its_target():
    log_beta = torch.tensor(0.0, requires_grad=True)
    losses.log_beta_loss(log_beta, torch.tensor(3.0), target=1.0).backward()
    assert float(log_beta.grad) == -2.0  # descent goes up
