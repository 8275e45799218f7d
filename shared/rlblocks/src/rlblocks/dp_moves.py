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

FIRST = 25  # components that the first birth tries: it sees the whole
FRESH = 5  # and every later one
SUBSAMPLE = 10_000  # atoms that a birth looks at before it asks all of them
RESTRICTED_STEPS = 10
MERGE_CANDIDATES = 10
DELETE_CANDIDATES = 2
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
    tried: Tensor = field(init=False)  # (K, 2) counts at which birth and delete failed, NaN where none was tried

    def __post_init__(self) -> None:
        self.tried = torch.full_like(self.stats[:, :2], torch.nan)

    @property
    def elbo(self) -> float:
        return float(self.bound.elbo(self.stats))

    def sorted_elbo(self, stats: Tensor) -> float:
        """The bound of other statistics (J, F + 1), largest component first."""
        return float(self.bound.elbo(stats[stats[:, 0].argsort(descending=True)]))

    def replace(self, gone: Collection[int], resp: Tensor, stats: Tensor) -> None:
        """Components `gone` make way for others (J, N), (J, F + 1), which come last; then the largest come first."""
        self.tried = torch.cat([without(self.tried, gone), torch.full_like(stats[:, :2], torch.nan)])
        self.resp, self.stats = (torch.cat([without(a, gone), b]) for a, b in ((self.resp, resp), (self.stats, stats)))
        self.sort()

    def sort(self) -> None:
        order = self.stats[:, 0].argsort(descending=True, stable=True)
        if not bool((order.diff() == 1).all()):
            self.resp, self.stats, self.tried = self.resp[order], self.stats[order], self.tried[order]

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
        small = self.stats[:, 0] < 0.5 * self.stats[:, 0].mean()  # large ones are for merges
        untried = (self._untried(1) & small).nonzero()[:, 0].flip(0)[:DELETE_CANDIDATES]
        for k in untried.tolist():
            if len(self.stats) == 1 or self._delete_one(k):
                break  # the others have other atoms now
            self.tried[k, 1] = self.stats[k, 0]

    def _delete_one(self, k: int) -> bool:
        rows = (self.resp[k] > 1e-15).nonzero()[:, 0]
        features = self.features[rows]
        fixed = without(self.stats - self.bound.statistics(features, self.resp[:, rows]), (k,))
        weights = self.bound.log_weights(without(self.stats, (k,)))
        for _ in range(2):
            resp, stats = self.bound.local_step(features, weights)
            stats = stats + fixed
            weights = self.bound.log_weights(stats)
        if not rises(self.elbo, self.sorted_elbo(stats)):
            return False
        self.resp, self.tried, self.stats = without(self.resp, (k,)), without(self.tried, (k,)), stats
        self.resp[:, rows] = resp
        self.sort()
        self.accepted["delete"] += 1
        return True

    def _untried(self, move: int) -> Tensor:
        """(K,) bool: birth (0) or delete (1) has never failed, or the component has changed since."""
        return ~((self.stats[:, 0] - self.tried[:, move]).abs() <= STALE * self.tried[:, move])

    # --- birth --------------------------------------------------------------------------------------------------------
    def birth(self) -> None:
        """Split components into fresh ones; each split is tried on the bound with those before it."""
        now, best = self.stats, self.elbo
        born: list[tuple[int, Tensor, Tensor]] = []
        for k in self._promising():
            for fresh in (FIRST, FRESH, 2) if len(self.stats) == 1 else (FRESH, 2):
                split = self._split(k, min(fresh, self.limits.k_max - len(now) + 1))
                if split is None:
                    continue
                kept = without(self.stats, (k, *(gone for gone, _, _ in born)))
                changed = torch.cat([kept, *(stats for _, _, stats in born), split[1]])
                if rises(best, value := self.sorted_elbo(changed)):
                    now, best = changed, value
                    born.append((k, *split))
                    break
            else:
                self.tried[k, 0] = self.stats[k, 0]
        if born:
            gone, resps, parts = zip(*born)
            self.replace(gone, torch.cat(resps), torch.cat(parts))
            self.accepted["birth"] += len(born)

    def _promising(self) -> list[int]:
        """Components that two would fit better by themselves; the others count as tried.

        Judged on a sample of each one's own atoms, all at once, in batches (C, M) padded with weight 0.
        """
        count = self.stats[:, 0]
        k = (self._untried(0) & (count >= self.limits.min_target)).nonzero()[:, 0]
        if not len(k) or len(self.stats) >= self.limits.k_max:
            return []
        atoms, weight = own_atoms(self.resp[k], max(500, SUBSAMPLE // len(k)))
        features = self.features[atoms]  # (C, M, F)
        second = seed_clusters(features[..., 1 : 1 + self.bound.dim], weight, 2, self.rng)
        resp = torch.stack([weight * (1 - second), weight * second], 1)  # (C, 2, M)
        for _ in range(RESTRICTED_STEPS):
            resp = self._restricted_step(features, weight[:, None], self._sums(features, resp))
        two, one = self.bound.statistics(features, resp), self.bound.statistics(features, weight[:, None])
        gain = self.bound.evidence_terms(two).sum(1) - self.bound.evidence_terms(one)[:, 0]
        counts = torch.cat([count.repeat(len(k), 1), two[:, 1:, 0]], 1)
        counts[torch.arange(len(k)), k] = two[:, 0, 0]
        gain += stick_term(counts.sort(descending=True).values, self.bound.gamma) - stick_term(count, self.bound.gamma)
        good = (gain > 0) & (two[..., 0] >= self.limits.min_new).all(1)
        self.tried[k[~good], 0] = count[k[~good]]
        return k[good].tolist()

    def _split(self, k: int, fresh: int) -> tuple[Tensor, Tensor] | None:
        """Up to `fresh` components (J, N), (J, F + 1) in place of component k, J >= 2; None where nothing promises."""
        stats = self._sketch(self.resp[k], fresh) if fresh > 1 else None
        if stats is None:
            return None
        rows = (self.resp[k] > 1e-15).nonzero()[:, 0]
        features, weight = self.features[rows], self.resp[k, rows]
        stats = self._sums(features, self._restricted_step(features, weight, stats))
        stats = self._sums(features, self._restricted_step(features, weight, stats))
        stats = stats[stats[:, 0] >= self.limits.min_retain]
        if len(stats) < 2:
            return None
        resp = self._restricted_step(features, weight, stats)
        everyone = self.resp.new_zeros(len(stats), self.resp.shape[1])
        everyone[:, rows] = resp
        return everyone, self.bound.statistics(features, resp)

    def _restricted_step(self, features: Tensor, weight: Tensor, stats: Tensor) -> Tensor:
        """Share atoms of `weight` (..., 1, N) among J components: weight * softmax_j(log N_j + E[log lik])."""
        rows = stats.flatten(0, -2)
        weights = self.bound.log_likelihood_weights(self.bound.posterior(rows))
        weights[:, 0] += rows[:, 0].clamp(min=1e-300).log()
        return torch.softmax(weights.view(*stats.shape[:-1], -1) @ features.mT, -2) * weight

    def _sums(self, features: Tensor, resp: Tensor) -> Tensor:
        """Statistics without entropies: the next step needs none."""
        return self.bound.statistics(features, resp, torch.zeros_like(resp[..., 0]))

    def _sketch(self, weight: Tensor, fresh: int) -> Tensor | None:
        """Statistics (J, F + 1) of a split found on a subsample of the atoms that are mostly in the component."""
        atoms = (weight > 0.1).nonzero()[:, 0]
        if len(atoms) > SUBSAMPLE:
            atoms = atoms[torch.randperm(len(atoms), generator=self.rng)[:SUBSAMPLE].to(atoms.device)]
        if len(atoms) < 2:
            return None
        features = self.features[atoms]
        scaled = weight[atoms] * (weight.sum() / weight[atoms].sum())  # counts as if all atoms were seen
        x = features[None, :, 1 : 1 + self.bound.dim]
        nearest = seed_clusters(x, scaled[None], fresh, self.rng)[0]
        resp = torch.nn.functional.one_hot(nearest, fresh).T * scaled
        for _ in range(RESTRICTED_STEPS):
            stats = self._sums(features, resp)
            stats = stats[stats[:, 0] >= self.limits.min_new]
            if len(stats) < 2:
                return None
            resp = self._restricted_step(features, scaled, stats)
        stats = self.bound.statistics(features, resp)
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


def own_atoms(resp: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """For each of C components with responsibilities (C, N): up to `most` atoms that are mainly its own, evenly spaced.

    Returns: indices (C, M) and weights (C, M) that sum to the component's count; padding has weight 0.
    """
    row, atom = (resp > 0.5).nonzero().T
    size = torch.bincount(row, minlength=len(resp))[:, None]
    m = int(size.max().clamp(1, most))
    column = torch.arange(m, device=resp.device)
    place = torch.where(size > m, column * size // m, column)
    inside = place < size
    if not len(atom):
        atom = row.new_zeros(1)
    index = atom[((size.cumsum(0) - size) + place).clamp(max=len(atom) - 1)]
    weight = resp.gather(1, index) * inside
    weight[:, 0] = weight[:, 0].clamp(min=1e-12)  # a component that owns nothing is one atom: nothing to split
    return index, weight * (resp.sum(1) / weight.sum(1))[:, None]


def seed_clusters(x: Tensor, weight: Tensor, clusters: int, rng: torch.Generator) -> Tensor:
    """Cluster indices (C, M) by k-means++ seeding of each row of x (C, M, D) (Arthur and Vassilvitskii 2007).

    Dimensions are whitened in each row. Where fewer points are distinct, the last clusters stay empty. Only the draws
    happen on the CPU.

    Args: weight (C, M), >= 0, not all 0 in a row.
    """
    share = (weight / weight.sum(1, keepdim=True))[..., None]
    x = x - (share * x).sum(1, keepdim=True)
    x = x / (share * x.square()).sum(1, keepdim=True).sqrt().clamp(min=1e-12)
    nearest = torch.zeros_like(weight, dtype=torch.int64)
    distance = torch.full_like(weight, torch.inf)
    for j in range(clusters):
        chance = weight * distance if j else weight
        chance = torch.where(chance.sum(1, keepdim=True) > 0, chance, weight)
        centre = torch.multinomial(chance.cpu(), 1, generator=rng).to(x.device)
        to_centre = (x - x.gather(1, centre[..., None].expand(-1, -1, x.shape[2]))).square().sum(2)
        nearest = torch.where(to_centre < distance, j, nearest)
        distance = torch.minimum(distance, to_centre)
    return nearest
