"""Rolling a world model open-loop over windows of episodes, many at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from prismatic.analysis.openloop import Array, Episode, Rolled, cut
from prismatic.model import WorldModel
from prismatic.moe import Gate

NUMBERS = 2**23  # of latent states at once: with their float64 copies about 300 MB


@torch.inference_mode()
def roll(
    model: WorldModel, task: int, episodes: Sequence[Episode], starts: Array, horizon: int, rows: int | None = None
) -> Rolled:
    """Follow the true actions from Enc(o_0) of each window, and compare with what came.

    Args: task: its index in this model; starts (R, 2) int64, R > 0, see `window_starts`; rows: windows at a time.
    """
    where, ids = model.bins.device, torch.tensor(task, device=model.bins.device)
    _, episode = np.unique(starts[:, 0], return_inverse=True)
    count, size = int(episode.max()) + 1, model.latent_dim
    z_sum = torch.zeros(count, horizon, size, dtype=torch.float64, device=where)
    z_square = torch.zeros(count, horizon, dtype=torch.float64, device=where)
    parts: list[list[Tensor]] = []
    shares: list[dict[str, Tensor]] = []
    step = rows or max(1, NUMBERS // (horizon * size))
    for first in range(0, len(starts), step):
        chosen = slice(first, first + step)
        obs, action, reward = (torch.from_numpy(x).to(where) for x in cut(episodes, starts[chosen], horizon))
        true = model.encode(pad(obs, (0, model.obs_dim - obs.shape[-1])), ids)  # (H + 1, R, D)
        action = pad(action, (0, model.action_dim - action.shape[-1]))
        rolled, predicted, gates = _follow(model, true[0], action, ids)
        seen, members = true[1:].double(), torch.from_numpy(episode[chosen]).to(where)
        z_sum.index_add_(0, members, seen.transpose(0, 1))
        z_square.index_add_(0, members, seen.square().sum(2).T)
        parts.append([_gap(rolled[1:], seen), _gap(true[:1], seen), predicted.double(), reward.double()])
        shares.append(gates)
    latent, static, guess, truth = (torch.cat(column, 1).cpu().numpy() for column in zip(*parts))
    weights = {name: torch.cat([part[name] for part in shares]).cpu().numpy() for name in shares[0]}
    return Rolled(episode, latent, static, guess, truth, z_sum.cpu().numpy(), z_square.cpu().numpy(), weights)


def _gap(z: Tensor, seen: Tensor) -> Tensor:
    """Squared error (H, R), mean over features."""
    return (z - seen).square().mean(2)


def _follow(model: WorldModel, z: Tensor, action: Tensor, task: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """From z (R, D) along action (H, R, A).

    Returns: states (H + 1, R, D); rewards (H, R); the gates (R, K) of each block with experts at the first step.
    """
    dynamics: list[Gate] = []
    reward: list[Gate] = []
    states = [z]
    for t in range(len(action)):
        states.append(model.next(states[t], action[t], task, dynamics))
    path = torch.stack(states)
    predicted = model.value(model.reward(path[:-1], action, task, reward))
    return path, predicted, {"dynamics": dynamics[0].p, "reward": reward[0].p[0]} if dynamics else {}
