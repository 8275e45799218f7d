"""Small inference models of every kind, rings and episodes that several files of tests use."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from rlcore.seeding import numpy_generator
from taskinfer import context
from taskinfer.config import InferenceConfig
from taskinfer.data import EpisodeRing
from taskinfer.inference import Inference
from taskinfer.tasks import Family

FOUR = list(Family)[:4]
SMALL = InferenceConfig(context="recurrent", window=6, hidden=16, batch=32, targets=5, latent_dim=3)
KINDS = {
    "deepset": {},
    "deepset window": {"context": "window", "times": 1},
    "mlp": {"encoder": "mlp", "context": "window"},
    "gru": {"encoder": "gru", "context": "window", "times": 2},
    "recurrent": {"encoder": "gru"},
    "gmm": {"prior": "gmm"},
    "plain": {"symlog": False, "layer_norm": False, "predict_delta": True, "context": "window"},
    "whole": {"ema": 0.0, "window": 30},
}


def make(seed: int = 0, **changes) -> Inference:
    return Inference(replace(SMALL, **changes), 2, 1, FOUR, seed)


def fill(ring: EpisodeRing, num: int, seed: int = 0, length: np.ndarray | None = None, junk: float = 0.0) -> None:
    """Random episodes whose reward depends on their family; after their end lies `junk`."""
    rng, h = np.random.default_rng(seed), ring.horizon
    obs = rng.normal(size=(num, h + 1, 2)).astype(np.float32) * 3
    family = np.arange(num) % 4
    reward = (obs[:, 1:, 0] * np.array([1, -1, 0, 0])[family, None] - family[:, None]).astype(np.float32)
    length = np.full(num, h) if length is None else length
    for i, n in enumerate(length):
        obs[i, n + 1 :], reward[i, n:] = junk, junk
    action = rng.uniform(-1, 1, (num, h, 1)).astype(np.float32)
    ring.add(obs, action, reward, length, family, np.ones(num, np.float32), np.arange(num))


def filled(num: int = 12, horizon: int = 20, **more) -> EpisodeRing:
    ring = EpisodeRing(num, horizon, 2, 1, numpy_generator(0, "ring"))
    fill(ring, num, **more)
    return ring


def some_episodes(lengths: list[int], horizon: int = 20, seed: int = 0, junk: float = 0.0) -> context.Episodes:
    """One of each length."""
    g = torch.Generator().manual_seed(seed)
    n = len(lengths)
    obs, reward = torch.randn(n, horizon + 1, 2, generator=g) * 4, torch.randn(n, horizon, generator=g) * 2
    for i, length in enumerate(lengths):
        obs[i, length + 1 :], reward[i, length:] = junk, junk
    which = torch.arange(n)
    action = torch.rand(n, horizon, 1, generator=g)
    return context.Episodes(obs, action, reward, torch.tensor(lengths), which % 4, torch.ones(n), which)
