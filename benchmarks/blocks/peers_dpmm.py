"""What the peers make of the mixtures: loss, components, agreement with the truth, CPU seconds. Writes one JSON file.

    python -m benchmarks.blocks.peers_dpmm              # all cases; those the file already has are skipped
    python -m benchmarks.blocks.peers_dpmm easy8 large

bnpy runs as GASP calls it, two laps in five batches; with thirty laps; with thirty over all rows at once; and with
thirty and its own defaults for births. No one of these suits it best in all cases.

scikit-learn's BayesianGaussianMixture gets 25 components, the same concentration and 200 iterations; the rest are its
defaults. Its own bound has another prior and other constants, so its loss is bnpy's figure after one global step from
its responsibilities, components sorted by mass, empty ones dropped; "truth" is the true mixture under the same rule.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import BayesianGaussianMixture

from benchmarks.blocks.mixtures import CASES, TIMED, Problem, moved, problem
from benchmarks.micro.timing import Side
from benchmarks.peers.bnpy_fit import Bnpy, Fit
from rlcore.files import write_atomic
from rlcore.provenance import cpu_model, version_of

RESULT = Path(__file__).resolve().parents[1] / "results" / "dpmm_peers.json"
SEEDS = (0, 1, 2)
OWN_BIRTHS: dict[str, Any] = {"fresh": 10, "min_new": 1, "min_target": 2, "min_retain": 10}
"""bnpy's defaults; GASP sets 5 proposals a birth, and thresholds: here 80 rows for a new component, 96 for a target."""
Row = dict[str, Any]
Peer = Callable[[int], Row]
"""One fit under a seed: its row without problem, peer and seed."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.blocks.peers_dpmm", description=__doc__)
    parser.add_argument("cases", nargs="*", default=[*CASES, *TIMED], help="names from mixtures.py; default all")
    parser.add_argument("--json", type=Path, default=RESULT, help="record to write or continue")
    args = parser.parse_args(sys.argv[1:] if argv is None else argv)
    rows: list[Row] = json.loads(args.json.read_text())["rows"] if args.json.exists() else []
    done = {(row["problem"], row["peer"], row["seed"]) for row in rows}
    with Bnpy() as bnpy:
        for name in args.cases:
            for peer, fit in peers(name, bnpy):
                for seed in (0,) if peer == "truth" or name == "large" else SEEDS:
                    if (name, peer, seed) not in done:
                        rows.append({"problem": name, "peer": peer, "seed": seed, **fit(seed)})
                        print(" ".join(f"{value}" for value in rows[-1].values()), flush=True)
            write(args.json, rows, bnpy.versions)
    return 0


def write(path: Path, rows: list[Row], versions: dict[str, str]) -> None:
    ours = {name: version_of(name) for name in ("scikit-learn", "numpy")}
    record = {
        "title": "Dirichlet process mixtures: what the peers make of 25 problems, and of two for timing",
        "protocol": "CPU seconds of the fit alone, 1 thread; loss = -ELBO / (N D) under bnpy's prior; see the module",
        "machine": {"cpu": cpu_model(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version(), **ours, **versions},
    }
    lines = [f" {json.dumps(key)}: {json.dumps(value)},\n" for key, value in record.items()]
    text = "{\n" + "".join(lines) + ' "rows": [\n  ' + ",\n  ".join(map(json.dumps, rows)) + "\n ]\n}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, lambda file: file.write(text.encode()))


def peers(name: str, bnpy: Bnpy) -> Iterator[tuple[str, Peer]]:
    """The peers' fits of one case; "refit" starts from a fit of the same mixture before its centres moved.

    In "large" bnpy is at its final loss after 10 laps, and needs a few more to notice.
    """
    case = problem(name)
    if name == "refit":
        before, case = case, moved(case)
        yield "truth", lambda _seed: truth(case, bnpy)
        warm = bnpy.fit(before.x, laps=30, batches=1)
        for batches, laps in ((1, 2), (1, 30), (5, 2), (5, 30)):
            yield f"bnpy, warm, {laps} laps, batches: {batches}", bnpy_peer(case, bnpy, laps, batches, warm)
        yield "scikit-learn, warm", sklearn_refit(before, case, bnpy)
        return
    yield "truth", lambda _seed: truth(case, bnpy)
    for batches, laps in ((10, 10), (10, 60), (1, 60)) if name == "large" else ((5, 2), (5, 30), (1, 30)):
        yield f"bnpy, {laps} laps, batches: {batches}", bnpy_peer(case, bnpy, laps, batches)
    batches, laps = (10, 60) if name == "large" else (5, 30)
    yield f"bnpy, {laps} laps, batches: {batches}, its own births", bnpy_peer(case, bnpy, laps, batches, **OWN_BIRTHS)
    yield "scikit-learn", lambda seed: sklearn_outcome(case, bnpy, sklearn_model(seed))


def seconds(peer: Peer) -> Side:
    """The peer's CPU seconds as a side of benchmarks.micro.timing.compare; the repetition is its seed."""
    return lambda repetition: float(peer(repetition)["cpu_s"])


def truth(case: Problem, bnpy: Bnpy) -> Row:
    """The true mixture's own assignment."""
    resp = case.resp()
    return row(case, resp.argmax(1), k=case.num_components, loss=bnpy.loss(case.x, resp)) | {
        "n": len(case.x), "dim": case.x.shape[1],
        "separation": round(case.separation, 2) if case.num_components > 1 else None,
    }  # fmt: skip


def bnpy_peer(
    case: Problem, bnpy: Bnpy, laps: int, batches: int, warm: Fit | None = None, **births: Any
) -> Peer:  # fmt: skip
    def peer(seed: int) -> Row:
        fit = bnpy.fit(case.x, warm=warm, laps=laps, batches=batches, seed=seed, **births)
        more = {"laps": fit.laps, "converged": fit.converged}
        return row(case, fit.labels, k=fit.num_components, loss=fit.loss, cpu_s=fit.cpu_s) | more

    return peer


def row(case: Problem, labels: np.ndarray, *, k: int, loss: float, cpu_s: float = 0.0) -> Row:
    """`k` is the peer's own count of components, `k_used` how many are the likeliest of at least one row."""
    ari = adjusted_rand_score(case.labels, labels)
    used = len(np.unique(labels))
    return {"loss": round(loss, 7), "k": k, "k_used": used, "ari": round(ari, 4), "cpu_s": round(cpu_s, 3)}


def sklearn_refit(before: Problem, after: Problem, bnpy: Bnpy) -> Peer:
    warm = sklearn_model(0).set_params(warm_start=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warm.fit(before.x)
    return lambda seed: sklearn_outcome(after, bnpy, copy.deepcopy(warm).set_params(random_state=seed))


def sklearn_model(seed: int) -> BayesianGaussianMixture:
    return BayesianGaussianMixture(
        n_components=25, covariance_type="diag", weight_concentration_prior_type="dirichlet_process",
        weight_concentration_prior=5.0, max_iter=200, random_state=seed,
    )  # fmt: skip


def sklearn_outcome(case: Problem, bnpy: Bnpy, model: BayesianGaussianMixture) -> Row:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        begin = time.process_time()
        model.fit(case.x)
        cpu_s = time.process_time() - begin
    resp = model.predict_proba(case.x)
    mass = resp.sum(0)
    order = np.argsort(-mass)
    resp = resp[:, order[mass[order] > 1e-3]]
    more = {"laps": model.n_iter_, "converged": model.converged_}
    loss = bnpy.loss(case.x, resp / resp.sum(1, keepdims=True))
    return row(case, resp.argmax(1), k=len(mass), loss=loss, cpu_s=cpu_s) | more


if __name__ == "__main__":
    sys.exit(main())
