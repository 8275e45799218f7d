"""How far components are from each other, and from N(0, I)."""

from __future__ import annotations

import numpy as np

from gasp.analysis.figures import Array


def euclidean(means: Array) -> Array:
    """(K, K) distances of the means (K, Z); on the diagonal, of each to the origin, the mean of N(0, I)."""
    found: Array = np.linalg.norm(means[:, None] - means[None], axis=-1)
    np.fill_diagonal(found, np.linalg.norm(means, axis=1))
    return found


def bhattacharyya(means: Array, variances: Array) -> Array:
    """(K, K) -log of the overlap integral of sqrt(p q), nats, of diagonal Gaussians (K, Z); diagonal: to N(0, I).

    (m_p - m_q)' S^-1 (m_p - m_q) / 8 + log(|S| / sqrt(|S_p| |S_q|)) / 2, S = (S_p + S_q) / 2 (Kailath 1967).
    """
    found = _overlap(means[:, None], variances[:, None], means[None], variances[None])
    np.fill_diagonal(found, _overlap(means, variances, np.zeros_like(means), np.ones_like(variances)))
    return found


def _overlap(mean_p: Array, var_p: Array, mean_q: Array, var_q: Array) -> Array:
    both = 0.5 * (var_p + var_q)
    apart = ((mean_p - mean_q) ** 2 / both).sum(-1) / 8
    found: Array = apart + 0.5 * np.log(both / np.sqrt(var_p * var_q)).sum(-1)
    return found
