"""Replay of windows from several tasks: one ring a task, batches in equal shares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prismatic.config import TaskSpec, TrainConfig
from prismatic.envs.tasks import TaskEnvs
from rlcore.buffer import Field, ReplayBuffer, predicted_bytes
from rlcore.vecenv import VecStep


def fields(obs_dim: int, action_dim: int) -> dict[str, Field]:
    """What a step stores. `next_obs` is the episode's own last one where it ends: no window crosses that."""
    flags = {name: Field((), "bool") for name in ("terminated", "truncated", "is_init")}
    return {
        "obs": Field((obs_dim,)), "action": Field((action_dim,)), "reward": Field(()), "next_obs": Field((obs_dim,)),
        **flags,
    }  # fmt: skip


def replay_bytes(cfg: TrainConfig, tasks: Sequence[TaskSpec]) -> int:
    """Memory of a TaskReplay, before there is one."""
    kinds = fields(max(t.obs_dim for t in tasks), max(t.action_dim for t in tasks))
    share = cfg.buffer_size // len(tasks)
    return len(tasks) * predicted_bytes(kinds, share, cfg.num_envs, window=cfg.horizon, within_episode=True)


class TaskReplay:
    """Windows of `horizon` steps within episodes.

    Args:
        widths: (obs, action), padded. rngs: one a task, it draws the windows.
    """

    def __init__(
        self, cfg: TrainConfig, widths: tuple[int, int], rngs: Sequence[np.random.Generator], device: torch.device
    ) -> None:
        self.horizon, self.device, self.turn = cfg.horizon, device, 0
        share = cfg.buffer_size // len(rngs)
        self.rings = [
            ReplayBuffer(
                fields(*widths), share, cfg.num_envs, window=cfg.horizon, within_episode=True, device=device, rng=rng
            )
            for rng in rngs
        ]
        self.parts = [Path(f"task{i}") for i in range(len(rngs))]

    def __len__(self) -> int:
        return sum(len(ring) for ring in self.rings)

    def add(self, obs: np.ndarray, action: np.ndarray, moved: VecStep, is_init: np.ndarray, rows: list[slice]) -> None:
        """One vector step (E, ...); `rows` are those of each task."""
        ended = moved.terminated | moved.truncated
        next_obs = np.where(ended[:, None], moved.final_obs, moved.obs)
        for ring, part in zip(self.rings, rows):
            ring.add(
                obs=obs[part], action=action[part], reward=moved.reward[part], next_obs=next_obs[part],
                terminated=moved.terminated[part], truncated=moved.truncated[part], is_init=is_init[part],
            )  # fmt: skip

    def sample(self, batch: int) -> dict[str, Tensor]:
        """(H, B, ...) a field, and `task` (B,); each task gets B / T windows, the remainder goes round."""
        count, extra = divmod(batch, len(self.rings))
        sizes = [count + ((i - self.turn) % len(self.rings) < extra) for i in range(len(self.rings))]
        self.turn = (self.turn + extra) % len(self.rings)
        drawn = [ring.sample_windows(size, self.horizon) for ring, size in zip(self.rings, sizes) if size]
        ids = torch.tensor([i for i, size in enumerate(sizes) for _ in range(size)], device=self.device)
        if len(drawn) == 1:
            return {**drawn[0], "task": ids}
        return {name: torch.cat([part[name] for part in drawn], 1) for name in drawn[0]} | {"task": ids}

    def obs_moments(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each task's stored observations, (T, O) each; of a single one the deviation is 0."""
        stored = []
        for ring in self.rings:
            slot, env = np.divmod(np.arange(len(ring)), ring.num_envs)
            stored.append(ring.windows(slot, env, 1)["obs"][0].double())
        mean = torch.stack([obs.mean(0) for obs in stored])
        std = torch.stack([obs.std(0, correction=0) for obs in stored])
        return mean.float(), std.float()

    def save(self, folder: Path) -> dict[str, Any]:
        cursors = []
        for ring, part in zip(self.rings, self.parts):
            (folder / part).mkdir(parents=True, exist_ok=True)
            cursors.append(ring.save(folder / part))
        return {"rings": cursors, "turn": self.turn}

    def load(self, folder: Path, cursor: Mapping[str, Any]) -> None:
        self.turn = int(cursor["turn"])
        for ring, part, saved in zip(self.rings, self.parts, cursor["rings"], strict=True):
            ring.load(folder / part, saved)

    def prune(self, folder: Path, keep: Iterable[Mapping[str, Any]]) -> None:
        kept = list(keep)
        for i, (ring, part) in enumerate(zip(self.rings, self.parts)):
            ring.prune(folder / part, [cursor["rings"][i] for cursor in kept])


def widths_of(envs: TaskEnvs) -> tuple[int, int]:
    """(obs, action) as padded."""
    return envs.single_observation_space.shape[0], envs.single_action_space.shape[0]
