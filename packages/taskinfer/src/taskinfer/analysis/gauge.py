"""How far what a body shows the encoder lies from what the encoder was trained on: the silent failure of a transfer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from taskinfer.config import InferenceConfig
from taskinfer.context import Episodes, all_features
from taskinfer.envs.toy import OBSERVED
from taskinfer.inference import Inference
from taskinfer.record import Record

Array = np.ndarray[Any, Any]
QUANTILE = 0.99  # of the training transitions, that count as inside
RIDGE = 1e-3  # added to the correlations' diagonal: on the toy x' - x and v' say the same


@dataclass(frozen=True)
class Gauge:
    """The training distribution of the encoder's features, as the encoder sees them."""

    names: tuple[str, ...]
    mean: Array  # (F,)
    std: Array  # (F,)
    inverse: Array  # (F, F) of the correlations
    limit: float  # `QUANTILE` of the training transitions' distances
    ends: Array  # (2, F) between which that share of each feature lies in training
    rare: float  # log density, nats, that as large a share of the training latents exceed

    @classmethod
    def fit(cls, toy: str, features: Array, densities: Array) -> Gauge:
        """From features (N, F) of training transitions, and log densities (M,) of the latents inferred from them."""
        mean, std = features.mean(0), np.maximum(features.std(0), 1e-6)
        scaled = (features - mean) / std
        inverse = np.linalg.inv(scaled.T @ scaled / len(scaled) + RIDGE * np.eye(len(mean)))
        ends = np.quantile(features, [0.5 - QUANTILE / 2, 0.5 + QUANTILE / 2], axis=0)
        seen = OBSERVED[toy]
        states = *seen, "reward", *(f"next {name}" for name in seen)
        names = *states, *(f"change of {name}" for name in (*seen, "reward"))
        limit = float(np.quantile(_mahalanobis(scaled, inverse), QUANTILE))
        return cls(names, mean, std, inverse, limit, ends, float(np.quantile(densities, 1 - QUANTILE)))

    def distance(self, features: Array) -> Array:
        """(N,) Mahalanobis distances of features (N, F) from the training mean."""
        return _mahalanobis((features - self.mean) / self.std, self.inverse)

    def report(self, features: Array, densities: Array) -> dict[str, Any]:
        """Shares outside of what `QUANTILE` of training was: of transitions (N, F), together and feature by feature,
        and of latents, whose log densities (M,) these are.
        """
        distance = self.distance(features)
        low, high = self.ends
        single = ((features < low) | (features > high)).mean(0)
        return {
            "outside": float((distance > self.limit).mean()), "in_training": round(1 - QUANTILE, 6),
            "distance": float(np.median(distance)), "limit": self.limit,
            "latents_outside": float((densities < self.rare).mean()),
            "by_feature": {name: float(share) for name, share in zip(self.names, single)},
        }  # fmt: skip


def _mahalanobis(scaled: Array, inverse: Array) -> Array:
    squared: Array = np.einsum("nf,fg,ng->n", scaled, inverse, scaled)
    distance: Array = np.sqrt(np.maximum(squared, 0.0))
    return distance


def log_density(inference: Inference, latents: Any) -> Array:
    """(N,) nats, of latent means (N, L) under the prior that the latents were pulled towards."""
    z, prior = torch.as_tensor(latents, device=inference.device), inference.prior
    if prior.components:
        return np.asarray(prior.mixture.log_prob(z).cpu().numpy())
    return np.asarray(-0.5 * (z.square() + np.log(2 * np.pi)).sum(-1).cpu().numpy())


def training_features(episodes: Episodes, cfg: InferenceConfig) -> Array:
    """(N, F) float64 of every transition of the episodes."""
    horizon = episodes.reward.shape[1]
    inside = torch.arange(horizon, device=episodes.length.device) < episodes.length[:, None]
    return all_features(episodes, cfg)[inside].double().cpu().numpy()


def lived_features(record: Record, cfg: InferenceConfig) -> Array:
    """(N, F) float64 of every transition of those that were up."""
    return all_features(record.episodes(), cfg)[torch.as_tensor(record.alive)].double().cpu().numpy()
