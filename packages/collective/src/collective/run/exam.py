"""Evaluation of a learner: greedy episodes in envs of their own, the same ones each time."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from collective.agent import Collective
from collective.config_student import LearnConfig
from collective.envs import TaskVec, make
from collective.rollout import Acting, Played, play
from collective.windows import Rolling
from rlblocks.sac import SAC

Array = np.ndarray[Any, Any]
MAX_ENVS = 25  # at once


@dataclasses.dataclass(frozen=True)
class Plain:
    """A policy that sees the observation and nothing else, without noise."""

    sac: SAC

    def act(self, obs: Array, rolling: Rolling, task: Array) -> Array:
        return self.sac.act(obs, deterministic=True)


@dataclasses.dataclass(frozen=True)
class Coded:
    """A collective network, without noise. number: what it calls the task."""

    network: Collective
    number: int

    def act(self, obs: Array, rolling: Rolling, task: Array) -> Array:
        return self.network.act(self.network.inputs(obs, rolling, np.full(len(obs), self.number)))


class Exam:
    """Envs to be evaluated in: episode e has goal e (mod 50), and depends on the seed and on e alone.

    A single group of envs stays open until `close`, for to build them takes as long as to play; of several groups only
    one is open at a time.
    """

    def __init__(self, cfg: LearnConfig, seed: int) -> None:
        self.cfg, self.seed = cfg, seed
        episodes = cfg.eval_episodes
        self.sizes = [min(MAX_ENVS, episodes - first) for first in range(0, episodes, MAX_ENVS)]
        self.open: tuple[TaskVec, dict[str, Any]] | None = None  # a group, and its state before the first episode

    def take(self, policy: Acting) -> Played:
        """One episode of each env."""
        parts = []
        for i, size in enumerate(self.sizes):
            envs, start = self.open or self._make(i * MAX_ENVS, size)
            envs.load_state_dict(start)
            parts.append(play(policy, envs, 1))
            if len(self.sizes) == 1:
                self.open = envs, start
            else:
                envs.close()
        names = [field.name for field in dataclasses.fields(Played)]
        return Played(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def _make(self, first: int, size: int) -> tuple[TaskVec, dict[str, Any]]:
        cfg = self.cfg
        envs = make(
            (cfg.task,), seed=self.seed, copies=size, first_env=first, goals="cycle", goal_seed=cfg.eval_goal_seed,
            horizon=cfg.horizon, reward_version=cfg.reward_version,
        )  # fmt: skip
        return envs, envs.state_dict()

    def close(self) -> None:
        """Close the envs."""
        if self.open is not None:
            self.open[0].close()


def row_of(played: Played) -> dict[str, float | int]:
    """The numbers of an evaluation: success at any step, as Meta-World counts it, and at the last one."""
    return {
        "return_mean": float(played.returns.mean()), "return_std": float(played.returns.std()),
        "success_rate": float(played.success.mean()), "success_final": float(played.final.mean()),
        "episodes": len(played.returns),
    }  # fmt: skip
