"""The skill networks: sizes as published, shapes, what they may look at."""

from __future__ import annotations

import pytest
import torch

from gasp.config_skills import ModelConfig
from gasp.model import SkillModel
from gasp.wide import ROWS, wide_linear
from rlcore.nets import count_parameters


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_as_many_parameters_as_published(norm: str):
    """SPiRL's kitchen model: states of 60, actions of 9, 10 latent dimensions. Layer and batch norms are as large."""
    model = SkillModel(ModelConfig(norm=norm), 60, 9)
    assert count_parameters(model.encoder) == 160_148
    assert count_parameters(model.decoder) == 93_449
    assert count_parameters(model.skill_prior) == 110_228
    assert count_parameters(model) == 363_825


@pytest.fixture
def model() -> SkillModel:
    torch.manual_seed(0)
    return SkillModel(ModelConfig(hidden=16, latent_dim=3, decoder_layers=1, prior_layers=1), 4, 2)


def test_shapes(model: SkillModel):
    obs, action = torch.randn(5, 11, 4), torch.randn(5, 10, 2)
    mean, log_std = model.encode(obs, action)
    assert mean.shape == log_std.shape == (5, 3)
    assert model.decode(obs, mean[:, None].expand(5, 11, 3)).shape == (5, 11, 2)
    assert model.decode(obs[:, 0], mean).shape == (5, 2)
    assert model.prior(obs[:, 0])[0].shape == (5, 3)
    assert model.prior(obs)[1].shape == (5, 11, 3)


def test_the_state_after_a_window_is_not_encoded(model: SkillModel):
    """H and H + 1 states give the same skill: only states before actions count."""
    obs, action = torch.randn(5, 11, 4), torch.randn(5, 10, 2)
    for one, other in zip(model.encode(obs, action), model.encode(obs[:, :10], action)):
        assert torch.equal(one, other)


def test_one_call_of_the_decoder_is_as_good_as_ten(model: SkillModel):
    obs, z = torch.randn(5, 10, 4), torch.randn(5, 3)
    whole = model.decode(obs, z[:, None].expand(5, 10, 3))
    steps = torch.stack([model.decode(obs[:, t], z) for t in range(10)], 1)
    torch.testing.assert_close(whole, steps)


def test_a_log_std_has_bounds(model: SkillModel):
    with torch.no_grad():
        model.encoder.head.bias.fill_(50.0)
    assert float(model.encode(torch.zeros(1, 10, 4), torch.zeros(1, 10, 2))[1].max().detach()) == 2.0


def test_observations_are_scaled_by_the_demonstrations(model: SkillModel):
    """Units do not matter: observations in other units, with their own scale, give the same skills."""
    obs, action = torch.randn(50, 10, 4), torch.randn(50, 10, 2)
    model.normalize_by(obs.flatten(0, 1))
    one = model.encode(obs, action)[0]
    model.normalize_by(1000 * obs.flatten(0, 1) + 7)
    torch.testing.assert_close(model.encode(1000 * obs + 7, action)[0], one, atol=1e-4, rtol=1e-4)
    assert bool(torch.isfinite(model.normalized(torch.full((4,), 1e9))).all())


def test_an_lstm_remembers_at_first(model: SkillModel):
    lstm = model.encoder.lstm
    assert torch.equal((lstm.bias_ih_l0 + lstm.bias_hh_l0)[16:32], torch.full((16,), 2.0))
    assert not lstm.bias_ih_l0[:16].any()


@pytest.mark.parametrize("bias", [True, False])
def test_wide_layers_are_linear_layers(bias: bool):
    """Outputs and all gradients, with many rows and with few; weights that are a slice of others, as the decoder's."""
    for rows in (ROWS - 1, ROWS + 77):
        torch.manual_seed(0)
        x, whole = torch.randn(rows, 24, requires_grad=True), torch.randn(16, 30, requires_grad=True)
        shift = torch.randn(16, requires_grad=True) if bias else None
        inputs = [x, whole] + ([shift] if bias else [])
        found, expected = (f(x, whole[:, :24], shift) for f in (wide_linear, torch.nn.functional.linear))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        weight = torch.randn(rows, 16)
        ours, theirs = (torch.autograd.grad((y * weight).sum(), inputs) for y in (found, expected))
        for one, other in zip(ours, theirs):
            torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-4)


def test_without_onednn_it_is_torchs_own(monkeypatch: pytest.MonkeyPatch):
    x, weight = torch.randn(2 * ROWS, 8), torch.randn(4, 8)
    monkeypatch.setattr("gasp.wide._MULTIPLY", None)
    assert torch.equal(wide_linear(x, weight), torch.nn.functional.linear(x, weight))
