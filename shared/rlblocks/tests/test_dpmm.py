"""The bound of the mixture against hand numbers, closed forms and its own properties."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_t, t
from small_dpmm import X3, blobs, make_bound

from rlblocks.dp_bound import Bound, expected_log_pi, expected_pi, stick_parameters, stick_term
from rlblocks.dp_moves import Limits, Partition
from rlblocks.dpmm import MOVES, DPMixture, lap

R3 = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]], dtype=torch.float64).T
LIMITS = Limits(min_target=10, min_new=5, min_retain=5, k_max=30)


# --- hand numbers -----------------------------------------------------------------------------------------------------
def test_one_component_by_hand():
    bound = make_bound(2)
    stats = bound.statistics(bound.features(X3), torch.ones(1, 3, dtype=torch.float64))
    nu, kappa, mean, scale = bound.posterior(stats)
    assert (float(nu), float(kappa)) == pytest.approx((7, 3.0001), abs=1e-12)
    assert mean[0].tolist() == pytest.approx([3 / 3.0001] * 2, abs=1e-12)
    assert scale[0].tolist() == pytest.approx([2.2000999966667776] * 2, abs=1e-9)
    assert [float(eta) for eta in stick_parameters(stats[:, 0], 5.0)] == [4, 5]
    assert float(bound.elbo(stats)) == pytest.approx(-27.323851473279348, abs=1e-9)


def test_two_components_by_hand():
    bound = make_bound(2)
    stats = bound.statistics(bound.features(X3), R3)
    assert stats[:, 0].tolist() == pytest.approx([1.6, 1.4])
    assert stats[:, -1].tolist() == pytest.approx([0.76328564, 0.75534694], abs=1e-8)
    _, _, mean, scale = bound.posterior(stats)
    assert mean.flatten().tolist() == pytest.approx([0.74995313, 1.18742579, 1.28562246, 0.78565817], abs=1e-8)
    assert scale.flatten().tolist() == pytest.approx([1.50005625, 0.84389101, 0.68587958, 1.43577602], abs=1e-8)
    assert expected_log_pi(stats[:, 0], 5.0).tolist() == pytest.approx([-1.38959403, -1.64399031], abs=1e-8)
    assert float(bound.elbo(stats)) == pytest.approx(-38.22372330165751, abs=1e-9)
    resp, _ = bound.local_step(bound.features(X3), bound.log_weights(stats))
    assert resp[:, 0].tolist() == pytest.approx([0.99662613, 0.00337387], abs=1e-8)


def test_merging_both_is_one_component():
    bound = make_bound(2)
    part = Partition(bound, bound.features(X3), R3.clone(), bound.statistics(bound.features(X3), R3), LIMITS, rng())
    part.merge()
    assert part.elbo == pytest.approx(-27.323851473279348, abs=1e-9)
    assert part.resp.flatten().tolist() == pytest.approx([1.0, 1.0, 1.0])


def test_sticks_by_hand():
    eta1, eta0 = stick_parameters(torch.tensor([3.0, 1.0], dtype=torch.float64), 5.0)
    assert (eta1.tolist(), eta0.tolist()) == ([4, 2], [6, 5])
    assert (eta1 / (eta1 + eta0)).tolist() == pytest.approx([0.4, 2 / 7])
    pi = expected_pi(torch.tensor([3.0, 1.0], dtype=torch.float64), 5.0)
    assert pi.tolist() == pytest.approx(np.array([0.4, 0.6 * 2 / 7]) / (0.4 + 0.6 * 2 / 7))
    empty_last = torch.tensor([3.0, 1.0, 0.0], dtype=torch.float64)
    assert float(stick_term(empty_last, 5.0)) == pytest.approx(float(stick_term(empty_last[:2], 5.0)), abs=1e-12)


@pytest.mark.parametrize("full", [False, True])
def test_with_one_component_the_bound_is_the_exact_evidence_and_the_sticks(full: bool):
    """Evidence as a product of Student-t predictives, one observation after the other (Murphy 2007)."""
    x = np.random.default_rng(0).normal(size=(12, 3)) @ np.array([[1, 0.5, 0], [0, 1, 0], [0, 0.3, 2.0]])
    bound = make_bound(3, full=full, kappa0=0.7, mean0=0.3)
    points = torch.as_tensor(x)
    stats = bound.statistics(bound.features(points), torch.ones(1, 12, dtype=torch.float64))
    evidence = 0.0
    for n in range(12):
        seen = bound.statistics(bound.features(points[:n]), torch.ones(1, n, dtype=torch.float64))
        nu, kappa, mean, scale = (v[0].numpy() for v in bound.posterior(seen))
        if full:
            shape = scale * (kappa + 1) / (kappa * (nu - 2))
            evidence += multivariate_t.logpdf(x[n], mean, shape, df=nu - 2)
        else:
            evidence += t.logpdf(x[n], nu, mean, np.sqrt(scale * (kappa + 1) / (kappa * nu))).sum()
    sticks = float(stick_term(stats[:, 0], 5.0))
    assert float(bound.elbo(stats)) == pytest.approx(evidence + sticks, abs=1e-9)


def test_full_and_diagonal_agree_in_one_dimension():
    x, _ = blobs(0, dim=1)
    reports = [DPMixture(1, covariance=kind, seed=3).fit(x) for kind in ("diag", "full")]
    assert reports[0].elbo == pytest.approx(reports[1].elbo, abs=1e-7)


def test_the_order_of_components_changes_only_the_sticks():
    bound = make_bound(2)
    stats = bound.statistics(bound.features(X3), R3)
    assert torch.equal(bound.evidence_terms(stats.flip(0)), bound.evidence_terms(stats).flip(0))
    sticks = [stick_term(s[:, 0], 5.0) for s in (stats, stats.flip(0))]
    assert float(bound.elbo(stats) - bound.elbo(stats.flip(0))) == pytest.approx(
        float(sticks[0] - sticks[1]), abs=1e-12
    )


# --- properties -------------------------------------------------------------------------------------------------------
def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@st.composite
def partitions(draw: Any) -> tuple[Partition, list[slice]]:
    """A random data set, clustered or not, under random soft responsibilities."""
    seed, k, dim = draw(st.integers(0, 10_000)), draw(st.integers(1, 6)), draw(st.integers(1, 4))
    n, full = draw(st.integers(k, 120)), draw(st.booleans())
    x, _ = blobs(seed, draw(st.integers(1, 5)), dim, n, draw(st.sampled_from([0.0, 1.0, 5.0])))
    resp = np.random.default_rng(seed).dirichlet(np.full(k, draw(st.sampled_from([0.05, 1.0]))), n).T
    bound = make_bound(dim, full, gamma=draw(st.sampled_from([0.5, 5.0])))
    features, given_resp = bound.features(torch.as_tensor(x)), torch.as_tensor(resp).contiguous()
    limits = Limits(min_target=4, min_new=2, min_retain=2, k_max=8)
    part = Partition(bound, features, given_resp, bound.statistics(features, given_resp), limits, rng(seed))
    size = draw(st.integers(1, n))
    return part, [slice(s, s + size) for s in range(0, n, size)]


@settings(max_examples=60)
@given(partitions())
def test_the_bound_never_falls(case: tuple[Partition, list[slice]]):
    """Not from chunk to chunk within a lap, and not over a move; columns of the responsibilities stay sums of 1."""
    part, chunks = case
    bounds = [part.elbo]
    inside = Bound.log_weights

    def spy(self: Bound, stats: torch.Tensor) -> torch.Tensor:
        bounds.append(float(self.elbo(stats)))
        return inside(self, stats)

    for _ in range(3):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Bound, "log_weights", spy)
            lap(part, chunks)
        bounds.append(part.elbo)
        for move in MOVES:
            getattr(part, move)()
            bounds.append(part.elbo)
    assert np.diff(bounds).min() >= -1e-9 * max(map(abs, bounds))
    assert torch.allclose(part.resp.sum(0), torch.ones(len(part.features), dtype=torch.float64), atol=1e-9)
    again = part.bound.statistics(part.features, part.resp)
    torch.testing.assert_close(part.stats, again, rtol=1e-9, atol=1e-7)
    assert 1 <= len(part.stats) <= 8


@settings(max_examples=30)
@given(partitions())
def test_statistics_do_not_depend_on_the_batches(case: tuple[Partition, list[slice]]):
    part, chunks = case
    parts = [part.bound.statistics(part.features[rows], part.resp[:, rows]) for rows in chunks]
    torch.testing.assert_close(torch.stack(parts).sum(0), part.stats, rtol=1e-9, atol=1e-9)


@settings(max_examples=20)
@given(partitions())
def test_a_pair_never_gains_more_than_its_promise(case: tuple[Partition, list[slice]]):
    """Merges are looked at only where the promise is positive: it must be an upper bound."""
    part, _ = case
    if len(part.stats) < 2:
        return
    part.sort()
    a, b = torch.triu_indices(len(part.stats), len(part.stats), 1)
    for i, promise in enumerate(part._merge_promise(a, b)):
        resp = part.resp[a[i]] + part.resp[b[i]]
        joined = torch.cat([part.stats[a[i]] + part.stats[b[i]]])
        joined[-1] = -torch.xlogy(resp, resp).sum()
        others = [k for k in range(len(part.stats)) if k not in (a[i], b[i])]
        gain = part.sorted_elbo(torch.cat([part.stats[others], joined[None]])) - part.elbo
        assert gain <= float(promise) + 1e-9 * abs(part.elbo)


def test_one_chunk_is_the_full_batch():
    x, _ = blobs(1)
    one, full = DPMixture(3, chunk=10_000), DPMixture(3, chunk=100)
    assert one.fit(x).elbo == full.fit(x, mode="full").elbo
