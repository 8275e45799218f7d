"""Fits of the mixture: what is found, on data that is hardly data, too, and what others read of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import BayesianGaussianMixture
from small_dpmm import X3, blobs, make_bound

from rlblocks.dpmm import DPMixture
from rlcore import checkpoint
from rlcore.errors import DataError, NumericalError, UsageError


# --- fits -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("chunk", [100, 100_000])
@pytest.mark.parametrize("covariance", ["diag", "full"])
def test_it_finds_clear_clusters(covariance: str, chunk: int):
    x, labels = blobs(2, k=6, n=3_000)
    mixture = DPMixture(3, covariance=covariance, chunk=chunk)
    report = mixture.fit(x)
    assert report.converged
    assert report.num_components == mixture.num_components == 6
    assert adjusted_rand_score(labels, mixture.predict(x)) > 0.99
    assert np.diff(report.elbo).min() >= -1e-9 * abs(report.elbo[-1])
    assert mixture.variances.mean() == pytest.approx(0.25, rel=0.1)
    assert report.loss == pytest.approx(-report.elbo[-1] / x.size)


def test_full_covariances_need_fewer_components_for_slanted_clusters():
    noise = np.random.default_rng(0).normal(size=(4_000, 2))
    x = noise @ np.array([[2.0, 1.9], [0.0, 0.2]])
    x[:2_000] += 6
    diag, full = DPMixture(2), DPMixture(2, covariance="full")
    assert full.fit(x).num_components == 2
    assert diag.fit(x).num_components > 4
    expected = np.array([[4.0, 3.8], [3.8, 3.65]])
    np.testing.assert_allclose(full.covariances[0], expected, rtol=0.1)


def test_means_agree_with_scikit_learn_on_separate_blobs():
    x, _ = blobs(5, k=4, n=2_000)
    mixture = DPMixture(3, seed=1)
    mixture.fit(x)
    peer = BayesianGaussianMixture(
        n_components=12, covariance_type="diag", weight_concentration_prior=5.0, random_state=0, max_iter=500
    )
    used = np.unique(peer.fit(x).predict(x))
    assert len(used) == mixture.num_components == 4
    distance = np.linalg.norm(peer.means_[used][:, None] - mixture.means.numpy(), axis=2)
    assert distance.min(1).max() < 0.05


def test_a_warm_fit_continues_and_follows_moved_data():
    x, labels = blobs(3, k=5, n=2_000)
    mixture = DPMixture(3)
    mixture.fit(x)
    again = mixture.fit(x + 0.1)
    assert (again.num_components, again.accepted) == (5, {})
    assert len(again.elbo) <= 3
    assert mixture.means.mean() == pytest.approx(
        float(np.mean([x[labels == k].mean() for k in range(5)])) + 0.1, abs=0.01
    )
    assert mixture.fit(x, warm=False, moves=()).num_components == 1


def test_given_responsibilities_are_where_it_begins():
    x, labels = blobs(4, k=3)
    mixture = DPMixture(3)
    report = mixture.fit(x, resp=np.eye(3)[labels], moves=())
    assert (report.num_components, report.accepted) == (3, {})
    with pytest.raises(DataError, match="rows that sum to 1"):
        mixture.fit(x, resp=np.ones((len(x), 2)))


def test_stochastic_fits_come_close_to_the_memoized_one():
    x, labels = blobs(6, k=4, n=8_000)
    exact, noisy = DPMixture(3), DPMixture(3, chunk=500)
    loss = exact.fit(x).loss
    report = noisy.fit(x, mode="stochastic", max_laps=10)
    assert report.num_components == 4
    assert report.loss == pytest.approx(loss, abs=2e-3)
    stream = DPMixture(3)
    for batch in np.array_split(x, 20):
        stream.partial_fit(batch, population=len(x))
    assert float(stream.counts.sum()) == pytest.approx(8_000)
    assert adjusted_rand_score(labels, stream.predict(x)) > 0.99


def test_the_same_seed_gives_the_same_fit():
    x, _ = blobs(7, k=6, apart=1.2, n=1_500)
    first, again, other = (DPMixture(3, seed=s) for s in (1, 1, 2))
    assert first.fit(x).elbo == again.fit(x).elbo != other.fit(x).elbo


def test_a_fit_stops_at_its_limits():
    x, _ = blobs(8, k=12, n=2_000)
    assert DPMixture(3, k_max=3).fit(x).num_components == 3
    assert not DPMixture(3).fit(x, max_laps=1).converged
    stopped = DPMixture(3).fit(x, time_limit_s=0)
    assert (len(stopped.elbo), stopped.converged) == (1, False)


# --- data that is hardly data -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("covariance", ["diag", "full"])
@pytest.mark.parametrize("x", [np.zeros((50, 2)), np.full((1_000, 2), 7.3), np.array([[1.0, 2.0]])])
def test_identical_points_and_one_point_are_one_component(covariance: str, x: np.ndarray):
    mixture = DPMixture(2, covariance=covariance)
    assert mixture.fit(x).num_components == 1
    assert mixture.means[0].tolist() == pytest.approx(x[0].tolist(), rel=1e-3)
    assert torch.isfinite(mixture.log_prob(torch.as_tensor(x))).all()


def test_points_on_a_line_have_full_covariances():
    x = np.linspace(0, 1, 500)[:, None] * np.ones(3)
    mixture = DPMixture(3, covariance="full", prior_variance="auto")
    mixture.fit(x)
    assert np.isfinite(mixture.log_prob(x)).all()


def test_far_from_the_origin_nothing_is_lost():
    x, labels = blobs(9, k=4, n=1_000)
    here, far = (DPMixture(3, prior_mean="data") for _ in range(2))
    assert far.fit(x + 1e6).elbo == pytest.approx(here.fit(x).elbo, rel=1e-6)
    assert adjusted_rand_score(labels, far.predict(x + 1e6)) > 0.99


def test_bad_points_are_refused_by_name():
    mixture = DPMixture(2)
    with pytest.raises(DataError, match="row 3 of 5 is not finite"):
        mixture.fit(np.where(np.arange(5)[:, None] == 3, np.nan, 1.0) * np.ones(2))
    for bad in (np.zeros((0, 2)), np.zeros((4, 3)), np.zeros(2)):
        with pytest.raises(DataError, match=r"expected points \(N, 2\)"):
            mixture.fit(bad)
    with pytest.raises(UsageError, match="call fit"):
        mixture.predict(np.zeros((1, 2)))
    assert mixture.num_components == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"covariance": "spherical"}, "covariance must be one of diag, full"),
        ({"concentration": 0.0}, "concentration must be > 0"),
        ({"prior_variance": "small"}, "prior_variance must be > 0"),
        ({"prior_mean": "zero"}, "prior_mean must be a number or 'data'"),
        ({"nu0": 2.0}, "nu0 must be > 2"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(UsageError, match=message):
        DPMixture(2, **options)
    with pytest.raises(UsageError, match="mode must be one of"):
        DPMixture(2).fit(np.zeros((4, 2)), mode="gibbs")
    with pytest.raises(UsageError, match="moves must be one of"):
        DPMixture(2).fit(np.zeros((4, 2)), moves=("split",))


def test_a_singular_scale_matrix_is_an_error_with_the_fix():
    bound = make_bound(2, full=True)
    stats = bound.statistics(bound.features(X3), torch.ones(1, 3, dtype=torch.float64))
    stats[:, 3:6] = torch.tensor([-50.0, 0.0, -50.0])  # second moments that no data can have
    with pytest.raises(NumericalError, match="larger prior variance"):
        bound.elbo(stats)


# --- what the others read ---------------------------------------------------------------------------------------------
@pytest.fixture(scope="module", params=["diag", "full"])
def fitted(request: pytest.FixtureRequest) -> tuple[DPMixture, np.ndarray]:
    x, _ = blobs(10, k=4, n=1_500, apart=2.0)
    mixture = DPMixture(3, covariance=request.param)
    mixture.fit(x)
    return mixture, x


def torch_mixture(mixture: DPMixture) -> torch.distributions.MixtureSameFamily:
    parts = torch.distributions.MultivariateNormal(mixture.means, mixture.covariances)
    return torch.distributions.MixtureSameFamily(torch.distributions.Categorical(mixture.weights), parts)


def test_log_prob_is_the_density_of_the_mixture(fitted: tuple[DPMixture, np.ndarray]):
    mixture, x = fitted
    points = torch.as_tensor(x[:50]).requires_grad_()
    expected = torch_mixture(mixture).log_prob(points)
    torch.testing.assert_close(mixture.log_prob(points), expected, rtol=1e-9, atol=1e-9)
    (ours,) = torch.autograd.grad(mixture.log_prob(points).sum(), points)
    (theirs,) = torch.autograd.grad(expected.sum(), points)
    torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-7)


def test_arrays_come_back_as_they_came(fitted: tuple[DPMixture, np.ndarray]):
    mixture, x = fitted
    for points in (x, x.astype(np.float32), torch.as_tensor(x), torch.as_tensor(x).float()):
        resp = mixture.responsibilities(points)
        assert (type(resp), resp.dtype, tuple(resp.shape)) == (
            type(points),
            points.dtype,
            (len(x), mixture.num_components),
        )
        assert mixture.log_prob(points).dtype == points.dtype
    np.testing.assert_allclose(mixture.responsibilities(x).sum(1), 1, atol=1e-12)
    np.testing.assert_array_equal(mixture.predict(x), mixture.predict(torch.as_tensor(x)))


def test_kl_to_components_is_that_of_torch(fitted: tuple[DPMixture, np.ndarray]):
    mixture, x = fitted
    mean = torch.as_tensor(x[:20]).requires_grad_()
    log_var = torch.linspace(-3, 1, 60, dtype=torch.float64).reshape(20, 3)
    q = torch.distributions.MultivariateNormal(mean[:, None], torch.diag_embed(log_var.exp())[:, None])
    parts = torch.distributions.MultivariateNormal(mixture.means, mixture.covariances)
    expected = torch.distributions.kl_divergence(q, parts)
    divergence = mixture.kl_to_components(mean, log_var)
    torch.testing.assert_close(divergence, expected, rtol=1e-9, atol=1e-9)
    resp = mixture.responsibilities(mean.detach())
    torch.testing.assert_close(mixture.kl(mean, log_var), (resp * expected).sum(1), rtol=1e-9, atol=1e-9)
    hard = mixture.kl(mean, log_var, hard=True)
    torch.testing.assert_close(hard, expected[torch.arange(20), resp.argmax(1)], rtol=1e-9, atol=1e-9)
    (ours,) = torch.autograd.grad(mixture.kl(mean, log_var).sum(), mean)
    (theirs,) = torch.autograd.grad((resp * expected).sum(), mean)
    torch.testing.assert_close(ours, theirs)  # nothing flows through the responsibilities


def test_soft_kl_with_one_component_is_that_kl():
    mixture = DPMixture(1)
    mixture.fit(np.array([[0.0], [1.0], [-1.0]]))
    mean, log_var = torch.tensor([[0.5]]), torch.tensor([[0.3]])
    torch.testing.assert_close(mixture.kl(mean, log_var), mixture.kl_to_components(mean, log_var)[:, 0])


def test_samples_follow_the_mixture(fitted: tuple[DPMixture, np.ndarray]):
    mixture, _ = fitted
    x, component = mixture.sample(40_000)
    share = torch.bincount(component, minlength=mixture.num_components) / 40_000
    torch.testing.assert_close(share.double(), mixture.weights, atol=0.01, rtol=0)
    one, which = mixture.sample(20_000, component=1)
    assert (which == 1).all()
    torch.testing.assert_close(one.double().mean(0), mixture.means[1], atol=0.03, rtol=0)
    torch.testing.assert_close(one.double().T.cov(), mixture.covariances[1], atol=0.03, rtol=0)
    assert x.dtype == torch.float32
    with pytest.raises(IndexError):
        mixture.sample(1, component=99)


@pytest.mark.parametrize("covariance", ["diag", "full"])
def test_a_saved_mixture_goes_on_bit_for_bit(covariance: str, tmp_path: Path):
    x, _ = blobs(11, k=5, apart=1.5, n=1_000)
    mixture, restored = (DPMixture(3, covariance=covariance, seed=s) for s in (1, 2))
    mixture.fit(x[:500])
    checkpoint.save(tmp_path / "m.pt", mixture.state_dict())
    restored.load_state_dict(checkpoint.load(tmp_path / "m.pt"))
    assert mixture.fit(x).elbo == restored.fit(x).elbo
    assert torch.equal(mixture.sample(5)[0], restored.sample(5)[0])
    with pytest.raises(DataError, match="dim is 2 here and 3 in the file"):
        DPMixture(2).load_state_dict(mixture.state_dict())


def test_an_unfitted_mixture_can_be_saved():
    state = DPMixture(2).state_dict()
    mixture = DPMixture(2)
    mixture.load_state_dict(state)
    assert mixture.fit(np.zeros((3, 2))).num_components == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_fit():
    x, _ = blobs(12, k=5, n=2_000)
    cpu, gpu = DPMixture(3), DPMixture(3, device="cuda")
    assert gpu.fit(x).elbo == pytest.approx(cpu.fit(x).elbo, rel=1e-9)
    assert math.isfinite(gpu.log_prob(x).sum())
