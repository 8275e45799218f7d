"""Episodes of a high-level policy in envs of their own: scores, and which skills it chose."""

from __future__ import annotations

import contextlib
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
    """Envs to be evaluated in. They stay open, for to build them takes longer than to play; episodes never differ.

    Episode e is episode 0 of env e: it depends on the seed and on e alone.
    """

    def __init__(self, setting: Setting, episodes: int, seed: int) -> None:
        self.setting, self.seed = setting, seed
        self.sizes = [min(MAX_ENVS, episodes - first) for first in range(0, episodes, MAX_ENVS)]
        self.open: list[VecEnv] = []
        self.starts: list[dict[str, Any]] = []

    def play(self, agent: Agent, how: How) -> Played:
        """One episode of each, with skills chosen as `Agent.choose` says."""
        rng = numpy_generator(self.seed, "skills", how)
        return Played.joined([self._play(i, agent, how, rng) for i in range(len(self.sizes))])

    def _play(self, i: int, agent: Agent, how: How, rng: np.random.Generator) -> Played:
        first = i * MAX_ENVS
        if i == len(self.open):
            vec = self.setting.make(self.sizes[i], derive(self.seed, "starts"), first)
            vec.reset()
            self.open.append(vec)
            self.starts.append(vec.state_dict())
        else:
            self.open[i].load_state_dict(self.starts[i])
        return _one_each(self.setting, agent, how, self.open[i], rng, first)

    def close(self) -> None:
        """Close the envs."""
        for vec in self.open:
            vec.close()


def play(setting: Setting, agent: Agent, kinds: dict[str, How], episodes: int, seed: int) -> dict[str, Played]:
    """Episodes of each kind, from the same starts."""
    with contextlib.closing(Stage(setting, episodes, seed)) as stage:
        return {name: stage.play(agent, how) for name, how in kinds.items()}


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
