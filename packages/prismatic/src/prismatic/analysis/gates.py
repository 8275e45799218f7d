"""What the experts of a mixture do: who is used, by which task, and how well each predicts.

Shapes: R rows, K experts, T tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from prismatic.analysis.openloop import Array
from prismatic.losses import mutual_information, normalised_entropy
from prismatic.moe import DEAD_LOAD


def by_expert(p: Array, latent: Array, reward: Array) -> dict[str, Any]:
    """Rows split by the expert whose gate is largest.

    Args: p (R, K) gates; latent (R,) squared error over variance; reward (R,) error. Of one step ahead, both.
    Returns: share (K,) of the rows; latent_error, reward_rmse (K,), NaN where an expert has no row.
    """
    top, experts = p.argmax(1), p.shape[1]
    count = np.bincount(top, minlength=experts).astype(float)
    with np.errstate(invalid="ignore"):
        error = np.bincount(top, latent, experts) / count
        rmse = np.sqrt(np.bincount(top, reward**2, experts) / count)
    return {"share": count / len(p), "latent_error": error, "reward_rmse": rmse}


def usage(gates: Sequence[Array], tau: float) -> dict[str, Any]:
    """Gates of each task, (R, K) each: tasks count alike, however many rows they have.

    Returns: tau; entropy over ln K; load (K,); dead, the experts that carry less than 1 %; mi_task, the mutual
        information of task and expert in nats, None for one task; tasks, entropy and load (K,) of each.
    """
    each = [torch.from_numpy(p) for p in gates]
    load = torch.stack([p.mean(0) for p in each])  # (T, K)
    entropy = [float(normalised_entropy(p)) for p in each]
    even = torch.full((len(each),), 1 / len(each), dtype=load.dtype)
    whole = load.mean(0)
    return {
        "tau": tau,
        "entropy": float(np.mean(entropy)),
        "load": whole.numpy(),
        "dead": torch.nonzero(whole < DEAD_LOAD).flatten().tolist(),
        "mi_task": float(mutual_information(load, even)) if len(each) > 1 else None,
        "tasks": [{"entropy": e, "load": row.numpy()} for e, row in zip(entropy, load)],
    }


def block_report(gates: Mapping[str, Array], tau: float, errors: Mapping[str, tuple[Array, Array]]) -> dict[str, Any]:
    """`usage` of one block with `by_expert` in it: gates (R, K) by task; errors by task, as `by_expert` has them."""
    report = usage(list(gates.values()), tau)
    report["tasks"] = {
        task: found | by_expert(p, *errors[task]) for (task, p), found in zip(gates.items(), report["tasks"])
    }
    return report
