"""Small agents and batches that several files of tests use."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import settings
from torch import Tensor

from rlblocks.config import SACConfig
from rlblocks.sac import SAC

OBS, ACT, ROWS = 5, 2, 16
CFG = SACConfig(hidden=(32, 24), actor_lr=1e-3, critic_lr=2e-3, alpha_lr=3e-3, alpha=0.2, tau=0.01)
FEW = settings(max_examples=20)


def tensor(*values: float) -> Tensor:
    return torch.tensor(values)


def make(cfg: SACConfig = CFG, seeds: tuple[int, ...] = (0,), **options: Any) -> SAC:
    return SAC(cfg, OBS, ACT, seeds=seeds, **options)


def make_batch(seed: int, *lead: int, tasks: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draw = {name: torch.randn(*lead, n, generator=generator) for name, n in (("obs", OBS), ("next_obs", OBS))}
    return draw | {
        "action": torch.rand(*lead, ACT, generator=generator) * 2 - 1,
        "reward": torch.randn(*lead, generator=generator),
        "discount": 0.99 * (torch.rand(*lead, generator=generator) > 0.2),
        "task_id": torch.randint(tasks, lead, generator=generator),
    }


def make_noise(seed: int, agents: int = 1, rows: int = ROWS) -> Tensor:
    return torch.randn(2, agents, rows, ACT, generator=torch.Generator().manual_seed(seed))


def close(got: Tensor, want: Tensor, atol: float) -> None:
    torch.testing.assert_close(got, want, atol=atol, rtol=0)
