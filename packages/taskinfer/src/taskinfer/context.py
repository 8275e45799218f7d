"""What the encoder is shown: transitions (s, r, s'), compressed. Actions are left out, so that any body will do.

`T` is the length of the window, `H` that of the longest episode, `F` = 3 ds + 2 the size of a feature.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from taskinfer.config import InferenceConfig


class Episodes(NamedTuple):
    """B episodes, padded to the longest; rows at and after `length` may hold anything."""

    obs: Tensor  # (B, H + 1, ds)
    action: Tensor  # (B, H, da)
    reward: Tensor  # (B, H)
    length: Tensor  # (B,) int64, transitions
    family: Tensor  # (B,) int64, ids of taskinfer.tasks.Family
    spec: Tensor  # (B,)
    task_id: Tensor  # (B,) int64

    def rows(self, which: Any) -> Episodes:
        """The episodes in `which`: indices, a slice or a mask."""
        return Episodes(*(tensor[which] for tensor in self))


def symlog(x: Tensor) -> Tensor:
    """sign(x) log(1 + |x|), elementwise (Hafner et al. 2023, arXiv:2301.04104, eq. 9): far goals stay apart."""
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    """The inverse of `symlog`."""
    return x.sign() * x.abs().expm1()


def transition(s: Tensor, r: Tensor, s2: Tensor, cfg: InferenceConfig) -> Tensor:
    """[s, r, s'] (..., 2 ds + 1) of states (..., ds), rewards (...), next states (..., ds), compressed if `cfg.symlog`.

    Whatever the task, standing still at the start pays -1, and what tells a far goal from a farther one is how little
    a step's reward differs from that. So it is 1 + r that is compressed, `cfg.reward_scale` times enlarged.
    """
    if not cfg.symlog:
        return torch.cat((s, r.unsqueeze(-1), s2), -1)
    return symlog(torch.cat((s, cfg.reward_scale * (1.0 + r.unsqueeze(-1)), s2), -1))


def feature(s: Tensor, r: Tensor, s2: Tensor, before: Tensor, cfg: InferenceConfig) -> Tensor:
    """(..., F): the transition and, `cfg.change_scale` times enlarged, what changed in it: [s, r, s', s' - s, r - r-].

    before: r-, the reward (...) of the step before, which paid for s; of an episode's first step its own. One reward
    tells how far off the target is, two tell to which side, and a mean over steps forgets which of them came first.
    """
    change = torch.cat((s2 - s, (r - before).unsqueeze(-1)), -1)
    change = symlog(cfg.change_scale * change) if cfg.symlog else change
    return torch.cat((transition(s, r, s2, cfg), change), -1)


def all_features(episodes: Episodes, cfg: InferenceConfig) -> Tensor:
    """(B, H, F) of every transition; rows at and after an episode's end are 0."""
    reward = episodes.reward
    before = torch.cat((reward[:, :1], reward[:, :-1]), 1)
    made = feature(episodes.obs[:, :-1], reward, episodes.obs[:, 1:], before, cfg)
    inside = torch.arange(made.shape[1], device=made.device) < episodes.length[:, None]
    return torch.where(inside[..., None], made, 0.0)


def windows(episodes: Episodes, times: Tensor, cfg: InferenceConfig) -> tuple[Tensor, Tensor]:
    """The `cfg.window` transitions before each time, oldest first: features (B, M, T, F) and their number (B, M).

    What lies before the episode's beginning is 0. times (B, M) int64, 0 <= time <= length.
    """
    size = cfg.window
    index = times[..., None] + torch.arange(-size, 0, device=times.device)  # (B, M, T)
    known, index = index >= 0, index.clamp(min=0)
    return torch.where(known[..., None], _steps(all_features(episodes, cfg), index), 0.0), times.clamp(max=size)


def transitions(episodes: Episodes, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(s, r, s') of steps index (B, ...) int64 of each episode: (B, ..., ds), (B, ...), (B, ..., ds)."""
    reward = episodes.reward.gather(1, index.flatten(1)).view(index.shape)
    return _steps(episodes.obs, index), reward, _steps(episodes.obs, index + 1)


def _steps(values: Tensor, index: Tensor) -> Tensor:
    """(B, ..., E) of values (B, H, E) at steps index (B, ...)."""
    row = torch.arange(len(index), device=index.device).view(-1, *[1] * (index.ndim - 1))
    at = (index + row * values.shape[1]).flatten()  # of the flat array: indexing with two tensors is 8 times slower
    return values.flatten(0, 1).index_select(0, at).view(*index.shape, -1)


def window_means(values: Tensor, size: int) -> Tensor:
    """Means of the last min(t, T) of values (B, H, E) before every time t = 0..H: (B, H + 1, E); 0 at t = 0.

    By prefix sums, (S_t - S_{t-T}) / min(t, T), in float64, whose differences lose nothing that float32 would keep.
    """
    horizon = values.shape[1]
    sums = torch.nn.functional.pad(values.double().cumsum(1), (0, 0, 1, 0))  # S_0 = 0 before S_1 .. S_H
    late = sums.clone()
    late[:, size:] -= sums[:, : max(0, horizon + 1 - size)]
    count = torch.arange(horizon + 1, device=values.device).clamp(1, size)
    return (late / count[:, None]).to(values.dtype)


def masked_means(values: Tensor, count: Tensor) -> Tensor:
    """Means (N, E) of the last `count` (N,) rows of values (N, T, E); 0 where there are none."""
    size = values.shape[1]
    known = torch.arange(size, device=values.device) >= size - count[:, None]
    return (values * known[..., None]).sum(1) / count.clamp(min=1)[:, None]
