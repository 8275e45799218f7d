"""The networks of SPiRL's closed-loop skill model (Pertsch et al. 2020, arXiv 2010.11944): encoder, decoder, prior.

B windows of H steps; observations S, actions A, latents Z. Weights are Xavier-normal, biases 0.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from gasp.config_skills import ModelConfig

LOG_STD_MIN, LOG_STD_MAX = -10.0, 2.0
SLOPE = 0.2  # of the leaky rectifier
FAR = 10.0  # standard deviations beyond which a normalised observation is cut off
NARROW = 1e-2  # least standard deviation that observations are divided by


class SkillModel(nn.Module):
    """q(z|s,a), pi(a|s,z) and p(z|s).

    The encoder reads the H (state, action) pairs of a window; the decoder acts on one state at a time, so that a skill
    answers to what happens; the prior sees the first state alone.
    """

    obs_mean: Tensor  # (S,)
    obs_scale: Tensor  # (S,) one over the standard deviation

    def __init__(self, cfg: ModelConfig, obs_dim: int, action_dim: int) -> None:
        super().__init__()
        self.cfg, self.obs_dim, self.action_dim = cfg, obs_dim, action_dim
        self.encoder = Encoder(obs_dim + action_dim, cfg.hidden, 2 * cfg.latent_dim)
        sizes = cfg.hidden, cfg.norm
        self.decoder = mlp(obs_dim + cfg.latent_dim, action_dim, cfg.decoder_layers, *sizes)
        self.skill_prior = mlp(obs_dim, 2 * cfg.latent_dim, cfg.prior_layers, *sizes)
        self.register_buffer("obs_mean", torch.zeros(obs_dim))
        self.register_buffer("obs_scale", torch.ones(obs_dim))
        self.apply(initialise)

    @torch.no_grad()
    def normalize_by(self, obs: Tensor) -> None:
        """Take mean and scale of the observations (N, S), where the configuration wants them normalised."""
        if self.cfg.normalize_obs:
            self.obs_mean.copy_(obs.mean(0))
            self.obs_scale.copy_(obs.std(0, correction=0).clamp(min=NARROW).reciprocal())

    def normalized(self, obs: Tensor) -> Tensor:
        """(..., S) -> (..., S), in standard deviations from the mean; nothing is very far away."""
        if not self.cfg.normalize_obs:
            return obs
        return ((obs - self.obs_mean) * self.obs_scale).clamp(-FAR, FAR)

    def encode(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log std (B, Z) of q(z|s,a): obs (B, H or H + 1, S), of which the first H count; action (B, H, A)."""
        assert obs.shape[-1] == self.obs_dim, (obs.shape, self.obs_dim)
        assert action.shape[-1] == self.action_dim, (action.shape, self.action_dim)
        seen = self.normalized(obs[:, : action.shape[1]])
        return split(self.encoder(torch.cat((action, seen), -1)))

    def decode(self, obs: Tensor, z: Tensor) -> Tensor:
        """Actions (..., A), not clipped: obs (..., S), z (..., Z)."""
        joint = torch.cat((self.normalized(obs), z), -1)
        return cast(Tensor, self.decoder(joint.reshape(-1, joint.shape[-1]))).view(*joint.shape[:-1], self.action_dim)

    def prior(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log std (..., Z) of p(z|s): obs (..., S)."""
        raw = self.skill_prior(self.normalized(obs).reshape(-1, self.obs_dim))
        return split(raw.view(*obs.shape[:-1], raw.shape[-1]))


class Encoder(nn.Module):
    """Linear, one LSTM layer, Linear, and of its last step a Linear: (B, H, I) -> (B, O)."""

    def __init__(self, fan_in: int, hidden: int, fan_out: int) -> None:
        super().__init__()
        self.embed = nn.Linear(fan_in, hidden)
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True)
        self.project = nn.Linear(hidden, hidden)
        self.head = nn.Linear(hidden, fan_out)

    def forward(self, x: Tensor) -> Tensor:
        steps, _ = self.lstm(self.embed(x))
        return cast(Tensor, self.head(self.project(steps[:, -1])))  # what the last step does not need is not computed


def mlp(fan_in: int, fan_out: int, layers: int, hidden: int, norm: str) -> nn.Sequential:
    """Linear, `layers` times Linear (and norm), Linear; leaky rectifiers between them."""
    parts: list[nn.Module] = [nn.Linear(fan_in, hidden), nn.LeakyReLU(SLOPE)]
    for _ in range(layers):
        parts.append(nn.Linear(hidden, hidden, bias=norm == "none"))  # a norm has a bias of its own
        if norm != "none":
            parts.append(nn.LayerNorm(hidden) if norm == "layer" else nn.BatchNorm1d(hidden))
        parts.append(nn.LeakyReLU(SLOPE))
    return nn.Sequential(*parts, nn.Linear(hidden, fan_out))


def initialise(module: nn.Module) -> None:
    """Xavier-normal weights and zero biases; an LSTM remembers at first: its forget gates have biases of 1 + 1."""
    if isinstance(module, nn.Linear | nn.LSTM):
        for name, parameter in module.named_parameters():
            if "weight" in name:
                nn.init.xavier_normal_(parameter)
            else:
                nn.init.zeros_(parameter)
    if isinstance(module, nn.LSTM):
        for name, parameter in module.named_parameters():
            if "bias" in name:
                parameter.data[module.hidden_size : 2 * module.hidden_size] = 1.0  # gates in order: i, f, g, o


def split(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and clamped log std, (..., Z) each, from (..., 2 Z)."""
    mean, log_std = raw.chunk(2, -1)
    return mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
