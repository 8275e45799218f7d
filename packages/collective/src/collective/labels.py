"""What the experts of tasks would do: scripts, or soft actor-critics that were trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from collective import envs
from collective.config import ACTION_DIM
from collective.data import Array, Dataset
from collective.losses import LOG_STD_SCRIPTED


class Labels:
    """The experts of `tasks`: those of a run of `collective train-worker`, or the scripts where `run` is None.

    Raises: DataError where the run has no expert for one of the tasks.
    """

    def __init__(self, tasks: Sequence[str], run: Path | None) -> None:
        self.tasks, self.experts = tuple(tasks), None
        if run is not None:
            from collective import experts

            self.experts = experts.load_all(run, tasks)

    def of(self, obs: Array, task: Array) -> tuple[Array, Array]:
        """Mean (N, 4) in [-1, 1] and log-std (N, 4) before squashing, for obs (N, 39) of task numbers (N,)."""
        if self.experts is None:
            mean = envs.script_actions(self.tasks, task, obs)
            return mean, np.full_like(mean, LOG_STD_SCRIPTED)
        mean, log_std = np.empty((2, len(obs), ACTION_DIM), np.float32)
        for number in np.unique(task):
            own = task == number
            mean[own], log_std[own] = self.experts[int(number)].proposal(obs[own])
        return mean, log_std

    def judge(self, data: Dataset) -> Dataset:
        """The same rows with the values of trained experts; scripts have none."""
        if self.experts is None:
            return data
        from collective import experts

        return experts.relabel(data, self.experts, q_only=True)
