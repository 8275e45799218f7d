"""What `train-worker` and `online-distill` share: a stack of learners in the envs of its tasks.

`N` tasks, `C` envs of each, which follow each other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from collective import envs as suites
from collective.config import ACTION_DIM
from collective.config_worker import ManyConfig
from collective.envs import TaskVec
from collective.experts import RewardNorm
from collective.rollout import play, scores
from collective.windows import Rolling
from rlblocks.sac import SAC
from rlcore.seeding import numpy_state, set_numpy_state
from rlcore.vecenv import EpisodeStats, VecStep

Array = np.ndarray[Any, Any]


def act(sac: SAC, obs: Array, deterministic: bool) -> Array:
    """Actions (N C, 4) of a stack of N for observations (N C, 39), C envs of each task."""
    action: Array = sac.act(obs.reshape(sac.agents, -1, obs.shape[-1]), deterministic)
    return action.reshape(len(obs), -1)


@dataclass(frozen=True)
class Greedy:
    """A stack, without noise, in as many envs of each of its tasks."""

    sac: SAC

    def act(self, obs: Array, rolling: Rolling, task: Array) -> Array:
        return act(self.sac, obs, deterministic=True)


def open_envs(cfg: ManyConfig, seed: int) -> TaskVec:
    """The training envs."""
    return suites.make(
        cfg.chosen, seed=seed, copies=cfg.num_envs, goals=cfg.goals, goal_seed=cfg.goal_seed, horizon=cfg.horizon,
        workers=cfg.workers, reward_version=cfg.reward_version,
    )  # fmt: skip


def score(sac: SAC, cfg: ManyConfig, seed: int) -> dict[str, Any]:
    """The numbers of an "eval" row: `eval_episodes` of each task in fresh envs, greedy, each with the next goal.

    success: at any step, as Meta-World counts it; success_final: at the last one. Means over all tasks, then each task.
    """
    envs = suites.make(
        cfg.chosen, seed=seed, goals="cycle", goal_seed=cfg.goal_seed, horizon=cfg.eval_horizon, workers=cfg.workers,
        reward_version=cfg.reward_version,
    )  # fmt: skip
    with contextlib.closing(envs):
        by_task = scores(play(Greedy(sac), envs, cfg.eval_episodes), cfg.chosen)
    keys, each = ("success", "success_final", "return_mean"), by_task.values()
    row = {key: float(np.mean([found[key] for found in each])) for key in keys}
    row |= {f"{key}/{task}": found[key] for key in keys for task, found in by_task.items()}
    row |= {f"success_env_index_{i}": found["success"] for i, found in enumerate(each)}  # as users' scripts know it
    return row | {"episodes": cfg.eval_episodes * len(by_task), "deterministic": 1}


def facts_of(cfg: ManyConfig, stage: str) -> dict[str, Any]:
    """For env.json: what the run is of."""
    return {
        "stage": stage, "env": ", ".join(cfg.chosen), "tasks": list(cfg.chosen), "horizon": cfg.horizon,
        "reward_version": cfg.reward_version, "goal_seed": cfg.goal_seed, "action_repeat": 1,
    }  # fmt: skip


def described(cfg: ManyConfig) -> dict[str, Any]:
    """What the manifest of a data set says of the envs."""
    return {
        "horizon": cfg.horizon, "reward_version": cfg.reward_version, "goal_seed": cfg.goal_seed, "seed": cfg.seed,
        "gamma": cfg.gamma,
    }  # fmt: skip


class FirstActions:
    """Actions before there is anything to learn from: uniform, each task's from a generator of its own."""

    def __init__(self, rngs: list[np.random.Generator], copies: int) -> None:
        self.rngs, self.copies = rngs, copies

    def draw(self) -> Array:
        """(N C, 4) in [-1, 1]."""
        return np.concatenate([rng.uniform(-1.0, 1.0, (self.copies, ACTION_DIM)) for rng in self.rngs]).astype(
            np.float32
        )

    def state_dict(self) -> dict[str, Any]:
        return {"rngs": [numpy_state(rng) for rng in self.rngs]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for rng, saved in zip(self.rngs, state["rngs"]):
            set_numpy_state(rng, saved)


class Tally:
    """Episodes under way, and what the updates since the last row came to, by task."""

    def __init__(self, tasks: tuple[str, ...], copies: int, where: torch.device, norm: bool) -> None:
        self.tasks, self.copies = tasks, copies
        self.stats, self.episodes = EpisodeStats(len(tasks) * copies), 0
        self.solved = np.zeros(len(tasks) * copies, bool)
        self.norm = RewardNorm(len(tasks), norm)
        self.sums: dict[str, Tensor] = {}  # of what updates return, (N,) each
        self.counts: dict[str, int] = {}
        self.worst = torch.zeros(len(tasks), device=where)  # critic loss

    def saw(self, moved: VecStep) -> list[tuple[str, float]]:
        """Count one step of all envs; what there is to average over the episodes that it ended."""
        self.norm.update(moved.reward.reshape(len(self.tasks), self.copies))
        done, success = moved.terminated | moved.truncated, moved.info["success"]
        self.solved |= success
        found: list[tuple[str, float]] = []
        for i, (total, length) in zip(np.flatnonzero(done), self.stats.update(moved.reward, done)):
            values = {
                "success": float(self.solved[i]), "success_final": float(success[i]), "episode_reward": total,
            }  # fmt: skip
            found += values.items()
            found += [("return_mean", total), ("length_mean", float(length))]
            if len(self.tasks) > 1:
                found += [(f"{name}/{self.tasks[i // self.copies]}", value) for name, value in values.items()]
        self.solved[done] = False
        self.episodes += int(done.sum())
        return found

    def learnt(self, metrics: Mapping[str, Tensor]) -> None:
        """Add what an update returned, () or (N,) each. Waits for no device."""
        for name, value in metrics.items():
            value = value.reshape(-1)
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1
        if "critic_loss" in metrics:
            self.worst = torch.maximum(self.worst, metrics["critic_loss"].reshape(-1).abs())  # NaN wins

    def read(self) -> dict[str, float]:
        """Means over the updates since the last call, over all tasks and for each; start afresh."""
        row: dict[str, float] = {}
        for name, total in self.sums.items():
            mean = (total / self.counts[name]).cpu()
            name, mean = ("entropy", -mean) if name == "cost" else (name, mean)
            row[name] = float(mean.mean())
            if len(self.tasks) > 1:
                row |= {f"{name}/{task}": float(value) for task, value in zip(self.tasks, mean)}
        self.sums, self.counts = {}, {}
        return row

    def state_dict(self) -> dict[str, Any]:
        """Everything that shapes the future, and the order of the tasks in the stack."""
        return {
            "tasks": list(self.tasks), "stats": self.stats.state_dict(), "solved": self.solved.copy(),
            "episodes": self.episodes, "norm": self.norm.state_dict(), "sums": dict(self.sums),
            "counts": dict(self.counts), "worst": self.worst,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.stats.load_state_dict(state["stats"])
        self.norm.load_state_dict(state["norm"])
        self.solved[:], self.episodes = np.asarray(state["solved"]), int(state["episodes"])
        where = self.worst.device
        self.sums = {name: value.to(where) for name, value in state["sums"].items()}
        self.counts, self.worst = dict(state["counts"]), state["worst"].to(where)
