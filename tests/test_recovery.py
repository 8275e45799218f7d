"""The mixture on problems whose truth is known, beside what bnpy and scikit-learn made of them (recorded)."""

from __future__ import annotations

import json
from collections import defaultdict

import numpy as np
import pytest
import torch
from benchmarks.__main__ import RESULTS
from benchmarks.blocks.mixtures import CASES, problem
from sklearn.metrics import adjusted_rand_score

from rlblocks.dpmm import DPMixture

PEERS: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
for row in json.loads((RESULTS / "dpmm_peers.json").read_text())["rows"]:
    PEERS[row["problem"], row["peer"]].append(row)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", CASES)
def test_it_recovers_what_the_peers_do_or_more(name: str):
    """Seed 7, which no record used: loss within 1e-3 of bnpy's best setting, ARI within 0.02 of scikit-learn's, K."""
    case = problem(name)
    mixture = DPMixture(case.x.shape[1], seed=7)
    report = mixture.fit(case.x)
    bnpy = min(
        np.mean([fit["loss"] for fit in fits]) for (p, peer), fits in PEERS.items() if p == name and "bnpy" in peer
    )
    peer_ari = np.mean([fit["ari"] for fit in PEERS[name, "scikit-learn"]])
    assert report.loss <= bnpy + 1e-3
    assert adjusted_rand_score(case.labels, mixture.predict(case.x)) >= peer_ari - 0.02
    assert np.diff(report.elbo).min(initial=0) >= -1e-9 * abs(report.elbo[-1])
    if case.num_components == 1 or case.separation >= 4:
        assert abs(report.num_components - case.num_components) <= 1
