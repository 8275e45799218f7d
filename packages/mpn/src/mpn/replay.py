"""Replay of windows for a learner with a memory: each starts from the memory that the actor had there.

Without it, a window that begins after the cue shows the learner a decision whose reason it cannot know: on the T-maze,
nine windows in eleven were such noise, and nothing was learnt in 30,000 steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mpn.config import TrainConfig
from mpn.model import State, map_state
from rlcore.buffer import Field, ReplayBuffer

Array = np.ndarray[Any, Any]


class SequenceReplay:
    """Steps of N envs, and the memory before every `store_state_every`-th of them, where windows then begin.

    Windows may span episodes: `is_init` empties the memory inside them, and nothing is padded.

    Args:
        example: an initial state of one env; its shape tells what a stored memory looks like.
    """

    def __init__(
        self, cfg: TrainConfig, obs_dim: int, example: State, rng: np.random.Generator, device: torch.device
    ) -> None:
        self.cfg, self.device = cfg, device
        self.every = cfg.resolved_store_state
        self.stride = max(self.every, 1)
        slots = cfg.buffer_size // cfg.num_envs // self.stride * self.stride
        fields = {
            "obs": Field((obs_dim,)), "action": Field((), "int64"), "reward": Field(), "is_init": Field((), "bool"),
            "terminated": Field((), "bool"), "truncated": Field((), "bool"),
        }  # fmt: skip
        n = cfg.num_envs
        self.steps = ReplayBuffer(fields, slots * n, n, window=cfg.window, device=device, rng=rng)
        self.shapes = [tuple(s.shape[1:]) for s in (example if isinstance(example, tuple) else (example,))]
        self.single = not isinstance(example, tuple)
        self.states = None
        if self.every:
            width = sum(int(np.prod(shape)) for shape in self.shapes)
            self.states = ReplayBuffer(
                {"state": Field((width,))}, slots // self.stride * n, n, device=device, rng=np.random.default_rng(0)
            )

    def remember(self, memory: Any) -> None:
        """Store the memory (N, ...) that the next step starts from, if a window may begin there. Call before acting."""
        if self.states is not None and self.steps.cursor % self.every == 0:
            parts = memory if isinstance(memory, tuple) else (memory,)
            flat = [
                np.asarray(part.cpu() if isinstance(part, Tensor) else part).reshape(len(part), -1) for part in parts
            ]
            self.states.add(state=np.concatenate(flat, axis=1))

    def add(self, **step: Any) -> None:
        """Store one step of every env."""
        self.steps.add(**step)

    @property
    def ready(self) -> bool:
        """Whether it holds a window that begins where a memory is stored."""
        return self.steps.total >= self.cfg.window

    def sample(self, batch: int) -> tuple[dict[str, Tensor], State | None]:
        """Windows (K + L + 1, B, ...) and the memory before each (B, ...), None for empty ones."""
        slot, env = self.steps.starts(batch, self.cfg.window, self.stride)
        windows = self.steps.windows(slot, env, self.cfg.window)
        if self.states is None:
            return windows, None
        flat = self.states.windows(slot // self.every, env, 1)["state"][0]
        sizes = [int(np.prod(shape)) for shape in self.shapes]
        parts = tuple(p.reshape(batch, *shape) for p, shape in zip(torch.split(flat, sizes, 1), self.shapes))
        return windows, map_state(torch.clone, parts[0] if self.single else parts)

    def save(self, folder: Path) -> dict[str, Any]:
        """Append what is new to files in `folder`; returns the cursor for `load`."""
        return {name: buffer.save(_made(folder / name)) for name, buffer in self._buffers().items()}

    def load(self, folder: Path, cursor: Mapping[str, Any]) -> None:
        """Put back what `save` described. DataError where files are damaged or belong to another configuration."""
        for name, buffer in self._buffers().items():
            buffer.load(folder / name, cursor[name])

    def prune(self, folder: Path, keep: Iterable[Mapping[str, Any]]) -> None:
        """Delete the files that no cursor in `keep` needs."""
        kept = list(keep)
        for name, buffer in self._buffers().items():
            buffer.prune(folder / name, [cursor[name] for cursor in kept])

    def _buffers(self) -> dict[str, ReplayBuffer]:
        return {"steps": self.steps} | ({} if self.states is None else {"states": self.states})


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder
