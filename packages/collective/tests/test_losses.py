"""Losses against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from collective import losses


def close(value: torch.Tensor, expected: float) -> None:
    torch.testing.assert_close(value, torch.tensor(expected), rtol=1e-5, atol=1e-7)


class TestInfoNCE:
    def test_two_windows_of_different_tasks(self):
        z = torch.eye(2, 6)
        close(losses.info_nce(z, z, torch.tensor([0, 1]), 0.15), 0.0012718)  # log(1 + exp(-1 / 0.15))
        close(losses.info_nce(z, z, torch.tensor([0, 1]), 1.0), 0.3132617)

    def test_windows_of_one_task_are_no_negatives(self):
        z = torch.eye(2, 6)
        assert losses.info_nce(z, z, torch.tensor([3, 3]), 0.15).item() == 0.0

    def test_the_length_of_a_code_does_not_count(self):
        rng = torch.Generator().manual_seed(0)
        z1, z2 = torch.randn(2, 5, 6, generator=rng)
        labels = torch.tensor([0, 1, 0, 2, 1])
        torch.testing.assert_close(
            losses.info_nce(z1, z2, labels, 0.15), losses.info_nce(3 * z1, 0.1 * z2, labels, 0.15)
        )


class TestMaskedError:
    def test_only_what_is_masked_counts(self):
        predicted, target = torch.zeros(1, 3, 2), torch.tensor([[[1.0, 1.0], [9.0, 9.0], [3.0, 1.0]]])
        mask = torch.tensor([[True, False, True]])
        close(losses.masked_mse(predicted, target, mask), (1.0 + 5.0) / 2)

    def test_nothing_masked_is_no_error_and_no_nan(self):
        assert losses.masked_mse(torch.ones(1, 2, 1), torch.zeros(1, 2, 1), torch.zeros(1, 2, dtype=torch.bool)) == 0


class TestDistillation:
    @pytest.mark.parametrize(("log_std", "expected"), [(-4.0, 0.1), (-1.0, 0.2)])
    def test_a_sure_experts_spread_counts_less(self, log_std: float, expected: float):
        expert = torch.full((1, 1), log_std)
        close(losses.distil_loss(torch.zeros(1, 1), expert + 1.0, torch.zeros(1, 1), expert), expected)

    def test_means_are_compared_after_squashing(self):
        spread = torch.zeros(1, 1)
        close(losses.distil_loss(torch.ones(1, 1), spread, torch.zeros(1, 1), spread), math.tanh(1.0) ** 2)

    def test_the_divergence_is_that_of_gaussians_and_not_of_variances(self):
        mean, log_std = torch.zeros(1, 1), torch.zeros(1, 1)
        close(losses.distil_kl(mean + 1.0, log_std + math.log(2.0), mean, log_std), 0.4431472)
        close(losses.distil_kl(mean, log_std, mean, log_std), 0.0)

    def test_a_full_push_has_a_finite_divergence(self):
        one = torch.ones(1, 1)
        assert torch.isfinite(losses.distil_kl(0 * one, 0 * one, one, 0 * one))

    @pytest.mark.parametrize(("discount", "expected"), [(0.99, 10.9), (0.0, 1.0)])
    def test_the_critics_label_is_of_this_state(self, discount: float, expected: float):
        close(losses.critic_label(torch.ones(1), torch.tensor([discount]), torch.tensor([10.0]))[0], expected)


class TestShaping:
    def test_what_is_off_from_the_advice_counts_by_weight(self):
        """Half of (0.5^2 + 0.5^2) * 2; the other row has no weight."""
        mean, advice = torch.zeros(2, 2), torch.full((2, 2), 0.5)
        close(losses.clone_loss(mean, advice, torch.tensor([2.0, 0.0])), 0.5)
        close(losses.clone_loss(torch.atanh(advice), advice, torch.ones(2)), 0.0)

    @pytest.mark.parametrize(("off", "expected"), [(0, 1.0), (1, 0.6065307), (4, 0.1353353)])
    def test_dimensions_that_are_off_by_sigma(self, off: int, expected: float):
        action, sigma = np.zeros((1, 4)), 0.5
        action[0, :off] = sigma
        rho = losses.shaping_bonus(action, np.zeros((1, 4)), np.full((1, 4), math.log(sigma)))
        assert rho == pytest.approx(expected, rel=1e-6)

    @pytest.mark.parametrize(("log_std", "sigma"), [(-20.0, 0.3), (2.0, 1.0)])
    def test_sigma_stays_in_a_sane_band(self, log_std: float, sigma: float):
        rho = losses.shaping_bonus(np.array([[0.2]]), np.zeros((1, 1)), np.array([[log_std]]))
        assert rho == pytest.approx(math.exp(-0.5 * (0.2 / sigma) ** 2), rel=1e-6)

    @pytest.mark.parametrize(("step", "expected"), [(0, 1.0), (8_000, 1.0), (29_000, 0.5), (50_000, 0.0), (60_000, 0)])
    def test_the_weight_over_time(self, step: int, expected: float):
        assert losses.shaping_weight(step, 4_000, 4_000, 50_000) == pytest.approx(expected)

    @given(st.lists(st.integers(0, 10**6), min_size=2, max_size=20))
    def test_the_weight_never_rises(self, steps: list[int]):
        weights = [losses.shaping_weight(step, 4_000, 4_000, 50_000, 0.7) for step in sorted(steps)]
        assert weights == sorted(weights, reverse=True)
        assert all(0 <= weight <= 0.7 for weight in weights)

    def test_potentials_telescope(self):
        rng, gamma = np.random.default_rng(0), 0.9
        value = rng.normal(size=6)
        ends = np.array([False] * 4 + [True])
        bonus = losses.potential_bonus(value[:-1], value[1:], gamma, ends)
        assert (gamma ** np.arange(5) * bonus).sum() == pytest.approx(-value[0], rel=1e-5)
