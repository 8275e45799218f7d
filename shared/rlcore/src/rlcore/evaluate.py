"""Score a policy on episodes of its own, and say how sure the scores are."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from rlcore.errors import UsageError
from rlcore.vecenv import VecEnv

Array = np.ndarray[Any, Any]


class Policy(Protocol):
    """Acts greedily on N envs at once. `state` is whatever it remembers within an episode."""

    def initial_state(self, num_envs: int) -> Any: ...
    def act(self, obs: Array, state: Any) -> tuple[Array, Any]: ...  # (N, ...) -> actions (N, ...), next state


@dataclass(frozen=True)
class EvalResult:
    """One row an episode, in the order of the episodes."""

    returns: Array  # (E,) sum of rewards, undiscounted
    lengths: Array  # (E,) env steps
    successes: Array | None = None  # (E,) bool at the episode's last step; None where the env reports none

    def as_row(self) -> dict[str, float | int]:
        """The numbers of an "eval" row in metrics.jsonl; the standard deviation is the population's."""
        names = ("mean", "std", "min", "max", "median")
        row: dict[str, float | int] = {f"return_{name}": float(getattr(np, name)(self.returns)) for name in names}
        row |= {"length_mean": float(self.lengths.mean()), "episodes": len(self.returns)}
        return row if self.successes is None else {**row, "success_rate": float(self.successes.mean())}


def evaluate(policy: Policy, make_envs: Callable[[int, int], VecEnv], episodes: int, max_envs: int = 100) -> EvalResult:
    """Run `episodes` episodes, at most `max_envs` at once, in envs from `make_envs(num_envs, first_env)`.

    Episode e is episode 0 of env e, so the scores do not depend on how the episodes are grouped. An env whose episode
    has ended is stepped on, unheard, until the others are done: no state is ever reset in the middle.
    """
    if episodes < 1:
        raise UsageError(f"cannot evaluate {episodes} episodes: expected at least 1")
    parts = []
    for first in range(0, episodes, max_envs):
        with contextlib.closing(make_envs(min(max_envs, episodes - first), first)) as envs:
            parts.append(_one_episode_each(policy, envs))
    returns, lengths, successes = (np.concatenate(column) for column in zip(*parts))
    return EvalResult(returns, lengths, None if np.isnan(successes).any() else successes.astype(bool))


def _one_episode_each(policy: Policy, envs: VecEnv) -> tuple[Array, Array, Array]:
    returns, lengths = np.zeros(envs.num_envs), np.zeros(envs.num_envs, np.int64)
    successes = np.full(envs.num_envs, np.nan)  # NaN: never told
    running = np.ones(envs.num_envs, bool)
    obs, state = envs.reset(), policy.initial_state(envs.num_envs)
    while running.any():
        action, state = policy.act(obs, state)
        obs, reward, terminated, truncated, _, info = envs.step(action)
        returns += np.where(running, reward, 0.0)
        lengths += running
        ended = running & (terminated | truncated)
        if "success" in info:
            successes[ended] = info["success"][ended]
        running &= ~ended
    return returns, lengths, successes


def iqm(scores: Array, axis: int | None = None) -> Any:
    """Interquartile mean over `axis` (None: over all): floor(n / 4) scores are cut off at each end.

    Agarwal et al. 2021, arXiv:2108.13264; the same numbers as `scipy.stats.trim_mean(scores, 0.25, axis)`.
    """
    ordered = np.sort(np.asarray(scores, np.float64), axis=axis)
    size = ordered.shape[axis or 0]
    return np.take(ordered, range(size // 4, size - size // 4), axis=axis or 0).mean(axis=axis or 0)


def bootstrap_ci(
    scores: Array, statistic: Callable[[Array], float] = iqm, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of `statistic` over runs: scores (runs,) or (runs, tasks).

    Runs are drawn again with replacement, in each task on its own (stratified; Agarwal et al. 2021, section 4.1).
    With the 3 to 10 runs that are usual it is too narrow: three runs can give no more than 10 distinct samples a task.
    """
    table = np.asarray(scores, np.float64).reshape(len(scores), -1)  # (R, T)
    rows = np.random.default_rng(seed).integers(len(table), size=(resamples, *table.shape))
    values = [statistic(sample) for sample in table[rows, np.arange(table.shape[1])]]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
