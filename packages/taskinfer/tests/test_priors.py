"""Divergences, mixtures and the prior that latents are pulled towards."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from small_inference import SMALL

from rlblocks.gaussians import product
from taskinfer import losses
from taskinfer.priors import Prior, purity


# --- losses -----------------------------------------------------------------------------------------------------------
def test_divergences_by_hand_and_beside_torch():
    """Oracles 4 and 6."""
    by_hand = losses.kl_to_standard(torch.tensor([[1.0]]), torch.tensor([[0.25]]).log())
    assert by_hand.item() == pytest.approx(0.5 * (math.log(4) + 0.25), abs=1e-6)
    g = torch.Generator().manual_seed(0)
    mean, log_var, means = (torch.randn(n, 3, generator=g) for n in (9, 9, 4))
    variances = torch.rand(4, 3, generator=g) + 0.1
    normal = torch.distributions.Normal
    theirs = torch.distributions.kl_divergence(
        normal(mean[:, None], (0.5 * log_var[:, None]).exp()), normal(means, variances.sqrt())
    ).sum(-1)
    ours = losses.kl_matrix(mean, log_var, means, variances)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    unit = losses.kl_matrix(mean, log_var, torch.zeros(1, 3), torch.ones(1, 3))[:, 0]
    torch.testing.assert_close(unit, losses.kl_to_standard(mean, log_var))
    torch.testing.assert_close(losses.mixture_kl(torch.ones(9, 1), unit[:, None]), unit)
    resp = torch.rand(9, 4, generator=g).softmax(1)
    twice = losses.mixture_kl(resp, ours) * 2
    torch.testing.assert_close(losses.mixture_kl(2 * resp, ours), twice)
    best = ours.gather(1, resp.argmax(1, keepdim=True))[:, 0]
    torch.testing.assert_close(losses.mixture_kl(resp, ours, hard=True), best)


def test_divergences_never_fall_below_zero():
    """D24: rounding near equality is cut off, nothing is asserted."""
    mean, log_var = torch.full((64, 3), 1e-4), torch.linspace(-1e-4, 1e-4, 64)[:, None].expand(64, 3)
    assert (losses.kl_to_standard(mean, log_var) >= 0).all()
    assert (losses.kl_matrix(mean, log_var, mean[:1], log_var[:1].exp()) >= 0).all()


def test_products_of_evidence():
    """Oracle 5."""
    mean, var = torch.tensor([[0.0], [2.0], [99.0]]), torch.tensor([[1.0], [1.0], [1.0]])
    m, v = product(mean, var, torch.tensor([True, True, False]))
    assert (m.item(), v.item()) == pytest.approx((1.0, 0.5))


def test_separation_leaves_out_a_class_and_itself():
    means, stds = torch.tensor([[[0.0, 0.0], [2.0, 0.0]]]), torch.tensor([[[1.0, 1.0], [0.5, 0.5]]])
    assert losses.separation(means, stds).item() == pytest.approx(0.5 * (2.0 + 1.0) / 4.0, rel=1e-5)


def test_classes_mix_to_the_gaussian_that_sampling_gives():
    g = torch.Generator().manual_seed(1)
    logits, means, log_vars = torch.randn(1, 3, generator=g), torch.randn(1, 3, 2, generator=g), torch.zeros(1, 3, 2)
    mean, log_var = losses.combine_classes(logits, means, log_vars)
    z = (logits.softmax(1)[..., None] * (means + torch.randn(200_000, 3, 2, generator=g))).sum(1)
    torch.testing.assert_close(z.mean(0), mean[0], atol=0.01, rtol=0.0)
    torch.testing.assert_close(z.var(0), log_var[0].exp(), atol=0.01, rtol=0.0)


# --- priors -----------------------------------------------------------------------------------------------------------
def test_the_prior_is_a_unit_gaussian_until_it_is_fitted_and_then_finds_blobs():
    """D19: fitted on latents of the whole ring, and by ourselves."""
    prior = Prior(replace(SMALL, latent_dim=2), 0, torch.device("cpu"))
    g = torch.Generator().manual_seed(0)
    mean, log_var = torch.randn(5, 2, generator=g), torch.randn(5, 2, generator=g)
    torch.testing.assert_close(prior.kl(mean, log_var, mean), losses.kl_to_standard(mean, log_var))
    centres = torch.tensor([[-4.0, 0.0], [3.0, 1.0], [0.0, 5.0], [1.0, -4.0]])
    label = torch.arange(800) % 4
    points = centres[label] + 0.3 * torch.randn(800, 2, generator=g)
    assert prior.fit(points).components == 4
    assert purity(prior.assign(points), label) == 1.0
    divergence = prior.kl(centres, torch.full((4, 2), 0.09).log(), centres)
    assert float(divergence.max()) < 0.2 < float(losses.kl_to_standard(centres, torch.zeros(4, 2)).min())
    ours = prior.kl(mean, log_var, mean)
    torch.testing.assert_close(ours, prior.mixture.kl(mean, log_var), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(
    ("points", "reason"),
    [(torch.randn(63, 2), "at least 64"), (torch.ones(200, 2), "alike"), (torch.full((99, 2), torch.nan), "finite")],
)
def test_a_fit_that_makes_no_sense_leaves_the_prior(points, reason):
    prior = Prior(replace(SMALL, latent_dim=2), 0, torch.device("cpu"))
    fit = prior.fit(points)
    assert reason in fit.kept_gaussian
    assert prior.components == 0


def test_no_gradient_flows_through_responsibilities():
    prior = Prior(replace(SMALL, latent_dim=2), 0, torch.device("cpu"))
    g = torch.Generator().manual_seed(0)
    prior.fit(torch.cat((torch.randn(200, 2, generator=g) - 4, torch.randn(200, 2, generator=g) + 4)))
    mean, z = torch.zeros(3, 2, requires_grad=True), torch.zeros(3, 2, requires_grad=True)
    prior.kl(mean, torch.zeros(3, 2), z).sum().backward()
    assert mean.grad is not None
    assert z.grad is None
    resp, divergences = torch.rand(3, 2, requires_grad=True), torch.rand(3, 2, requires_grad=True)
    losses.mixture_kl(resp, divergences).sum().backward()
    assert resp.grad is None
    assert divergences.grad is not None
