"""Other targets for what was lived: where the point was says what any target of its family would have paid.

An episode teaches about the place it was told of only; with other targets it teaches about those that no training task
has. Hindsight relabelling (Andrychowicz et al. 2017, arXiv:1707.01495), here with targets from the family's whole range
instead of places that were reached.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from taskinfer import tasks as task_rules
from taskinfer.config import ToyConfig
from taskinfer.context import Episodes
from taskinfer.data import Relabel
from taskinfer.envs.toy import state_of
from taskinfer.tasks import SIGN, TOY_RANGES, Family, Tasks

Array = np.ndarray[Any, Any]
_SIZES = np.array([sorted(map(abs, TOY_RANGES[family])) for family in Family], np.float32)
_SIGNS = np.array([SIGN[family] or 1 for family in Family], np.float32)


def draw_specs(family: Array, rng: np.random.Generator) -> Array:
    """(n,) targets of families (n,): half of them even over the toy's range, half even over its logarithm.

    Few of the even ones are near, and near targets ask for the greatest precision.
    """
    low, high = _SIZES[family].T
    share = rng.random(len(family), np.float32)
    nearest = np.maximum(low, 0.01 * high)  # a range that begins at 0 has no logarithm there
    size = np.where(rng.random(len(family)) < 0.5, low + share * (high - low), nearest * (high / nearest) ** share)
    return np.asarray(_SIGNS[family] * size, np.float32)


def other_targets(
    episodes: Episodes, place: Tensor | None, rng: np.random.Generator, *, toy: str, share: float
) -> Episodes:  # fmt: skip
    """The episodes, about `share` of them with another target of their family and the rewards that it would have paid.

    place: (B, H, ds) observations after each step as they would be without noise, which rewards do not feel; None
    where there is no noise.
    """
    chosen = rng.random(len(episodes.length)) < share
    family = episodes.family.cpu().numpy()[chosen]
    place = episodes.obs[:, 1:] if place is None else place
    where = place[torch.as_tensor(chosen, device=place.device)].cpu().numpy()
    tasks = Tasks.of(family=family, spec=draw_specs(family, rng))
    paid = task_rules.reward(tasks, state_of(toy, where.swapaxes(0, 1))).T
    spec, reward = episodes.spec.clone(), episodes.reward.clone()
    spec[chosen] = torch.as_tensor(tasks.spec, device=spec.device)
    reward[chosen] = torch.as_tensor(paid, device=reward.device)
    return episodes._replace(spec=spec, reward=reward)


def relabelling(cfg: ToyConfig) -> Relabel | None:
    """What a run's `EpisodeRing` does to the episodes that are drawn; None where its arm needs no other targets."""
    if cfg.arm != "inferred" or not cfg.relabel:
        return None
    return functools.partial(other_targets, toy=cfg.toy, share=cfg.relabel)
