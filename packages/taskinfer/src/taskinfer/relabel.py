"""Other targets for what was lived: where the point was says what any target of its family would have paid.

An episode teaches about the place it was told of only; with other targets it teaches about those that no training task
has. Hindsight relabelling (Andrychowicz et al. 2017, arXiv:1707.01495), here with targets from the family's whole range
instead of places that were reached.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from taskinfer import tasks as task_rules
from taskinfer.context import Episodes
from taskinfer.envs.toy import state_of
from taskinfer.tasks import SIGN, TOY_RANGES, Family, Tasks

Array = np.ndarray[Any, Any]
_SIZES = np.array([sorted(map(abs, TOY_RANGES.get(family, (1.0, 1.0)))) for family in Family], np.float32)
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


def other_targets(episodes: Episodes, rng: np.random.Generator, *, toy: str, share: float) -> Episodes:
    """The episodes, about `share` of them with another target of their family and the rewards that it would have paid.

    Rewards are those of what was observed: where the toy's observations are noisy, so are they.
    """
    chosen = rng.random(len(episodes.length)) < share
    family = episodes.family.cpu().numpy()[chosen]
    where = episodes.obs[torch.as_tensor(chosen)].cpu().numpy()[:, 1:]
    tasks = Tasks.of(family=family, spec=draw_specs(family, rng))
    paid = task_rules.reward(tasks, state_of(toy, where.swapaxes(0, 1))).T
    spec, reward = episodes.spec.clone(), episodes.reward.clone()
    spec[chosen] = torch.as_tensor(tasks.spec, device=spec.device)
    reward[chosen] = torch.as_tensor(paid, device=reward.device)
    return episodes._replace(spec=spec, reward=reward)
