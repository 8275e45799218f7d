"""Networks of the inference model: encoders of context, decoders of what happens next, the head that names the family.

Every encoder gives raw outputs (..., O) in three ways that agree:

    windows(features (N, T, F), count (N,))   of windows, oldest first, whose last `count` rows are known: (N, O)
    episodes(features (B, H, F))              before every step of an episode and after the last: (B, H + 1, O)
    start(num), step(memory, feature, count)  one step at a time, after `count` (N,) earlier ones: memory, (N, O)

Recurrent ones, which remember all of the episode, have `at(features (B, H, F), times (B, M))`, (B, M, O), in place of
`windows`. `read(memory, count)` is the output of a memory as it is. Where no transition is known yet, it depends on no
data.
"""

from __future__ import annotations

import abc
import itertools
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rlcore.nets import mlp
from taskinfer.config import InferenceConfig
from taskinfer.context import masked_means, window_means
from taskinfer.losses import LOG_VAR_MAX, LOG_VAR_MIN, combine_classes

CHUNK = 16_384  # windows encoded at a time
GATE = 8.0  # logarithm of the largest weight of a transition, and minus that of the smallest


class Posterior(NamedTuple):
    """q(z | context). For gmm also the classes that it is mixed from."""

    mean: Tensor  # (..., L)
    log_var: Tensor  # (..., L)
    class_logits: Tensor | None = None  # (..., K)
    class_means: Tensor | None = None  # (..., K, L)
    class_log_vars: Tensor | None = None  # (..., K, L)


def layers(sizes: list[int], layer_norm: bool) -> nn.Sequential:
    """Linear, LayerNorm where asked for, ReLU for each of `sizes` after the first."""
    made: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        made += [nn.Linear(fan_in, fan_out), *[nn.LayerNorm(fan_out)] * layer_norm, nn.ReLU()]
    return nn.Sequential(*made)


def decoder(sizes: list[int], layer_norm: bool) -> nn.Sequential:
    """Hidden `layers`, and a linear one after them."""
    return nn.Sequential(*layers(sizes[:-1], layer_norm), nn.Linear(sizes[-2], sizes[-1]))


class DeepSet(nn.Module):
    """A network of the weighted mean of embedded transitions (Zaheer et al. 2017, arXiv:1703.06114): order is lost.

    Each transition says how much it has to say, for each of the E numbers of its embedding: sum w e / sum w, as
    Gaussian evidence adds up by precision (Rakelly et al. 2019, arXiv:1903.08254, eq. 2), so that a step that tells
    much is not drowned by all those at rest. The number of known transitions, as a share of the window, is one more
    input.
    """

    means = 1

    def __init__(self, inputs: int, hidden: int, outputs: int, window: int, layer_norm: bool) -> None:
        super().__init__()
        self.window, self.width = window, 2 * hidden
        self.embed, self.gate = layers([inputs, hidden, hidden], layer_norm), nn.Linear(hidden, hidden)
        self.head = mlp([self.means * hidden + 1, 2 * hidden, outputs])

    def weigh(self, features: Tensor) -> Tensor:
        """[w e, w] (..., 2 E) of features (..., F): what sums and means are taken of."""
        embedded = self.embed(features)
        weight = self.gate(embedded).clamp(-GATE, GATE).exp()
        return torch.cat((weight * embedded, weight), -1)

    def _finish(self, means: Tensor, count: Tensor) -> Tensor:
        """Outputs (..., O) from means of `weigh` (..., `self.means` 2 E)."""
        value, weight = means.unflatten(-1, (self.means, 2, -1)).unbind(-2)
        share = count.clamp(max=self.window).to(means.dtype) / self.window
        mean = (value / weight.clamp(min=1e-9)).flatten(-2)  # no weights, no values: 0
        output: Tensor = self.head(torch.cat((mean, share.unsqueeze(-1)), -1))
        return output

    def windows(self, features: Tensor, count: Tensor) -> Tensor:
        return self._finish(masked_means(self.weigh(features), count), count)

    def episodes(self, features: Tensor) -> Tensor:
        means = window_means(self.weigh(features), self.window)
        count = torch.arange(means.shape[1], device=means.device).expand(means.shape[:2])
        return self._finish(means, count)

    def start(self, num: int) -> Tensor:
        return torch.zeros(num, self.window, self.width, device=next(self.parameters()).device)

    def step(self, memory: Tensor, feature: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        memory = memory.clone()
        memory[torch.arange(len(memory), device=memory.device), count % self.window] = self.weigh(feature)
        return memory, self.read(memory, count + 1)

    def read(self, memory: Tensor, count: Tensor) -> Tensor:
        # summed anew each step: a running sum would drift
        return self._finish(memory.sum(1) / count.clamp(1, self.window)[:, None], count)


class RecurrentSet(DeepSet):
    """A deep set of two means: over the window, and beside it over all of the episode so far.

    A point at rest is told how far off it is but not to which side; what its approach had told is in the second mean.
    """

    means = 2

    def windows(self, features: Tensor, count: Tensor) -> Tensor:
        raise TypeError("a recurrent context has no windows: encode episodes")

    def at(self, features: Tensor, times: Tensor) -> Tensor:
        step = torch.arange(features.shape[1], device=features.device)
        past = step < times[..., None]  # (B, M, H)
        recent = past & (step >= times[..., None] - self.window)
        weighed = self.weigh(features)
        return self._finish(torch.cat([_shares(mask) @ weighed for mask in (recent, past)], -1), times)

    def episodes(self, features: Tensor) -> Tensor:
        weighed, horizon = self.weigh(features), features.shape[1]
        means = torch.cat([window_means(weighed, size) for size in (self.window, horizon)], -1)
        return self._finish(means, torch.arange(horizon + 1, device=means.device).expand(means.shape[:2]))

    def start(self, num: int) -> Tensor:
        return torch.zeros(num, self.window + 1, self.width, device=next(self.parameters()).device)

    def step(self, memory: Tensor, feature: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        memory, new = memory.clone(), self.weigh(feature)
        memory[torch.arange(len(memory), device=memory.device), count % self.window] = new
        memory[:, -1] += new  # the episode's sum: of numbers that are never negative, so that rounding stays small
        return memory, self.read(memory, count + 1)

    def read(self, memory: Tensor, count: Tensor) -> Tensor:
        recent = memory[:, :-1].sum(1) / count.clamp(1, self.window)[:, None]
        return self._finish(torch.cat((recent, memory[:, -1] / count.clamp(min=1)[:, None]), -1), count)


def _shares(mask: Tensor) -> Tensor:
    """Weights of a mean over the last dimension of a bool mask; all 0 where nothing is in it."""
    return mask.float() / mask.sum(-1, keepdim=True).clamp(min=1)


class Windowed(nn.Module, abc.ABC):
    """A network of the window itself: what comes before the episode's beginning is rows of 0."""

    def __init__(self, inputs: int, window: int) -> None:
        super().__init__()
        self.inputs, self.window = inputs, window

    @abc.abstractmethod
    def windows(self, features: Tensor, count: Tensor) -> Tensor:
        """(rows, window, inputs), of which the last `count` (rows,) are steps -> (rows, outputs)."""

    def episodes(self, features: Tensor) -> Tensor:
        batch, horizon, width = features.shape
        padded = torch.cat((features.new_zeros(batch, self.window, width), features), 1)
        every = padded.unfold(1, self.window, 1).transpose(2, 3).reshape(-1, self.window, width)
        count = torch.arange(horizon + 1, device=features.device).clamp(max=self.window).repeat(batch)
        parts = [self.windows(w, c) for w, c in zip(every.split(CHUNK), count.split(CHUNK))]
        return torch.cat(parts).view(batch, horizon + 1, -1)

    def start(self, num: int) -> Tensor:
        return torch.zeros(num, self.window, self.inputs, device=next(self.parameters()).device)

    def step(self, memory: Tensor, feature: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        memory = torch.cat((memory[:, 1:], feature[:, None]), 1)
        return memory, self.read(memory, count + 1)

    def read(self, memory: Tensor, count: Tensor) -> Tensor:
        return self.windows(memory, count.clamp(max=self.window))


class FlatMLP(Windowed):
    """Two hidden layers on the flattened window."""

    def __init__(self, inputs: int, hidden: int, outputs: int, window: int, layer_norm: bool) -> None:
        super().__init__(inputs, window)
        norm: list[nn.Module] = [nn.LayerNorm(hidden)] if layer_norm else []
        first = nn.Linear(inputs * window, hidden)
        self.net = nn.Sequential(first, *norm, nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.head = nn.Linear(hidden, outputs)

    def windows(self, features: Tensor, count: Tensor) -> Tensor:
        output: Tensor = self.head(self.net(features.flatten(1)))
        return output


class WindowGRU(Windowed):
    """The last hidden state of a GRU that reads the window; one cell update for each step of it."""

    def __init__(self, inputs: int, hidden: int, outputs: int, window: int, layer_norm: bool) -> None:
        super().__init__(inputs, window)
        self.gru, self.head = nn.GRU(inputs, hidden, batch_first=True), nn.Linear(hidden, outputs)
        self.norm = nn.LayerNorm(hidden) if layer_norm else nn.Identity()

    def windows(self, features: Tensor, count: Tensor) -> Tensor:
        output: Tensor = self.head(self.norm(self.gru(features)[1][0]).relu())
        return output


class RecurrentGRU(nn.Module):
    """A GRU that is carried through the episode: one cell update a step, and no window."""

    def __init__(self, inputs: int, hidden: int, outputs: int, layer_norm: bool) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(inputs, hidden, batch_first=True), nn.Linear(hidden, outputs)
        self.norm = nn.LayerNorm(hidden) if layer_norm else nn.Identity()

    def _finish(self, hidden: Tensor) -> Tensor:
        output: Tensor = self.head(self.norm(hidden).relu())
        return output

    def windows(self, features: Tensor, count: Tensor) -> Tensor:
        raise TypeError("a recurrent context has no windows: encode episodes")

    def at(self, features: Tensor, times: Tensor) -> Tensor:
        raw = self.episodes(features)
        return raw.gather(1, times[..., None].expand(-1, -1, raw.shape[-1]))

    def episodes(self, features: Tensor) -> Tensor:
        hidden = self.gru(features)[0]
        return self._finish(torch.cat((torch.zeros_like(hidden[:, :1]), hidden), 1))

    def start(self, num: int) -> Tensor:
        return torch.zeros(num, self.gru.hidden_size, device=self.head.weight.device)

    def step(self, memory: Tensor, feature: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        memory = self.gru(feature[:, None], memory[None])[1][0]
        return memory, self._finish(memory)

    def read(self, memory: Tensor, count: Tensor) -> Tensor:
        return self._finish(memory)


class TaskModel(nn.Module):
    """Encoder, decoders of the next state and of the reward, and the head that tells the family from z.

    Args: obs_dim (ds), action_dim (da) of the toy; num_families (C).
    """

    def __init__(self, cfg: InferenceConfig, obs_dim: int, action_dim: int, num_families: int) -> None:
        super().__init__()
        self.latent, self.classes = cfg.latent_dim, num_families if cfg.prior == "gmm" else 0
        self.predict_delta = cfg.predict_delta
        inputs = 3 * obs_dim + 2
        hidden, outputs = max(cfg.hidden, 5 * (2 * obs_dim + 1)), 2 * cfg.latent_dim
        if self.classes:
            outputs = self.classes * (2 * cfg.latent_dim + 1)
        self.encoder = make_encoder(cfg, inputs, hidden, outputs)
        joined = obs_dim + action_dim + cfg.latent_dim
        self.state_decoder = decoder([joined, cfg.decoder_hidden, cfg.decoder_hidden, obs_dim], cfg.layer_norm)
        self.reward_decoder = decoder([joined, cfg.decoder_hidden, cfg.decoder_hidden, 1], cfg.layer_norm)
        self.family_head = decoder([cfg.latent_dim, cfg.decoder_hidden, num_families], cfg.layer_norm)

    def posterior(self, raw: Tensor) -> Posterior:
        """The encoder's outputs (..., O) as a distribution; log variances are kept in [-10, 4]."""
        if not self.classes:
            mean, log_var = raw.chunk(2, -1)
            return Posterior(mean, log_var.clamp(LOG_VAR_MIN, LOG_VAR_MAX))
        logits, rest = raw[..., : self.classes], raw[..., self.classes :].unflatten(-1, (self.classes, -1))
        means, scale = rest.chunk(2, -1)
        log_vars = 2.0 * nn.functional.softplus(scale).clamp(min=1e-6).log()  # std by softplus, as TIGR has it
        log_vars = log_vars.clamp(LOG_VAR_MIN, LOG_VAR_MAX)
        return Posterior(*combine_classes(logits, means, log_vars), logits, means, log_vars)

    def decode(self, s: Tensor, a: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Next states (B, K, ds) and rewards (B, K, 1) from states (B, K, ds), actions (B, K, da) and z (B, L).

        All in the scale of the features.
        """
        joined = torch.cat((s, a, z[:, None].expand(-1, s.shape[1], -1)), -1)
        state: Tensor = self.state_decoder(joined)
        return s + state if self.predict_delta else state, self.reward_decoder(joined)

    def families(self, z: Tensor) -> Tensor:
        """Logits (..., C) of z (..., L)."""
        logits: Tensor = self.family_head(z)
        return logits


def make_encoder(cfg: InferenceConfig, inputs: int, hidden: int, outputs: int) -> DeepSet | Windowed | RecurrentGRU:
    """The encoder that `cfg` asks for."""
    recurrent = cfg.context == "recurrent"
    if recurrent and cfg.encoder == "gru":
        return RecurrentGRU(inputs, hidden, outputs, cfg.layer_norm)
    kinds: dict[str, Any] = {"deepset": RecurrentSet if recurrent else DeepSet, "mlp": FlatMLP, "gru": WindowGRU}
    made: DeepSet | Windowed = kinds[cfg.encoder](inputs, hidden, outputs, cfg.window, cfg.layer_norm)
    return made
