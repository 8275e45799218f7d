"""Episodes as they were lived, in one preallocated ring; and what the inference model is trained on, drawn from it.

Every row is one episode with its length, family, spec and task id: nothing that is drawn can cross into another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rlcore.buffer import Field, ReplayBuffer
from rlcore.errors import UsageError
from taskinfer import context
from taskinfer.config import InferenceConfig
from taskinfer.context import Episodes

Array = np.ndarray[Any, Any]


# (episodes, where they were after each step (B, H, ds) if that is not what was observed, draws) -> episodes
Relabel = Callable[[Episodes, Tensor | None, np.random.Generator], Episodes]


class EpisodeRing:
    """The newest `capacity` episodes of at most `horizon` steps.

    Saves and loads as rlcore's replay does: append-only files with checksums, the cursor and the random stream apart.

    Args:
        obs_dim (ds), action_dim (da).
        rng: draws episodes and times; saved with them.
        relabel: what is done to drawn episodes, with that rng; see taskinfer.relabel.
        noisy: observations hold noise, and what they would be without it is kept beside them.
    """

    def __init__(
        self, capacity: int, horizon: int, obs_dim: int, action_dim: int, rng: np.random.Generator,
        device: str | torch.device = "cpu", relabel: Relabel | None = None, noisy: bool = False,
    ) -> None:  # fmt: skip
        self.horizon, self.rng, self.device, self.relabel = horizon, rng, torch.device(device), relabel
        fields = {
            "obs": Field((horizon + 1, obs_dim)), "action": Field((horizon, action_dim)), "reward": Field((horizon,)),
            "length": Field((), "int64"), "family": Field((), "int64"), "spec": Field(), "task_id": Field((), "int64"),
        }  # fmt: skip
        if noisy:
            fields["place"] = Field((horizon, obs_dim))
        self.rows = ReplayBuffer(fields, capacity, device=device, rng=rng)

    def __len__(self) -> int:
        return len(self.rows)

    def add(
        self, obs: Array, action: Array, reward: Array, length: Array, family: Array, spec: Array, task_id: Array,
        place: Array | None = None,
    ) -> None:  # fmt: skip
        """Store n episodes: the arrays of `Episodes`, n first. What lies after an episode's end is stored as 0.

        The action is what the actor gave, before anything was made of it. place: (n, H, ds) what would have been
        observed after each step without noise; needed where there is some.
        """
        if not ((length >= 1) & (length <= self.horizon)).all():
            raise UsageError(f"episodes: lengths must be in 1 .. {self.horizon}, got {length.min()} .. {length.max()}")
        inside = np.arange(self.horizon) < length[:, None]
        first = np.concatenate((np.ones_like(inside[:, :1]), inside), 1)
        whole = {
            "obs": np.where(first[..., None], obs, 0.0), "action": np.where(inside[..., None], action, 0.0),
            "reward": np.where(inside, reward, 0.0), "length": length, "family": family, "spec": spec,
            "task_id": task_id,
        }  # fmt: skip
        if place is not None:
            whole["place"] = np.where(inside[..., None], place, 0.0)
        for i in range(len(length)):
            self.rows.add(**{name: values[i : i + 1] for name, values in whole.items()})

    def sample(self, num: int) -> Episodes:
        """`num` episodes, uniform with replacement. Valid until the next draw of as many."""
        drawn = dict(self.rows.sample(num))
        place = drawn.pop("place", None)
        episodes = Episodes(**drawn)
        return self.relabel(episodes, place, self.rng) if self.relabel else episodes

    def save(self, folder: Path) -> dict[str, Any]:
        """Append what is new to files in `folder`; returns the cursor for `load`."""
        return self.rows.save(folder)

    def load(self, folder: Path, cursor: Mapping[str, Any]) -> None:
        """Put back what `save` described. DataError where files are damaged or of another size."""
        self.rows.load(folder, cursor)

    def prune(self, folder: Path, keep: Iterable[Mapping[str, Any]]) -> None:
        """Delete the files that no cursor in `keep` needs."""
        self.rows.prune(folder, keep)


class Batch(NamedTuple):
    """What one update learns from: N = B M contexts, and K transitions of the same episode to decode from each."""

    features: Tensor  # (N, T, F), or (B, H, F) for a recurrent context
    known: Tensor  # (N,) transitions before it; for a recurrent context the time
    state: Tensor  # (N, K, ds), all four in the scale of the features
    action: Tensor  # (N, K, da)
    reward: Tensor  # (N, K, 1)
    next_state: Tensor  # (N, K, ds)
    family: Tensor  # (N,) ids


def draw_batch(ring: EpisodeRing, cfg: InferenceConfig) -> Batch:
    """`cfg.batch` contexts at uniform times of uniform episodes. Times and targets lie within each one's length."""
    episodes = ring.sample(cfg.batch // cfg.times)
    length = episodes.length
    times = (uniform(ring, len(length), cfg.times) * (length[:, None] + 1)).long().clamp(max=length[:, None])
    if cfg.context == "recurrent":
        features, count = context.all_features(episodes, cfg), times.flatten()
    else:
        windows, known = context.windows(episodes, times, cfg)
        features, count = windows.flatten(0, 1), known.flatten()
    drawn = uniform(ring, len(length), cfg.times * cfg.targets)
    index = (drawn * length[:, None]).long().clamp(max=length[:, None] - 1)
    made = context.transition(*context.transitions(episodes, index), cfg).view(cfg.batch, cfg.targets, -1)
    wide = index[..., None].expand(-1, -1, episodes.action.shape[-1])
    action = episodes.action.gather(1, wide).view(cfg.batch, cfg.targets, -1)
    size = episodes.obs.shape[-1]
    family = episodes.family.repeat_interleave(cfg.times)
    return Batch(features, count, made[..., :size], action, made[..., size : size + 1], made[..., size + 1 :], family)


def uniform(ring: EpisodeRing, *shape: int) -> Tensor:
    """Numbers in [0, 1) of the ring's own stream."""
    return torch.from_numpy(ring.rng.random(shape, np.float32)).to(ring.device)
