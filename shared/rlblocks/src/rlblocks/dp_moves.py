"""Moves that change the number of components; each is kept only if the exact bound rises.

Births and merges after Hughes and Sudderth 2013, deletes after Hughes, Kim and Sudderth 2015. A move works on the whole
partition: responsibilities (K, N) and the statistics T (K, F + 1) that they give.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlblocks.dp_bound import Bound, stick_term

FRESH = 5  # components that a birth tries
SUBSAMPLE = 10_000  # atoms that a birth looks at before it asks all of them
RESTRICTED_STEPS = 10
MERGE_CANDIDATES = 10
DELETE_CANDIDATES = 3
STALE = 0.01  # a component is tried again once its count has changed by this share


@dataclass
class Limits:
    """When a component may be born, in atoms."""

    min_target: float  # a component that large is split
    min_new: float  # lighter fresh ones are dropped while they compete
    min_retain: float  # and lighter ones after they have seen all atoms
    k_max: int


@dataclass
class Partition:
    """q(c) of one data set."""

    bound: Bound
    features: Tensor  # (N, F)
    resp: Tensor  # (K, N), columns sum to 1
    stats: Tensor  # (K, F + 1)
    limits: Limits
    rng: torch.Generator  # on the CPU
    accepted: Counter[str] = field(default_factory=Counter)
    birth_tried: Tensor = field(init=False)  # (K,) count at which a birth failed, NaN where none was tried
    delete_tried: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.birth_tried = torch.full_like(self.stats[:, 0], torch.nan)
        self.delete_tried = self.birth_tried.clone()

    @property
    def elbo(self) -> float:
        return float(self.bound.elbo(self.stats))

    def sorted_elbo(self, stats: Tensor) -> float:
        """The bound of other statistics (J, F + 1), largest component first."""
        return float(self.bound.elbo(stats[stats[:, 0].argsort(descending=True)]))

    def replace(self, gone: Collection[int], resp: Tensor, stats: Tensor) -> None:
        """Components `gone` make way for others (J, N), (J, F + 1), which come last; then the largest come first."""
        keep = [k for k in range(len(self.stats)) if k not in gone]
        untried = torch.full_like(stats[:, 0], torch.nan)
        self.resp, self.stats = torch.cat([self.resp[keep], resp]), torch.cat([self.stats[keep], stats])
        self.birth_tried = torch.cat([self.birth_tried[keep], untried])
        self.delete_tried = torch.cat([self.delete_tried[keep], untried])
        self.sort()

    def sort(self) -> None:
        order = self.stats[:, 0].argsort(descending=True, stable=True)
        if not bool((order.diff() == 1).all()):
            self.resp, self.stats = self.resp[order], self.stats[order]
            self.birth_tried, self.delete_tried = self.birth_tried[order], self.delete_tried[order]

    # --- shuffle ------------------------------------------------------------------------------------------------------
    def shuffle(self) -> None:
        """Largest components first, which suits the stick-breaking prior."""
        ordered = self.stats[self.stats[:, 0].argsort(descending=True, stable=True)]
        if self.bound.elbo(ordered) >= self.elbo:
            self.sort()

    # --- merge --------------------------------------------------------------------------------------------------------
    def merge(self) -> None:
        """Join the pair that raises the bound most, until none does."""
        while len(self.stats) > 1 and self._merge_one():
            self.accepted["merge"] += 1

    def _merge_one(self) -> bool:
        a, b = torch.triu_indices(len(self.stats), len(self.stats), 1, device=self.stats.device)
        promise, order = self._merge_promise(a, b).topk(min(len(a), MERGE_CANDIDATES))
        order = order[promise > 0]
        best, winner = self.elbo, None
        for pair in zip(a[order].tolist(), b[order].tolist()):
            resp = self.resp[pair[0]] + self.resp[pair[1]]
            joined = self.stats[pair[0]] + self.stats[pair[1]]
            joined[-1] = -torch.xlogy(resp, resp).sum()
            value = self.sorted_elbo(torch.cat([without(self.stats, pair), joined[None]]))
            if rises(best, value):
                best, winner = value, (pair, resp, joined)
        if winner is None:
            return False
        pair, resp, joined = winner
        self.replace(pair, resp[None], joined[None])
        return True

    def _merge_promise(self, a: Tensor, b: Tensor) -> Tensor:
        """(P,) the most that joining pairs a, b (P,) can gain: a pair's entropy is at most the sum of both."""
        terms, count = self.bound.evidence_terms(self.stats), self.stats[:, 0]
        gain = self.bound.evidence_terms(self.stats[a] + self.stats[b]) - terms[a] - terms[b]
        counts = count.repeat(len(a), 1)
        row = torch.arange(len(a), device=a.device)
        counts[row, a] += counts[row, b]
        counts[row, b] = 0.0  # sorted to the end, where an empty stick adds nothing
        sticks = stick_term(counts.sort(descending=True).values, self.bound.gamma)
        return gain + sticks - stick_term(count, self.bound.gamma)

    # --- delete -------------------------------------------------------------------------------------------------------
    def delete(self) -> None:
        """Give the atoms of a small component to the others."""
        untried = self._untried(self.delete_tried).nonzero()[:, 0].flip(0)[:DELETE_CANDIDATES]  # smallest first
        for k in untried.tolist():
            if len(self.stats) == 1 or self._delete_one(k):
                break  # the others have other atoms now
            self.delete_tried[k] = self.stats[k, 0]

    def _delete_one(self, k: int) -> bool:
        rows = (self.resp[k] > 1e-15).nonzero()[:, 0]
        features = self.features[rows]
        old = self.bound.statistics(features, self.resp[:, rows])
        fixed = without(self.stats - old, (k,))
        weights = self.bound.log_weights(without(self.stats, (k,)))
        for _ in range(2):
            resp, stats = self.bound.local_step(features, weights)
            stats = stats + fixed
            weights = self.bound.log_weights(stats)
        if not rises(self.elbo, self.sorted_elbo(stats)):
            return False
        everyone = without(self.resp, (k,))
        everyone[:, rows] = resp
        keep = [j for j in range(len(self.resp)) if j != k]
        self.birth_tried, self.delete_tried = self.birth_tried[keep], self.delete_tried[keep]
        self.resp, self.stats = everyone, stats
        self.sort()
        self.accepted["delete"] += 1
        return True

    def _untried(self, tried: Tensor) -> Tensor:
        """(K,) bool: never failed, or has changed since."""
        return ~((self.stats[:, 0] - tried).abs() <= STALE * tried)

    # --- birth --------------------------------------------------------------------------------------------------------
    def birth(self) -> None:
        """Split components into fresh ones; each split is tried on the bound with those before it."""
        now, best = self.stats, self.elbo
        gone: list[int] = []
        resps: list[Tensor] = []
        stats: list[Tensor] = []
        for k in self._untried(self.birth_tried).nonzero()[:, 0].tolist():
            if self.stats[k, 0] < self.limits.min_target or len(now) >= self.limits.k_max:
                continue
            for fresh in (FRESH, 2):
                born = self._split(k, min(fresh, self.limits.k_max - len(now) + 1))
                if born is None:
                    continue
                changed = torch.cat([without(self.stats, (*gone, k)), *stats, born[1]])
                value = self.sorted_elbo(changed)
                if rises(best, value):
                    now, best = changed, value
                    gone.append(k)
                    resps.append(born[0])
                    stats.append(born[1])
                    break
            else:
                self.birth_tried[k] = self.stats[k, 0]
        if gone:
            self.replace(gone, torch.cat(resps), torch.cat(stats))
            self.accepted["birth"] += len(gone)

    def _split(self, k: int, fresh: int) -> tuple[Tensor, Tensor] | None:
        """Up to `fresh` components (J, N), (J, F + 1) in place of component k, J >= 2; None where nothing promises."""
        weight = self.resp[k]
        sketch = self._sketch(weight, fresh)
        if sketch is None:
            return None
        rows = (weight > 1e-15).nonzero()[:, 0]
        features = self.features[rows]
        stats = sketch
        for _ in range(2):
            resp, stats = self._restricted_step(features, weight[rows], stats)
        kept = stats[:, 0] >= self.limits.min_retain
        if not kept.all():
            if kept.sum() < 2:
                return None
            resp, stats = self._restricted_step(features, weight[rows], stats[kept])
        everyone = weight.new_zeros(len(stats), len(weight))
        everyone[:, rows] = resp
        return everyone, stats

    def _restricted_step(self, features: Tensor, weight: Tensor, stats: Tensor) -> tuple[Tensor, Tensor]:
        """Share atoms of `weight` (N,) among components (J, F + 1): r_j = weight softmax_j(log N_j + E[log lik])."""
        weights = self.bound.log_likelihood_weights(self.bound.posterior(stats))
        weights[:, 0] += stats[:, 0].log()
        resp = torch.softmax(weights @ features.T, 0) * weight
        return resp, self.bound.statistics(features, resp)

    def _sketch(self, weight: Tensor, fresh: int) -> Tensor | None:
        """Statistics (J, F + 1) of a split found on a subsample of the atoms that are mostly in the component."""
        atoms = (weight > 0.1).nonzero()[:, 0]
        if len(atoms) > SUBSAMPLE:
            atoms = atoms[torch.randperm(len(atoms), generator=self.rng)[:SUBSAMPLE].to(atoms.device)]
        if len(atoms) < 2:
            return None
        features = self.features[atoms]
        scaled = weight[atoms] * (weight.sum() / weight[atoms].sum())  # counts as if all atoms were seen
        nearest = seed_clusters(features[:, 1 : 1 + self.bound.dim], weight[atoms], fresh, self.rng)
        resp = torch.nn.functional.one_hot(nearest).T * scaled
        stats = self.bound.statistics(features, resp)
        for _ in range(RESTRICTED_STEPS):
            stats = stats[stats[:, 0] >= self.limits.min_new]
            if len(stats) < 2:
                return None
            resp, stats = self._restricted_step(features, scaled, stats)
        part = Partition(self.bound, features, resp, stats, self.limits, self.rng)
        part.merge()
        whole = self.bound.statistics(features, scaled[None])
        return part.stats if len(part.stats) > 1 and part.elbo > self.bound.elbo(whole) else None


def rises(before: float, after: float) -> bool:
    """By more than rounding."""
    return after > before + 1e-10 * abs(before)


def without(rows: Tensor, gone: Collection[int]) -> Tensor:
    """The rows that are not in `gone`, copied."""
    return rows[[k for k in range(len(rows)) if k not in gone]]


def seed_clusters(x: Tensor, weight: Tensor, clusters: int, rng: torch.Generator) -> Tensor:
    """Cluster indices (N,) of x (N, D) by k-means++ seeding on whitened dimensions (Arthur and Vassilvitskii 2007).

    Fewer than `clusters` where fewer points are distinct. Only the draws happen on the CPU.
    """
    x = x / x.std(0).clamp(min=1e-12)
    first = torch.multinomial(weight.cpu(), 1, generator=rng).to(x.device)
    distance = (x - x[first]).square().sum(1)
    nearest = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    for j in range(1, clusters):
        chance = weight * distance
        if not chance.sum() > 0:
            break
        centre = torch.multinomial(chance.cpu(), 1, generator=rng).to(x.device)
        to_centre = (x - x[centre]).square().sum(1)
        nearest = torch.where(to_centre < distance, j, nearest)
        distance = torch.minimum(distance, to_centre)
    return nearest
