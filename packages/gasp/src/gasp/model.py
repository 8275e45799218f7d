"""The networks of SPiRL's closed-loop skill model (Pertsch et al. 2020, arXiv 2010.11944): encoder, decoder, prior.

B windows of H steps; observations S, actions A, latents Z. Weights are Xavier-normal, biases 0.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gasp.config_skills import ModelConfig
from gasp.wide import WideLinear

LOG_STD_MIN, LOG_STD_MAX = -10.0, 2.0
SLOPE = 0.2  # of the leaky rectifier
FAR = 10.0  # standard deviations beyond which a normalised observation is cut off
NARROW = 1e-2  # least standard deviation that observations are divided by


class Pass(NamedTuple):
    """What the networks make of B windows."""

    mean: Tensor  # (B, Z) of q(z|s,a)
    log_std: Tensor  # (B, Z)
    z: Tensor  # (B, Z) drawn from it
    decoded: Tensor  # (B, H, A) actions of z in the windows' states
    prior_mean: Tensor  # (B, Z) of p(z|s_0)
    prior_log_std: Tensor  # (B, Z)


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

    def forward(self, obs: Tensor, action: Tensor, noise: Tensor) -> Pass:
        """All that a loss needs of windows obs (B, H or H + 1, S), action (B, H, A); noise (B, Z) is z's."""
        seen = self.normalized(obs[:, : action.shape[1]])
        mean, log_std = self._encode(seen, action)
        z = torch.addcmul(mean, log_std.exp(), noise)
        return Pass(mean, log_std, z, self._decode(seen, z[:, None]), *self._prior(seen[:, 0]))

    def encode(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log std (B, Z) of q(z|s,a): obs (B, H or H + 1, S), of which the first H count; action (B, H, A)."""
        assert obs.shape[-1] == self.obs_dim, (obs.shape, self.obs_dim)
        assert action.shape[-1] == self.action_dim, (action.shape, self.action_dim)
        return self._encode(self.normalized(obs[:, : action.shape[1]]), action)

    def decode(self, obs: Tensor, z: Tensor) -> Tensor:
        """Actions (..., A), not clipped: obs (..., S), z (..., Z), of which either may have axes of 1."""
        return self._decode(self.normalized(obs), z)

    def prior(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log std (..., Z) of p(z|s): obs (..., S)."""
        return self._prior(self.normalized(obs))

    def _encode(self, seen: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        return split(self.encoder(torch.cat((action, seen), -1)))

    def _decode(self, seen: Tensor, z: Tensor) -> Tensor:
        """The first layer takes its two inputs apart: a skill that stays for H states, z (B, 1, Z), is multiplied once,
        and no gradient is computed for states.
        """
        first = cast(nn.Linear, self.decoder[0])
        of_obs, of_z = first.weight.split((self.obs_dim, self.cfg.latent_dim), 1)
        x = F.linear(seen, of_obs) + F.linear(z, of_z, first.bias)
        return cast(Tensor, self.decoder[1:](x.reshape(-1, x.shape[-1]))).view(*x.shape[:-1], self.action_dim)

    def _prior(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        raw = self.skill_prior(seen.reshape(-1, self.obs_dim))
        return split(raw.view(*seen.shape[:-1], raw.shape[-1]))


class Encoder(nn.Module):
    """Linear, one LSTM layer, Linear, and of its last step a Linear: (B, H, I) -> (B, O).

    Nothing bends between the first Linear and the LSTM's input weights, so they are multiplied with each other before
    they are with the input: a third of the encoder's work less.
    """

    def __init__(self, fan_in: int, hidden: int, fan_out: int) -> None:
        super().__init__()
        self.embed = nn.Linear(fan_in, hidden)
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True)
        self.project = nn.Linear(hidden, hidden)
        self.head = nn.Linear(hidden, fan_out)

    def forward(self, x: Tensor) -> Tensor:
        lstm = self.lstm
        of_input, of_state, input_bias, state_bias = (cast(Tensor, p) for p in lstm.parameters())
        joint = of_input @ self.embed.weight, torch.addmv(input_bias, of_input, self.embed.bias)
        weights = [joint[0], of_state, joint[1], state_bias]
        zeros = x.new_zeros(1, len(x), lstm.hidden_size)
        steps = torch.lstm(x, (zeros, zeros), weights, True, 1, 0.0, self.training, False, True)[0]
        return cast(Tensor, self.head(self.project(steps[:, -1])))  # what the last step does not need is not computed


def mlp(fan_in: int, fan_out: int, layers: int, hidden: int, norm: str) -> nn.Sequential:
    """Linear, `layers` times Linear (and norm), Linear; leaky rectifiers between them."""
    parts: list[nn.Module] = [nn.Linear(fan_in, hidden), nn.LeakyReLU(SLOPE, inplace=True)]
    for _ in range(layers):
        parts.append(WideLinear(hidden, hidden, bias=norm == "none"))  # a norm has a bias of its own
        if norm != "none":
            parts.append(nn.LayerNorm(hidden) if norm == "layer" else nn.BatchNorm1d(hidden))
        parts.append(nn.LeakyReLU(SLOPE, inplace=True))  # no layer needs what comes before it again
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
