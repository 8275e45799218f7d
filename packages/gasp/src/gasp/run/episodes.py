"""Episodes of a high-level policy in envs of their own: scores, and which skills it chose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from gasp.agent import Agent, How
from gasp.hierarchy import Rollout, Usage
from gasp.run.setting import Setting
from rlcore.seeding import derive, numpy_generator
from rlcore.vecenv import VecEnv

Array = np.ndarray[Any, Any]
MAX_ENVS = 20  # at once


@dataclass(frozen=True)
class Played:
    """E episodes, and the D decisions in them."""

    returns: Array  # (E,) undiscounted
    lengths: Array  # (E,) env steps
    successes: Array  # (E,) bool
    completed: Array  # (E, subtasks) bool, at the end; (E, 0) where there are none
    obs: Array  # (D, S) at each decision
    z: Array  # (D, Z)
    episode: Array  # (D,)
    counts: Array  # (K,) decisions for each component; (0,) without a mixture
    transitions: Array  # (K, K) from, to

    @classmethod
    def joined(cls, parts: list[Played]) -> Played:
        """All of them as one."""
        columns = {field.name: [getattr(part, field.name) for part in parts] for field in fields(cls)}
        return cls(**{k: sum(v) if k in ("counts", "transitions") else np.concatenate(v) for k, v in columns.items()})

    def row(self, subtasks: tuple[str, ...]) -> dict[str, float]:
        """The numbers of an evaluation."""
        found = {
            "return_mean": float(self.returns.mean()), "return_std": float(self.returns.std()),
            "length_mean": float(self.lengths.mean()), "success_rate": float(self.successes.mean()),
        }  # fmt: skip
        if subtasks:
            found["subtasks_mean"] = float(self.completed.sum(1).mean())
            found |= {done_key(name): float(rate) for name, rate in zip(subtasks, self.completed.mean(0))}
        return found


def done_key(subtask: str) -> str:
    """Name of the share of episodes in which a subtask was done: done_light_switch."""
    return f"done_{subtask.replace(' ', '_')}"


class Stage:
    """Envs to be evaluated in; episode e is episode 0 of env e, so it depends on the seed and on e alone.

    A single group of envs stays open until `close`, for to build them takes longer than to play. Of several groups only
    one is open at a time: a kitchen takes 80 MiB.
    """

    def __init__(self, setting: Setting, episodes: int, seed: int) -> None:
        self.setting, self.seed = setting, seed
        self.sizes = [min(MAX_ENVS, episodes - first) for first in range(0, episodes, MAX_ENVS)]
        self.open: tuple[VecEnv, dict[str, Any]] | None = None  # a group, and its state at the start

    def play(self, agent: Agent, kinds: Mapping[str, How]) -> dict[str, Played]:
        """One episode of each env for each kind, with skills chosen as `Agent.choose` says."""
        rngs = {name: numpy_generator(self.seed, "skills", how) for name, how in kinds.items()}
        parts: dict[str, list[Played]] = {name: [] for name in kinds}
        for i, size in enumerate(self.sizes):
            vec, start = self.open or self._make(i * MAX_ENVS, size)
            for name, how in kinds.items():
                vec.load_state_dict(start)
                parts[name].append(_one_each(self.setting, agent, how, vec, rngs[name], i * MAX_ENVS))
            if len(self.sizes) == 1:
                self.open = vec, start
            else:
                vec.close()
        return {name: Played.joined(found) for name, found in parts.items()}

    def _make(self, first: int, size: int) -> tuple[VecEnv, dict[str, Any]]:
        vec = self.setting.make(size, derive(self.seed, "starts"), first)
        vec.reset()
        return vec, vec.state_dict()

    def close(self) -> None:
        """Close the envs."""
        if self.open is not None:
            self.open[0].close()


def _one_each(setting: Setting, agent: Agent, how: How, vec: VecEnv, rng: np.random.Generator, first: int) -> Played:
    """One episode of each env, numbered from `first`.

    An env whose episode has ended is stepped on, unheard, until the others are done.
    """
    n, spec = vec.num_envs, setting.spec
    usage = Usage(setting.components, n) if setting.components else None
    rollout = Rollout(n, spec.obs_dim, agent.skill_dim, setting.horizon)
    returns, lengths, successes = np.zeros(n), np.zeros(n, np.int64), np.zeros(n, bool)
    completed, running = np.zeros((n, len(spec.subtasks)), bool), np.ones(n, bool)
    said: list[tuple[Array, Array, Array]] = []
    obs = vec.current_obs
    while running.any():
        if (envs := rollout.asking()).size:
            rollout.begin(envs, obs[envs], agent.choose(obs[envs], how, rng))
            heard = envs[running[envs]]
            said.append((rollout.obs[heard], rollout.z[heard], heard + first))
            if usage and heard.size:
                usage.saw(heard, rollout.z[heard])
        step = vec.step(agent.act(obs, rollout.z))
        rollout.advance(step)
        returns += np.where(running, step.reward, 0.0)
        lengths += running
        ended = running & (step.terminated | step.truncated)
        successes[ended] = step.info["success"][ended]
        if spec.subtasks:
            completed[ended] = step.info["completed"][ended]
        running &= ~ended
        obs = step.obs
    k = (usage.counts, usage.transitions) if usage else (np.zeros(0, np.int64), np.zeros((0, 0), np.int64))
    return Played(returns, lengths, successes, completed, *(np.concatenate(column) for column in zip(*said)), *k)
