"""How far a world model's open-loop predictions are from what happened: numbers in, numbers out.

Shapes: E episodes, R windows of H steps, D latent features; horizon h = 1 .. H is index h - 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
RESAMPLES = 2_000  # of the bootstrap
FLAT = 1e-12  # a variance below this share of the mean square is rounding


@dataclass(frozen=True)
class Episode:
    """L steps of one task, and who chose the actions."""

    obs: Array  # (L + 1, O) float32, the last one included
    action: Array  # (L, A) float32
    reward: Array  # (L,) float32
    collector: str

    def __len__(self) -> int:
        return len(self.reward)


@dataclass(frozen=True)
class Rolled:
    """What one model made of R windows of a task. Row h - 1 of (H, R) is of the step h ahead."""

    episode: Array  # (R,) 0 .. E - 1, each of which occurs
    latent: Array  # (H, R) squared error of z_h against Enc(o_h), mean over features
    static: Array  # (H, R) the same of z_0 in its place
    reward: Array  # (H, R) predicted from z_{h-1}, which is predicted, and the true action
    truth: Array  # (H, R) the reward that came
    z_sum: Array  # (E, H, D) sums of Enc(o_h) over an episode's windows
    z_square: Array  # (E, H) sums of |Enc(o_h)|^2
    gates: dict[str, Array]  # block -> (R, K) weights of its experts at the first step, where z is true

    @property
    def reward_error(self) -> Array:
        """(H, R) predicted less true."""
        return self.reward - self.truth


@dataclass(frozen=True)
class EpisodeSums:
    """Sums over the windows of each episode, from which any weighting of the episodes can be scored."""

    count: Array  # (E,) windows
    latent: Array  # (E, H), as are the next five: squared errors
    static: Array
    reward: Array
    reward_mean: Array  # of predicting the mean reward
    total: Array  # of the sum of the h rewards
    total_mean: Array
    z_sum: Array  # (E, H, D)
    z_square: Array  # (E, H)


def window_starts(lengths: Sequence[int], horizon: int, limit: int) -> Array:
    """(R, 2) int64: episode and first step of windows of `horizon` steps that lie within one episode each.

    All of them, or `limit` evenly spaced ones, where there are more.
    """
    fitting = [np.arange(max(length - horizon + 1, 0)) for length in lengths]
    whole = np.array([(e, t) for e, starts in enumerate(fitting) for t in starts], np.int64).reshape(-1, 2)
    if len(whole) <= limit:
        return whole
    return whole[np.linspace(0, len(whole) - 1, limit).round().astype(np.int64)]


def cut(episodes: Sequence[Episode], starts: Array, horizon: int) -> tuple[Array, Array, Array]:
    """The windows at `starts` (R, 2): obs (H + 1, R, O), action (H, R, A), reward (H, R)."""
    parts = [(episodes[e], t) for e, t in starts.tolist()]
    obs = np.stack([episode.obs[t : t + horizon + 1] for episode, t in parts], 1)
    action = np.stack([episode.action[t : t + horizon] for episode, t in parts], 1)
    return obs, action, np.stack([episode.reward[t : t + horizon] for episode, t in parts], 1)


def add_up(rolled: Rolled) -> EpisodeSums:
    """Squared errors of a model's predictions, and of a reader's two guesses, summed within episodes."""
    episodes = len(rolled.z_sum)

    def within(x: Array) -> Array:
        out = np.zeros((episodes, len(x)))
        np.add.at(out, rolled.episode, x.T)
        return out

    error, guess = rolled.reward_error, rolled.truth.mean() - rolled.truth
    return EpisodeSums(
        np.bincount(rolled.episode, minlength=episodes), within(rolled.latent), within(rolled.static),
        within(error**2), within(guess**2), within(error.cumsum(0) ** 2), within(guess.cumsum(0) ** 2),
        rolled.z_sum, rolled.z_square,
    )  # fmt: skip


def latent_variance(sums: EpisodeSums, weight: Array) -> Array:
    """Variance of Enc(o_h) over windows, mean over features: weight (..., E) of the episodes -> (..., H).

    NaN where the latent state does not change at all.
    """
    count = (weight @ sums.count)[..., None]
    square = (weight @ sums.z_square) / count
    steps = [((weight @ sums.z_sum[:, h]) ** 2).sum(-1) for h in range(sums.z_sum.shape[1])]
    variance = square - np.stack(steps, -1) / count**2
    mean: Array = np.where(variance > FLAT * square, variance, np.nan) / sums.z_sum.shape[2]
    return mean


def measures(sums: EpisodeSums, weight: Array | None = None) -> dict[str, Array]:
    """Scores at each horizon, (..., H), of the episodes taken `weight` (..., E) times; None: once each.

    latent_error: mean squared error over variance, 0 perfect, 1 as good as the mean. latent_static: that of a model in
    which nothing moves. reward_rmse, return_rmse: of the h-th reward and of the sum of the first h, in reward units;
    reward_mean, return_mean: the same of predicting the mean reward of all windows.
    """
    weight = np.ones(len(sums.count)) if weight is None else weight
    count = (weight @ sums.count)[..., None]
    variance = latent_variance(sums, weight)
    fractions = {"latent_error": sums.latent, "latent_static": sums.static}
    roots = {
        "reward_rmse": sums.reward, "reward_mean": sums.reward_mean,
        "return_rmse": sums.total, "return_mean": sums.total_mean,
    }  # fmt: skip
    found = {name: (weight @ each) / count / variance for name, each in fractions.items()}
    return found | {name: np.sqrt((weight @ each) / count) for name, each in roots.items()}


def ratios(first: EpisodeSums, second: EpisodeSums, keys: Sequence[str], seed: int = 0) -> dict[str, dict[str, Array]]:
    """Scores of `second` over those of `first`, which saw the same windows: ratio, low, high (H,) of each key.

    low, high: 95 % percentile interval over episodes drawn again with replacement, the same ones for both. Few
    episodes make it too narrow. NaN where the first one's score is 0 or not finite.
    """
    episodes = len(first.count)
    draws = np.random.default_rng(seed).multinomial(episodes, np.full(episodes, 1 / episodes), size=RESAMPLES)
    whole, drawn = _over(first, second, np.ones(episodes), keys), _over(first, second, draws.astype(float), keys)
    out = {}
    for key in keys:
        finite = np.isfinite(drawn[key]).all(0)
        interval = np.quantile(np.where(finite, drawn[key], 0.0), [0.025, 0.975], axis=0)
        low, high = np.where(finite, interval, np.nan)
        out[key] = {"ratio": whole[key], "low": low, "high": high}
    return out


def _over(first: EpisodeSums, second: EpisodeSums, weight: Array, keys: Sequence[str]) -> dict[str, Array]:
    a, b = measures(first, weight), measures(second, weight)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {key: np.where(a[key] > 0, b[key] / a[key], np.nan) for key in keys}
