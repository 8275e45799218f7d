"""The Dirichlet-process mixture against bnpy and scikit-learn, in turns: CPU seconds of a fit, beside its loss and ARI.

refit: 6,000 x 10, ten components; each side continues its own fit of the same mixture after the centres moved by about
0.3 sigmas, which is what an encoder in training does. cold: 200,000 x 10, ten components, from nothing. bnpy with the
settings of GASP (two laps in five batches) and, cold, with as many laps as it needs to reach its final loss.
scikit-learn with 25 components, its other settings as in benchmarks/blocks/peers_dpmm.py. Ours with its defaults.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from sklearn.metrics import adjusted_rand_score

from benchmarks.blocks.mixtures import Problem, moved, problem
from benchmarks.blocks.peers_dpmm import Peer, bnpy_peer, sklearn_model, sklearn_outcome, sklearn_refit
from benchmarks.micro.timing import Row, Side, compare, per_call, run
from benchmarks.peers.bnpy_fit import Bnpy, BnpyMissingError
from rlblocks.dpmm import DPMixture


def main(argv: Sequence[str] | None = None) -> int:
    torch.set_num_threads(1)
    packages = ("rlblocks", "torch", "numpy", "scikit-learn")
    try:
        return run("dpmm", "The Dirichlet-process mixture", measure, packages, argv)
    except BnpyMissingError as error:
        print(f"  left out: {error}")
        return 0


def measure(repetitions: int) -> Iterator[Row]:
    before = problem("refit")
    after, large = moved(before), problem("large")
    with Bnpy() as bnpy:
        warm = bnpy.fit(before.x, laps=30, batches=1)
        em = ("scikit-learn, warm_start", sklearn_refit(before, after, bnpy), 3)
        refits = [("bnpy, warm, 2 laps in 5 batches", bnpy_peer(after, bnpy, 2, 5, warm), 10), em]
        colds = [
            ("bnpy, 10 laps in 10 batches", bnpy_peer(large, bnpy, 10, 10), 10),
            ("scikit-learn, 25 components", lambda seed: sklearn_outcome(large, bnpy, sklearn_model(seed)), 3),
        ]
        for what, case, ours, peers in (
            ("warm refit of 6,000 x 10", after, refit(before, after), refits),
            ("warm refit without moves, as the peer has none", after, refit(before, after, moves=()), [em]),
            ("cold fit of 200,000 x 10", large, cold(large), colds),
        ):
            for label, peer, bar in peers:
                yield beside(what, case, ours, (label, peer), bar, repetitions)
    yield assignment(before, repetitions)


def beside(what: str, case: Problem, ours: Peer, peer: tuple[str, Peer], bar: float, repetitions: int) -> Row:
    """A row of ratios, and what both sides made of the data."""
    seen: dict[str, list[Row]] = {"ours": [], "peer": []}

    def side(name: str, fit: Peer) -> Side:
        def once(seed: int) -> float:
            seen[name].append(fit(seed))
            return float(seen[name][-1]["cpu_s"])

        return once

    sides = ("rlblocks DPMixture.fit", side("ours", ours)), (peer[0], side("peer", peer[1]))
    row = compare(f"{what}, {peer[0].split(',')[0]}", *sides, bar=bar, unit="CPU time a fit", repetitions=repetitions)
    for name, fits in seen.items():
        for key in ("loss", "ari", "k"):
            row[f"{name}_{key}"] = [fit[key] for fit in fits]
    return row


def refit(before: Problem, after: Problem, **options: Any) -> Peer:
    mixture = DPMixture(before.x.shape[1])
    mixture.fit(before.x)
    state = copy.deepcopy(mixture.state_dict())

    def once(seed: int) -> Row:
        warm = DPMixture(before.x.shape[1])
        warm.load_state_dict(state | {"rng": torch.Generator().manual_seed(seed).get_state()})
        return outcome(after, warm, **options)

    return once


def cold(case: Problem) -> Peer:
    return lambda seed: outcome(case, DPMixture(case.x.shape[1], seed=seed))


def outcome(case: Problem, mixture: DPMixture, **options: Any) -> Row:
    begin = time.process_time()
    report = mixture.fit(case.x, **options)
    cpu_s = time.process_time() - begin
    ari = adjusted_rand_score(case.labels, mixture.predict(case.x))
    return {"loss": round(report.loss, 7), "ari": round(ari, 4), "k": report.num_components, "cpu_s": cpu_s}


def assignment(case: Problem, repetitions: int) -> Row:
    """Responsibilities of 6,000 atoms at once, per atom; the bar is an absolute one, 50 us, so the peer is that."""
    mixture = DPMixture(case.x.shape[1])
    mixture.fit(case.x)
    whole: Callable[[int], float] = per_call(lambda: mixture.responsibilities(case.x))
    ours = ("rlblocks DPMixture.responsibilities", lambda k: whole(k) / len(case.x))
    return compare("one assignment, in a batch", ours, ("50 us", lambda _k: 50e-6), bar=1, unit="CPU time an atom",
                   repetitions=repetitions)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
