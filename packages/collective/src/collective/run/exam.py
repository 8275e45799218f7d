"""Evaluation of a learner: greedy episodes in envs of their own, the same ones each time."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from collective.agent import Collective
from collective.config_student import LearnConfig
from collective.envs import make
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
    """Envs to be evaluated in. They stay open until `close`, for to build them takes as long as to play.

    Their goals are shared out evenly among the 50, and each evaluation begins with the same episodes.
    """

    def __init__(self, cfg: LearnConfig, seed: int) -> None:
        copies = max(d for d in range(1, MAX_ENVS + 1) if cfg.eval_episodes % d == 0)
        self.each = cfg.eval_episodes // copies
        self.envs = make(
            (cfg.task,), seed=seed, copies=copies, goals="cycle", goal_seed=cfg.eval_goal_seed, horizon=cfg.horizon,
            reward_version=cfg.reward_version,
        )  # fmt: skip
        self.start = self.envs.state_dict()  # before the first episode

    def take(self, policy: Acting) -> Played:
        """As many episodes as the options say."""
        self.envs.load_state_dict(self.start)
        return play(policy, self.envs, self.each)

    def close(self) -> None:
        """Close the envs."""
        self.envs.close()


def row_of(played: Played) -> dict[str, float | int]:
    """The numbers of an evaluation: success at any step, as Meta-World counts it, and at the last one."""
    return {
        "return_mean": float(played.returns.mean()), "return_std": float(played.returns.std()),
        "success": float(played.success.mean()), "success_final": float(played.final.mean()),
        "episodes": len(played.returns),
    }  # fmt: skip
