"""Saved policies as actors in envs: a collective one, told the task in its own way at every step, or experts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from collective import experts
from collective.agent import Collective
from collective.config import ACTION_DIM
from collective.rollout import Array
from collective.windows import Rolling


@dataclass(frozen=True)
class Told:
    """`policy` in envs of `tasks`."""

    policy: Collective
    tasks: tuple[str, ...]
    deterministic: bool = True

    def act(self, obs: Array, rolling: Rolling, task: Array) -> Array:
        """(N, 4): one encoder forward for all envs."""
        number = self.policy.numbers(self.tasks)[task]
        return self.policy.act(self.policy.inputs(obs, rolling, number), self.deterministic)


class Experts:
    """Trained experts of `tasks`, each in its own envs.

    Raises: DataError where the run has none for one of them.
    """

    def __init__(self, run: Path, tasks: tuple[str, ...], deterministic: bool = True) -> None:
        self.experts = experts.load_all(run, tasks)
        self.deterministic = deterministic

    def act(self, obs: Array, rolling: Rolling, task: Array) -> Array:
        """(N, 4)."""
        action = np.empty((len(obs), ACTION_DIM), np.float32)
        for number in np.unique(task):
            own = task == number
            action[own] = self.experts[int(number)].act(obs[own], self.deterministic)
        return action
