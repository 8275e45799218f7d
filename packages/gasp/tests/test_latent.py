"""The latent prior: when it is fitted, how it pulls, that it is saved whole (oracle 6, defects D10 to D18)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from gasp import losses
from gasp.config_skills import MixtureConfig, SkillsConfig
from gasp.latent import LatentPrior, fit_epochs, make_mixture
from rlblocks.dpmm import DPMixture
from rlcore.errors import DataError


def config(**options: Any) -> SkillsConfig:
    base = SkillsConfig(mixture=MixtureConfig(min_new=16.0))
    return replace(base, model=replace(base.model, latent_dim=3), **options)


def clusters(count: int = 600, seed: int = 0, spread: float = 6.0) -> torch.Tensor:
    """Three blobs in three dimensions."""
    rng = torch.Generator().manual_seed(seed)
    centres = spread * torch.eye(3)
    return centres[torch.arange(count) % 3] + 0.3 * torch.randn(count, 3, generator=rng)


@pytest.fixture
def fitted() -> LatentPrior:
    prior = LatentPrior(config(), 600, 0)
    prior.fit(clusters())
    return prior


# --- the schedule -----------------------------------------------------------------------------------------------------
def test_the_schedule_of_a_hundred_epochs():
    """33 fits: 0 to 18 each, then ever more seldom."""
    late = [20, 22, 24, 26, 28, 31, 34, 37, 41, 46, 52, 60, 71, 88]
    assert fit_epochs(100) == (*range(19), *late)
    assert len(fit_epochs(100)) == 33


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [(1, (0,)), (12, (0, 1, 2, 3, 5, 10)), (15, (0, 1, 2, 3, 5, 8)), (16, (0, 1, 2, 3, 5, 8, 15))],
)
def test_schedules_of_short_runs(epochs: int, expected: tuple[int, ...]):
    assert fit_epochs(epochs) == expected


def test_every_epoch():
    assert fit_epochs(4, "every") == (0, 1, 2, 3)


# --- the pull ---------------------------------------------------------------------------------------------------------
def test_before_the_first_fit_it_is_the_unit_gaussian():
    prior = LatentPrior(config(), 600, 0)
    mean, log_std, z = torch.randn(3, 5, 3).unbind()
    assert prior.components == 0
    torch.testing.assert_close(prior.kl(mean, log_std, z), losses.kl_standard(mean, log_std))


def test_spirl_has_no_mixture_and_needs_none():
    """D11: the Gaussian prior is a prior like another, not a missing mixture."""
    prior = LatentPrior(config(latent_prior="gaussian"), 600, 0)
    mean, log_std, z = torch.randn(3, 5, 3).unbind()
    torch.testing.assert_close(prior.kl(mean, log_std, z), losses.kl_standard(mean, log_std))
    again = LatentPrior(config(latent_prior="gaussian"), 600, 1)
    again.load_state_dict(prior.state_dict())


def test_components_pull_by_their_shares(fitted: LatentPrior):
    assert fitted.components == 3
    z = clusters(50, seed=1)
    log_std = torch.full_like(z, -1.0)
    resp = fitted.mixture.responsibilities(z.double()).float()
    expected = (resp * fitted.mixture.kl_to_components(z, 2 * log_std)).sum(1) / 3
    torch.testing.assert_close(fitted.kl(z, log_std, z), expected, atol=1e-4, rtol=1e-4)


def test_shares_are_the_mixtures_own(fitted: LatentPrior):
    """The float32 weights that are read once a fit give what the mixture gives in float64."""
    z = 4.0 * torch.rand(200, 3)
    own = fitted.mixture.responsibilities(z.double()).float()
    torch.testing.assert_close(fitted.shares(z, torch.zeros_like(z), z), own, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", ["z", "mu", "expected"])
def test_whose_shares(kind: str, fitted: LatentPrior):
    """By the sample, by the mean, or expected under q: that is the softmax of the mean of log shares over samples."""
    fitted.cfg = config(resp=kind)
    mean, log_std = torch.tensor([[2.9, 2.4, 0.4]]), torch.full((1, 3), -1.0)
    z = torch.tensor([[0.5, 5.0, 0.5]])
    found = fitted.shares(mean, log_std, z)
    if kind == "expected":
        rng = torch.Generator().manual_seed(0)
        drawn = mean + log_std.exp() * torch.randn(200_000, 3, generator=rng)
        log_resp = fitted.mixture.responsibilities(drawn.double()).clamp(min=1e-300).log().mean(0)
        expected = torch.softmax(log_resp, 0)[None].float()
        torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02)
    else:
        by = {"z": z, "mu": mean}[kind]
        torch.testing.assert_close(found, fitted.mixture.responsibilities(by.double()).float(), atol=1e-4, rtol=1e-3)


def test_the_thesis_sums_over_z(fitted: LatentPrior):
    mean, log_std = clusters(8, seed=2), torch.zeros(8, 3)
    ours = fitted.kl(mean, log_std, mean)
    fitted.cfg = config(legacy_reduction=True)
    torch.testing.assert_close(fitted.kl(mean, log_std, mean), 3 * ours)


# --- fits -------------------------------------------------------------------------------------------------------------
def test_a_fit_says_what_it_did():
    prior = LatentPrior(config(), 600, 0)
    first, second = prior.fit(clusters()), prior.fit(clusters(seed=1))
    assert first["components"] == second["components"] == 3
    assert first["births"] >= 1
    assert first["kept"] == second["kept"] == 1
    assert first["elbo_gain"] is None
    assert second["elbo_gain"] >= -1e-6
    assert first["entropy"] < 0.01  # blobs far apart: every skill belongs to one
    assert sum(first["weights"]) == pytest.approx(1.0, abs=1e-3)
    assert first["converged"] == 1


def test_components_follow_the_encoder():
    """A second fit begins with the components of the first, though z has moved."""
    prior = LatentPrior(config(), 600, 0)
    prior.fit(clusters())
    row = prior.fit(1.5 * clusters(seed=1))
    assert (row["components"], row["births"]) == (3, 0)
    assert float(prior.means.max()) == pytest.approx(9.0, abs=0.2)


def test_a_fit_that_ends_below_its_beginning_is_undone(fitted: LatentPrior, monkeypatch: pytest.MonkeyPatch):
    means, fit = fitted.means.clone(), DPMixture.fit

    def sick(self: DPMixture, x: Any, **options: Any) -> Any:
        report = fit(self, x, **options)
        return report if options.get("moves") == () else replace(report, elbo=[report.elbo[-1] - 1e6])

    monkeypatch.setattr(DPMixture, "fit", sick)
    row = fitted.fit(2.0 * clusters())
    assert row["kept"] == 0
    assert torch.equal(fitted.means, means)


def test_thresholds_are_shares_of_the_windows_or_as_published():
    """0.0013 of 616,000 windows is 800; few windows keep at least 16."""
    device = torch.device("cpu")
    assert make_mixture(MixtureConfig(), 3, 616_000, 0, device).options["min_new"] == pytest.approx(800, rel=0.01)
    assert make_mixture(MixtureConfig(), 3, 1_000, 0, device).options["min_new"] == 16
    published = MixtureConfig(min_new=800.0, min_target=960.0, min_retain=960.0)
    options = make_mixture(published, 3, 1_000, 0, device).options
    assert [options[name] for name in ("min_new", "min_target", "min_retain")] == [800, 960, 960]


# --- saving -----------------------------------------------------------------------------------------------------------
def test_saved_and_loaded_it_pulls_the_same_and_fits_the_same(fitted: LatentPrior):
    again = LatentPrior(config(), 600, 7)
    again.load_state_dict(fitted.state_dict())
    z = clusters(40, seed=3)
    log_std = torch.zeros_like(z)
    assert torch.equal(again.kl(z, log_std, z), fitted.kl(z, log_std, z))
    for prior in (again, fitted):
        prior.fit(clusters(seed=4, spread=4.0))
    assert torch.equal(again.means, fitted.means)


def test_another_kind_of_prior_is_refused(fitted: LatentPrior):
    with pytest.raises(DataError, match="latent_prior"):
        LatentPrior(config(latent_prior="gaussian"), 600, 0).load_state_dict(fitted.state_dict())
