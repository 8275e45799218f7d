"""Skill learning written the long way: the LSTM's cell unrolled in Python, decoder step by step, components one by one.

The same equations as the package by another path, from the definitions alone: tests compare the two, and benchmarks
take this as the yardstick of a plain eager implementation. The published LSTM is unrolled like this; so is its output
layer, of which the last step alone is used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from gasp.model import SkillModel


class Cell(nn.Module):
    """One LSTM step, gates in order input, forget, cell, output."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.from_input, self.from_state = nn.Linear(hidden, 4 * hidden), nn.Linear(hidden, 4 * hidden)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        h, c = state
        i, f, g, o = (self.from_input(x) + self.from_state(h)).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return h, (h, c)


class PlainSkills(nn.Module):
    """The networks of a SkillModel, with copies of its weights, in modules of their own."""

    def __init__(self, model: SkillModel) -> None:
        super().__init__()
        self.mean, self.scale = model.obs_mean.clone(), model.obs_scale.clone()
        hidden = model.cfg.hidden
        self.embed, self.project, self.head = (
            copied(m) for m in (model.encoder.embed, model.encoder.project, model.encoder.head)
        )
        self.cell = Cell(hidden)
        lstm = model.encoder.lstm
        self.cell.from_input.load_state_dict({"weight": lstm.weight_ih_l0, "bias": lstm.bias_ih_l0})
        self.cell.from_state.load_state_dict({"weight": lstm.weight_hh_l0, "bias": lstm.bias_hh_l0})
        self.decoder, self.skill_prior = (
            nn.ModuleList(copied(m) for m in part) for part in (model.decoder, model.skill_prior)
        )

    def normalized(self, obs: Tensor) -> Tensor:
        return ((obs - self.mean) * self.scale).clamp(-10.0, 10.0)

    def encode(self, obs: Tensor, action: Tensor) -> Normal:
        """q(z|s,a), one step after another."""
        zeros = torch.zeros(len(obs), self.cell.from_state.in_features)
        state, outputs = (zeros, zeros), []
        for t in range(action.shape[1]):
            x = self.embed(torch.cat((action[:, t], self.normalized(obs[:, t])), -1))
            out, state = self.cell(x, state)
            outputs.append(self.project(out))
        return gaussian(self.head(torch.stack(outputs, 1)[:, -1]))

    def decode(self, obs: Tensor, z: Tensor, steps: int) -> Tensor:
        """Actions (B, H, A), one step after another."""
        actions = []
        for t in range(steps):
            x = torch.cat((self.normalized(obs[:, t]), z), -1)
            for layer in self.decoder:
                x = layer(x)
            actions.append(x)
        return torch.stack(actions, 1)

    def prior(self, obs: Tensor) -> Normal:
        """p(z|s)."""
        x = self.normalized(obs)
        for layer in self.skill_prior:
            x = layer(x)
        return gaussian(x)


def copied(module: nn.Module) -> nn.Module:
    """A module of the same kind and weights."""
    made: nn.Module
    if isinstance(module, nn.Linear):
        made = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None)
    elif isinstance(module, nn.LayerNorm):
        made = nn.LayerNorm(module.normalized_shape)
    else:
        return nn.LeakyReLU(0.2)
    made.load_state_dict(module.state_dict())
    return made


def gaussian(raw: Tensor) -> Normal:
    half = raw.shape[-1] // 2
    return Normal(raw[..., :half], raw[..., half:].clamp(-10.0, 2.0).exp())


def loss(
    plain: PlainSkills, obs: Tensor, action: Tensor, noise: Tensor, *, beta: float, prior_loss: str,
    components: Sequence[tuple[Tensor, Tensor]] = (), shares: Tensor | None = None, weights: Tensor | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """All losses of one batch; components: (mean (Z,), variance (Z,)) each; none: N(0, I).

    shares: (B, K) of the components in each z; or weights (K,), and they are p(k|z), component by component.
    """
    q = plain.encode(obs, action)
    z = q.mean + q.stddev * noise
    decoded = plain.decode(obs, z, action.shape[1])
    reconstruction = (0.5 * (action - decoded) ** 2 + 0.5 * math.log(2 * math.pi)).mean()
    if components:
        if shares is None:
            assert weights is not None
            shares = responsibilities(z.detach(), components, weights)
        divergence = torch.zeros(len(obs))
        for k, (mean, variance) in enumerate(components):
            divergence = divergence + shares[:, k] * kl_divergence(q, Normal(mean, variance.sqrt())).mean(-1)
    else:
        divergence = kl_divergence(q, Normal(torch.zeros_like(z), torch.ones_like(z))).mean(-1)
    p = plain.prior(obs[:, 0])
    if prior_loss == "nll":
        prior = -p.log_prob(z.detach()).sum(-1).mean()
    else:
        prior = kl_divergence(Normal(q.mean.detach(), q.stddev.detach()), p).sum(-1).mean()
    total = reconstruction + beta * divergence.mean() + prior
    return {"loss": total, "reconstruction": reconstruction, "kl": divergence.mean(), "prior_loss": prior}


def responsibilities(z: Tensor, components: Sequence[tuple[Tensor, Tensor]], weights: Tensor) -> Tensor:
    """(B, K) p(k|z) of z (B, Z)."""
    densities = [Normal(mean, variance.sqrt()).log_prob(z).sum(-1) for mean, variance in components]
    return torch.softmax(torch.stack(densities, 1) + weights.log(), 1)


def mse(plain: PlainSkills, obs: Tensor, action: Tensor) -> Tensor:
    """Reconstruction error from the mean of q."""
    return F.mse_loss(plain.decode(obs, plain.encode(obs, action).mean, action.shape[1]), action)
