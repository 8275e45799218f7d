"""Windows of demonstrations as batches of tensors: in random order, again and again, or all of them once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gasp.data import Array, Demos
from rlcore.seeding import numpy_state, set_numpy_state

CHUNK = 2_048  # windows encoded at once


class WindowSampler:
    """Endless batches; every window comes once before any comes again. The generator decides their order."""

    def __init__(
        self, demos: Demos, horizon: int, batch: int, rng: np.random.Generator, device: torch.device | str = "cpu"
    ) -> None:
        self.demos, self.horizon, self.batch, self.rng, self.device = demos, horizon, batch, rng, device
        self.starts = demos.starts(horizon)
        self.order = np.zeros(0, np.int64)  # what is left of this round

    def sample(self) -> tuple[Tensor, Tensor]:
        """obs (B, H + 1, S), action (B, H, A)."""
        while len(self.order) < self.batch:
            self.order = np.concatenate((self.order, self.rng.permutation(len(self.starts))))
        now, self.order = self.order[: self.batch], self.order[self.batch :]
        return tensors(self.demos, self.starts[now], self.horizon, self.device)

    def state_dict(self) -> dict[str, Any]:
        """Place in this round, and the generator."""
        return {"order": torch.from_numpy(self.order.copy()), "rng": numpy_state(self.rng)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.order = state["order"].numpy().copy()
        set_numpy_state(self.rng, state["rng"])


def tensors(demos: Demos, starts: Array, horizon: int, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Windows from rows `starts` (B,) as tensors: obs (B, H + 1, S), action (B, H, A)."""
    obs, action = demos.gather(starts, horizon)
    return torch.from_numpy(obs).to(device), torch.from_numpy(action).to(device)


def evenly(demos: Demos, horizon: int, most: int) -> Array:
    """(W,) starts of at most `most` windows, evenly spaced over the demonstrations."""
    starts = demos.starts(horizon)
    return starts[np.linspace(0, len(starts) - 1, min(most, len(starts))).astype(np.int64)]


def batches(
    demos: Demos, starts: Array, horizon: int, device: torch.device | str = "cpu"
) -> Iterator[tuple[Tensor, Tensor]]:
    """The windows from `starts`, in order, so many at a time that nothing grows with their number."""
    for begin in range(0, len(starts), CHUNK):
        yield tensors(demos, starts[begin : begin + CHUNK], horizon, device)
