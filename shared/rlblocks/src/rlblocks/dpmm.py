"""A Dirichlet-process mixture of Gaussians that grows, merges and drops components while it is fitted.

Memoized variational inference (Hughes and Sudderth, NeurIPS 2013); the equations are in dp_bound.py, the moves in
dp_moves.py. A fit holds the features and responsibilities of all N points: 8 N (F + K) bytes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlblocks.dp_bound import Bound, expected_pi
from rlblocks.dp_moves import Limits, Partition
from rlcore.errors import DataError, UsageError

MOVES = ("birth", "merge", "delete", "shuffle")
ArrayLike = Any  # numpy array or torch tensor


@dataclass(frozen=True)
class FitReport:
    """What `DPMixture.fit` did."""

    elbo: list[float]  # nats, after each lap and its moves
    num_components: int
    loss: float  # -elbo / (N D), nats: comparable between data sets, and with bnpy
    accepted: dict[str, int]  # moves
    converged: bool


class DPMixture:
    """Mixture of Gaussians under a Dirichlet process: no number of components to choose.

    Arrays come and go as numpy or torch, in their own type and device; inside all is float64. The seed decides a fit.

    Args:
        dim: D. covariance: "diag" or "full".
        concentration: gamma of the process; larger expects more components.
        k_max: never more components than this.
        prior_variance: expected variance in each dimension before any data, or "auto": a tenth of the data's.
        prior_mean: in each dimension, or "data".
        kappa0: weight of the prior mean, in observations. nu0: degrees of freedom, D + 2 by default.
        min_new, min_target, min_retain: atoms below which a fresh component is dropped while it competes, above which
            one is split, and below which a fresh one is not kept. By default 0.13 % of the data and at least 16; 1.2
            times that; the first.
        chunk: atoms between two global steps.
        device: where the sums are made.
    """

    def __init__(
        self, dim: int, *, covariance: str = "diag", concentration: float = 5.0, k_max: int = 100,
        prior_variance: float | str = 0.1, prior_mean: float | str = 0.0, kappa0: float = 1e-4,
        nu0: float | None = None, min_new: float | None = None, min_target: float | None = None,
        min_retain: float | None = None, chunk: int = 65_536, seed: int = 0, device: str | torch.device = "cpu",
    ) -> None:  # fmt: skip
        self.options: dict[str, Any] = {
            "dim": dim, "covariance": covariance, "concentration": concentration, "k_max": k_max,
            "prior_variance": prior_variance, "prior_mean": prior_mean, "kappa0": kappa0,
            "nu0": dim + 2.0 if nu0 is None else nu0, "min_new": min_new, "min_target": min_target,
            "min_retain": min_retain, "chunk": chunk,
        }  # fmt: skip
        check_options(self.options)
        self.device = torch.device(device)
        self.rng = torch.Generator().manual_seed(seed)
        self.bound: Bound | None = None
        self.shift = torch.zeros(dim, dtype=torch.float64, device=self.device)
        self.stats = torch.zeros(0, 0, dtype=torch.float64, device=self.device)  # (K, F + 1), see dp_bound
        self.batches_seen = 0

    # --- fitting ------------------------------------------------------------------------------------------------------
    def fit(
        self, x: ArrayLike, *, warm: bool = True, resp: ArrayLike | None = None, mode: str = "memoized",
        max_laps: int = 100, tolerance: float = 1e-6, time_limit_s: float = math.inf,
        moves: Collection[str] = MOVES,
    ) -> FitReport:  # fmt: skip
        """Fit x (N, D) until a lap neither moves nor raises the bound by `tolerance` of itself.

        Args:
            warm: begin with the components of the last fit, which x need not resemble closely; else with one component.
            resp: (N, K) responsibilities to begin with instead.
            mode: "memoized" takes a global step after every chunk, "full" after every lap; in both the bound never
                falls. "stochastic" follows noisy natural gradients (`partial_fit`) and moves only on its first chunk.
            max_laps, time_limit_s: stop anyway; the report then says converged=False.
        Raises: DataError for x of another shape, without rows, or not finite.
        """
        check_choice("mode", mode, ("memoized", "full", "stochastic"))
        for move in moves:
            check_choice("moves", move, MOVES)
        points, deadline = self._points(x), time.monotonic() + time_limit_s
        if self.bound is None or resp is not None or not warm:
            self._begin(points)
        if mode == "stochastic":
            return self._fit_stochastic(points, max_laps, tolerance, deadline)
        part = self._partition(points, resp)
        size = len(points) if mode == "full" else self.options["chunk"]
        chunks = [slice(start, start + size) for start in range(0, len(points), size)]
        trace: list[float] = []
        converged = False
        while len(trace) < max_laps and not converged and (not trace or time.monotonic() < deadline):
            lap(part, chunks)
            before = part.accepted.total()
            for move in MOVES:
                if move in moves:
                    getattr(part, move)()
            trace.append(part.elbo)
            still = part.accepted.total() == before
            converged = still and len(trace) > 1 and trace[-1] - trace[-2] <= tolerance * abs(trace[-1])
        self.stats, self.batches_seen = part.stats, 1
        return FitReport(trace, self.num_components, -trace[-1] / points.numel(), dict(part.accepted), converged)

    def partial_fit(
        self, x: ArrayLike, *, population: float | None = None, delay: float = 1.0, forgetting: float = 0.6
    ) -> None:
        """One stochastic step on a batch x (N, D): statistics <- (1 - rho) old + rho population / N batch.

        rho = (delay + batches seen)^-forgetting (Hoffman et al. 2013, eq. 26). The first batch is fitted with moves;
        none happen later. population: how many points there are in all, by default as many as in the batch.
        """
        points = self._points(x)
        scale = (population or len(points)) / len(points)
        if self.bound is None:
            self.fit(points)
            self.stats = self.stats * scale
            return
        rho = (delay + self.batches_seen) ** -forgetting
        _, batch = self._fitted.local_step(self._features(points), self._fitted.log_weights(self.stats))
        self.stats = (1 - rho) * self.stats + rho * scale * batch
        self.batches_seen += 1

    def _fit_stochastic(self, points: Tensor, max_laps: int, tolerance: float, deadline: float) -> FitReport:
        size, accepted = min(self.options["chunk"], max(1, len(points) // 8)), {}
        if not len(self.stats):
            first = points[torch.randperm(len(points), generator=self.rng)[:size].to(points.device)]
            accepted = self.fit(first, max_laps=20).accepted
            self.stats = self.stats * (len(points) / size)
        trace: list[float] = []
        converged = False
        while len(trace) < max_laps and not converged and (not trace or time.monotonic() < deadline):
            for rows in torch.randperm(len(points), generator=self.rng).split(size):
                self.partial_fit(points[rows.to(points.device)], population=len(points))
            trace.append(float(self._fitted.elbo(self.stats)))  # an estimate
            converged = len(trace) > 1 and abs(trace[-1] - trace[-2]) <= tolerance * abs(trace[-1])
        _, self.stats = self._fitted.local_step(self._features(points), self._fitted.log_weights(self.stats))
        trace.append(float(self._fitted.elbo(self.stats)))
        return FitReport(trace, self.num_components, -trace[-1] / points.numel(), accepted, converged)

    def _begin(self, points: Tensor) -> None:
        """Forget the components; take from the data what the options leave to them."""
        options, ones = self.options, torch.ones(self.dim, dtype=torch.float64, device=self.device)
        self.shift = points.mean(0)  # an origin near the data keeps second moments exact
        variance, mean = options["prior_variance"], options["prior_mean"]
        if variance == "auto":
            variance = 0.1 * points.var(0, correction=0).mean().clamp(min=1e-12)
        self._set_bound(0 * ones if mean == "data" else mean * ones - self.shift, variance * ones)
        self.stats = self.stats[:0]

    def _set_bound(self, mean0: Tensor, variance0: Tensor) -> None:
        o = self.options
        self.bound = Bound(o["covariance"] == "full", o["concentration"], o["kappa0"], o["nu0"], mean0, variance0)

    def _partition(self, points: Tensor, resp: ArrayLike | None) -> Partition:
        """The given responsibilities, those under the last components, or one component."""
        bound, features = self._fitted, self._features(points)
        if resp is not None:
            given = torch.as_tensor(resp).to(points).T.contiguous()
            if given.shape[1] != len(points) or not torch.allclose(given.sum(0), torch.ones_like(given[0]), atol=1e-4):
                raise DataError(f"resp must be ({len(points)}, K) with rows that sum to 1, got {tuple(given.T.shape)}")
            given = given / given.sum(0)
            stats = bound.statistics(features, given)
        elif len(self.stats):
            given, stats = bound.local_step(features, bound.log_weights(self.stats))
        else:
            given = torch.ones_like(features[:, 0])[None]
            stats = bound.statistics(features, given)
        o = self.options
        min_new = o["min_new"] if o["min_new"] is not None else max(16.0, 0.0013 * len(points))
        min_target = o["min_target"] if o["min_target"] is not None else 1.2 * min_new
        min_retain = o["min_retain"] if o["min_retain"] is not None else min_new
        return Partition(bound, features, given, stats, Limits(min_target, min_new, min_retain, o["k_max"]), self.rng)

    # --- reading ------------------------------------------------------------------------------------------------------
    @property
    def dim(self) -> int:
        return int(self.options["dim"])

    @property
    def num_components(self) -> int:
        """K; 0 before the first fit."""
        return len(self.stats)

    @property
    def counts(self) -> Tensor:
        """(K,) expected atoms of each component in the last fit."""
        return self.stats[:, 0]

    @property
    def weights(self) -> Tensor:
        """(K,) expected mixture weights; they sum to 1."""
        return expected_pi(self.counts, self._fitted.gamma)

    @property
    def means(self) -> Tensor:
        """(K, D) posterior means."""
        return self._fitted.posterior(self.stats).mean + self.shift

    @property
    def covariances(self) -> Tensor:
        """(K, D, D) posterior expectations of the covariances."""
        covariance = self._fitted.covariance(self._fitted.posterior(self.stats))
        return covariance if self._fitted.full else torch.diag_embed(covariance)

    @property
    def variances(self) -> Tensor:
        """(K, D) the diagonals of `covariances`."""
        return self.covariances.diagonal(dim1=1, dim2=2)

    @torch.no_grad()
    def responsibilities(self, x: ArrayLike) -> Any:
        """(N, K) variational q(c_n = k) for x (N, D), in x's type; rows sum to 1."""
        log_resp = self._features(self._points(x)) @ self._fitted.log_weights(self.stats).T
        return like(torch.softmax(log_resp, 1), x)

    def predict(self, x: ArrayLike) -> Any:
        """(N,) the most responsible component of each row; largest component first is 0."""
        return self.responsibilities(x).argmax(1)

    def log_prob(self, x: ArrayLike) -> Any:
        """(N,) log density in nats of the mixture with its expected parameters; differentiable in a torch x."""
        points = x if isinstance(x, Tensor) else self._points(x)
        log_weight = self.weights.log()
        return like(torch.logsumexp(self._features(points.to(self.shift)) @ self._density.T + log_weight, 1), x)

    def sample(self, n: int, component: int | None = None) -> tuple[Tensor, Tensor]:
        """Draw n points (n, D) float32 and the component (n,) of each; from one component only, if given."""
        if component is None:
            chosen = torch.multinomial(self.weights.cpu(), n, replacement=True, generator=self.rng)
        else:
            chosen = torch.full((n,), range(self.num_components)[component])
        noise = torch.randn(n, self.dim, dtype=torch.float64, generator=self.rng)
        lower, means = torch.linalg.cholesky(self.covariances).cpu(), self.means.cpu()
        x = means[chosen] + (lower[chosen] @ noise[..., None])[..., 0]
        return x.to(self.device, torch.float32), chosen.to(self.device)

    def kl_to_components(self, mean: Tensor, log_var: Tensor) -> Tensor:
        """KL(N(mean, diag exp(log_var)) || component k) (B, K) in nats, summed over D; differentiable.

        Args: mean, log_var (B, D), torch.
        """
        features = self._fitted.expected_features(mean.to(self.shift) - self.shift, log_var.to(self.shift).exp())
        entropy = 0.5 * (log_var.to(self.shift) + 1 + math.log(2 * math.pi)).sum(1)
        return (-(features @ self._density.T) - entropy[:, None]).to(mean)

    def kl(self, mean: Tensor, log_var: Tensor, z: Tensor | None = None, *, hard: bool = False) -> Tensor:
        """(B,) sum_k r_k(z) KL_k; no gradient through r; z is `mean` if not given. hard: the best component only."""
        resp: Tensor = self.responsibilities(mean if z is None else z)
        divergence = self.kl_to_components(mean, log_var)
        if hard:
            return divergence.gather(1, resp.argmax(1, keepdim=True))[:, 0]
        return (resp * divergence).sum(1)

    # --- saving -------------------------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """Everything, as plain values and tensors."""
        prior = {} if self.bound is None else {"mean0": self.bound.mean0, "variance0": self.bound.variance0}
        return {
            "options": dict(self.options), **prior, "shift": self.shift, "stats": self.stats,
            "batches_seen": self.batches_seen, "rng": self.rng.get_state(),
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`. Raises: DataError where it is of another dimension or covariance."""
        for name in ("dim", "covariance"):
            if state["options"][name] != self.options[name]:
                raise DataError(
                    f"mixture: {name} is {self.options[name]} here and {state['options'][name]} in the file"
                )
        self.options = dict(state["options"])
        self.shift, self.stats = state["shift"].to(self.device), state["stats"].to(self.device)
        self.batches_seen = int(state["batches_seen"])
        self.rng.set_state(state["rng"])
        self.bound = None
        if "mean0" in state:
            self._set_bound(state["mean0"].to(self.device), state["variance0"].to(self.device))

    # --- inside -------------------------------------------------------------------------------------------------------
    @property
    def _fitted(self) -> Bound:
        if self.bound is None:
            raise UsageError("this mixture has no components yet: call fit(x) first")
        return self.bound

    @property
    def _density(self) -> Tensor:
        """W (K, F) of log N under the expected covariances."""
        covariance = self._fitted.covariance(self._fitted.posterior(self.stats))
        if self._fitted.full:
            precision, log_det = torch.linalg.inv(covariance), -torch.linalg.slogdet(covariance)[1]
        else:
            precision, log_det = 1 / covariance, -covariance.log().sum(1)
        return self._fitted.density_weights(self.means - self.shift, precision, log_det)

    def _features(self, points: Tensor) -> Tensor:
        return self._fitted.features(points - self.shift)

    def _points(self, x: ArrayLike) -> Tensor:
        """x as float64 on our device, checked."""
        points = torch.as_tensor(x).detach().to(self.device, torch.float64)
        if points.ndim != 2 or points.shape[1] != self.dim or not len(points):
            raise DataError(f"mixture: expected points (N, {self.dim}) with N >= 1, got {tuple(points.shape)}")
        if not bool(torch.isfinite(points).all()):
            row = int((~torch.isfinite(points)).any(1).nonzero()[0, 0])
            raise DataError(f"mixture: row {row} of {len(points)} is not finite: {points[row].tolist()}")
        return points


def lap(part: Partition, chunks: list[slice]) -> None:
    """A local step for every chunk, a global step after each: the statistics of a chunk replace its old ones."""
    if len(chunks) == 1:
        part.resp, part.stats = part.bound.local_step(part.features, part.bound.log_weights(part.stats))
        return
    memo = [part.bound.statistics(part.features[rows], part.resp[:, rows]) for rows in chunks]
    stats = torch.stack(memo).sum(0)
    for i, rows in enumerate(chunks):
        part.resp[:, rows], new = part.bound.local_step(part.features[rows], part.bound.log_weights(stats))
        stats = stats + (new - memo[i])
        memo[i] = new
    part.stats = torch.stack(memo).sum(0)


def like(value: Tensor, x: ArrayLike) -> Any:
    """`value` in the type of x."""
    return value.to(x) if isinstance(x, Tensor) else value.detach().cpu().numpy().astype(np.asarray(x).dtype)


def check_choice(what: str, value: Any, choices: Collection[str]) -> None:
    if value not in choices:
        raise UsageError(f"mixture: {what} must be one of {', '.join(choices)}, got {value!r}")


def check_options(options: Mapping[str, Any]) -> None:
    """Raises: UsageError naming the option."""
    o, least = options, options["dim"] + 1 if options["covariance"] == "full" else 2
    check_choice("covariance", o["covariance"], ("diag", "full"))
    positive = ["dim", "concentration", "k_max", "kappa0", "chunk"]
    positive += ["prior_variance"] if o["prior_variance"] != "auto" else []
    for name in positive:
        if isinstance(o[name], str) or not o[name] > 0:
            raise UsageError(f"mixture: {name} must be > 0, got {o[name]!r}")
    if isinstance(o["prior_mean"], str) and o["prior_mean"] != "data":
        raise UsageError(f"mixture: prior_mean must be a number or 'data', got {o['prior_mean']!r}")
    if not o["nu0"] > least:
        raise UsageError(f"mixture: nu0 must be > {least}, or variances have no expectation; got {o['nu0']}")
