"""The package against the same equations written the long way (`plain_skills.py`): outputs, losses, gradients."""

from __future__ import annotations

from dataclasses import replace

import plain_skills
import pytest
import torch

from gasp.config_skills import ModelConfig, SkillsConfig
from gasp.skills import SkillLearner

S, A, Z, H, B = 9, 3, 4, 6, 16


def learner(latent_prior: str, prior_loss: str, norm: str = "layer") -> SkillLearner:
    small = ModelConfig(horizon=H, latent_dim=Z, hidden=24, decoder_layers=2, prior_layers=2, norm=norm)
    cfg = SkillsConfig(model=small, latent_prior=latent_prior, prior_loss=prior_loss, beta=0.1)
    made = SkillLearner(
        replace(cfg, mixture=replace(cfg.mixture, min_new=20.0)), {"obs_dim": S, "action_dim": A}, 400, 0
    )
    made.model.normalize_by(torch.randn(100, S) * 3 + 1)
    if latent_prior == "dpmm":
        rng = torch.Generator().manual_seed(0)
        blobs = 3.0 * torch.eye(Z)[torch.arange(400) % 3] + 0.4 * torch.randn(400, Z, generator=rng)
        assert made.prior.fit(blobs)["components"] > 1
    return made


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    return tuple(torch.randn(B, *shape, generator=rng) for shape in ((H + 1, S), (H, A), (Z,)))  # type: ignore[return-value]


@pytest.mark.parametrize("norm", ["layer", "none"])
def test_outputs(norm: str, batch: tuple[torch.Tensor, ...]):
    obs, action, z = batch
    ours = learner("gaussian", "nll", norm).model
    plain = plain_skills.PlainSkills(ours)
    mean, log_std = ours.encode(obs, action)
    q, p = plain.encode(obs, action), plain.prior(obs[:, 0])
    tight = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(mean, q.mean, **tight)
    torch.testing.assert_close(log_std.exp(), q.stddev, **tight)
    decoded = ours.decode(obs[:, :H], z[:, None].expand(-1, H, -1))
    torch.testing.assert_close(decoded, plain.decode(obs, z, H), **tight)
    torch.testing.assert_close(ours.prior(obs[:, 0])[0], p.mean, **tight)


@pytest.mark.parametrize("prior_loss", ["nll", "kl"])
@pytest.mark.parametrize("latent_prior", ["gaussian", "dpmm"])
def test_losses_and_gradients(latent_prior: str, prior_loss: str, batch: tuple[torch.Tensor, ...]):
    obs, action, noise = batch
    ours = learner(latent_prior, prior_loss)
    plain = plain_skills.PlainSkills(ours.model)
    components, shares = [], None
    if latent_prior == "dpmm":
        assert ours.prior.mixture is not None
        components = list(zip(ours.prior.mixture.means.float(), ours.prior.mixture.variances.float()))
        with torch.no_grad():
            mean, log_std = ours.model.encode(obs, action)
            shares = ours.prior.mixture.responsibilities((mean + log_std.exp() * noise).double()).float()
    expected = plain_skills.loss(
        plain, obs, action, noise, beta=0.1, prior_loss=prior_loss, components=components, shares=shares
    )
    total, parts = ours.loss((obs, action), noise)
    for name, value in expected.items():
        torch.testing.assert_close(parts[name], value, atol=1e-5, rtol=1e-5)
    total.backward()
    expected["loss"].backward()
    lstm = ours.model.encoder.lstm
    for one, other in (
        (lstm.weight_hh_l0, plain.cell.from_state.weight), (lstm.weight_ih_l0, plain.cell.from_input.weight),
        (ours.model.encoder.embed.weight, plain.embed.weight), (ours.model.decoder[0].weight, plain.decoder[0].weight),
        (ours.model.skill_prior[2].weight, plain.skill_prior[2].weight),
    ):  # fmt: skip
        torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-4)
