"""Gaussian mixtures with known labels: 5 named cases, 20 drawn ones, 2 for timing. numpy only, the same every time.

Separation is the smallest distance of two centres in their pooled standard deviation (Mahalanobis distance under the
mean of both diagonal covariances), in sigmas. Below 2 or so two components are one bump.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Problem:
    """N rows of a mixture of K Gaussians in D dimensions, diagonal covariances."""

    name: str
    x: Array
    """(N, D) float64."""
    labels: Array
    """(N,) true component of each row."""
    weights: Array
    """(K,) sum to 1."""
    means: Array
    """(K, D)."""
    stds: Array
    """(K, D)."""

    @property
    def num_components(self) -> int:
        return len(self.weights)

    @property
    def separation(self) -> float:
        """Sigmas between the two closest components; infinite for one component."""
        return separation(self.means, self.stds)

    def resp(self) -> Array:
        """(N, K) probabilities of the components under the true mixture: what no fit can beat by much."""
        log_prob = np.empty((len(self.x), self.num_components))
        for k, (weight, mean, std) in enumerate(zip(self.weights, self.means, self.stds)):
            log_prob[:, k] = np.log(weight) - np.log(std).sum() - 0.5 * (((self.x - mean) / std) ** 2).sum(1)
        prob = np.exp(log_prob - log_prob.max(1, keepdims=True))
        resp: Array = prob / prob.sum(1, keepdims=True)
        return resp


def separation(means: Array, stds: Array) -> float:
    """Smallest distance of two of means (K, D), in sigmas of stds (K, D)."""
    pooled = (stds[:, None] ** 2 + stds**2) / 2  # (K, K, D)
    distance = np.sqrt(((means[:, None] - means) ** 2 / pooled).sum(2))
    np.fill_diagonal(distance, np.inf)
    return float(distance.min())


# name: (seed, K, D, N, sigmas between the closest two, concentration of the weights or None for equal ones)
Case = tuple[int, int, int, int, float, float | None]
NAMED: dict[str, Case] = {
    "easy8": (0, 8, 10, 20_000, 6.0, None),
    "unb12": (1, 12, 10, 20_000, 5.5, 1.0),
    "over6": (2, 6, 4, 10_000, 2.6, None),
    "k20d2": (3, 20, 2, 20_000, 2.1, None),
    "one": (4, 1, 10, 5_000, 0.0, None),
}
"""Stand-ins for the five cases of an earlier comparison, whose data are gone: K, D, N and overlap resemble theirs."""
TIMED: dict[str, Case] = {"refit": (5, 10, 10, 6_000, 4.5, 1.0), "large": (6, 10, 10, 200_000, 4.5, 1.0)}


def drawn() -> dict[str, Case]:
    """Twenty mixtures: 2 to 12 components, 2 to 16 dimensions, 4,000 to 20,000 rows; every second one unbalanced.

    The closest components of apart0 to apart9 are 4 to 6 sigmas from each other, of close0 to close9 2 to 3.5.
    """
    rng = np.random.default_rng(2026)
    cases: dict[str, Case] = {}
    for kind, low, high in (("apart", 4.0, 6.0), ("close", 2.0, 3.5)):
        for i in range(10):
            k, dim, n = int(rng.integers(2, 13)), int(rng.integers(2, 17)), int(rng.integers(4, 21)) * 1_000
            sigmas = round(float(rng.uniform(low, high)), 2)
            cases[f"{kind}{i}"] = (100 + len(cases), k, dim, n, sigmas, 1.0 if i % 2 else None)
    return cases


CASES: dict[str, Case] = NAMED | drawn()


def problem(name: str) -> Problem:
    """One of CASES or TIMED.

    Standard deviations are 0.4 to 0.9 in each dimension. Of twenty sets of normal centres the one whose closest two
    are farthest apart is stretched to the separation asked for. Weights are equal, or half equal and half
    Dirichlet(concentration), so that none is below 1 / (2 K).
    """
    seed, k, dim, n, sigmas, concentration = (CASES | TIMED)[name]
    rng = np.random.default_rng(seed)
    stds = rng.uniform(0.4, 0.9, (k, dim))
    means = max(rng.normal(size=(20, k, dim)), key=lambda centres: separation(centres, stds))
    if k > 1:
        means = means * (sigmas / separation(means, stds))
    weights = np.full(k, 1 / k)
    if concentration is not None:
        weights = (weights + rng.dirichlet(np.full(k, concentration))) / 2
    return sample(name, rng, n, weights, means, stds)


def moved(before: Problem, shift: float = 0.3, seed: int = 7) -> Problem:
    """Fresh rows of the same mixture after each centre moved by about `shift` sigmas: what an encoder in training does.

    The move has random directions; its length is `shift` sigmas on average (root mean square).
    """
    rng = np.random.default_rng(seed)
    step = rng.normal(size=before.means.shape) * (shift / np.sqrt(before.means.shape[1]))
    return sample(before.name, rng, len(before.x), before.weights, before.means + step * before.stds, before.stds)


def sample(name: str, rng: np.random.Generator, n: int, weights: Array, means: Array, stds: Array) -> Problem:
    """n rows of the mixture with weights (K,), means (K, D) and stds (K, D)."""
    labels = rng.choice(len(weights), n, p=weights)
    x = means[labels] + stds[labels] * rng.normal(size=(n, means.shape[1]))
    return Problem(name, x, labels, weights, means, stds)
