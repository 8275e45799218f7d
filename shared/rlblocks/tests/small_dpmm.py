"""Clusters to be found, and the bound of small mixtures."""

from __future__ import annotations

import numpy as np
import torch

from rlblocks.dp_bound import Bound

X3 = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]], dtype=torch.float64)


def make_bound(dim: int, full: bool = False, gamma: float = 5.0, kappa0: float = 1e-4, mean0: float = 0.0) -> Bound:
    ones = torch.ones(dim, dtype=torch.float64)
    return Bound(full, gamma, kappa0, dim + 2.0, mean0 * ones, 0.1 * ones)


def blobs(seed: int, k: int = 4, dim: int = 3, n: int = 600, apart: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(k, size=n)
    return rng.normal(size=(k, dim))[labels] * apart + rng.normal(size=(n, dim)) * 0.5, labels
