"""The variational bound of a Dirichlet-process mixture of Gaussians, in exponential-family form.

A point's features are phi(x) = (1, x, squares of x): for `diag` the D squares, for `full` the D (D + 1) / 2 products
x_i x_j, i <= j. With responsibilities R (K, N), all that the bound needs of the data is the (K, F + 1) matrix
T = (R phi | h): counts, sums, second moments, and h_k = -sum_n r_kn log r_kn. T of two disjoint data sets add up.

Model (Blei and Jordan 2006; Hughes and Sudderth 2013): u_k ~ Beta(1, gamma), pi_k = u_k prod_{l<k} (1 - u_l),
c_n ~ Cat(pi), x_n ~ N(mu_c, Lambda_c^-1), with a Normal-Gamma prior on each dimension, or a Normal-Wishart one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from rlcore.errors import NumericalError

LOG_2PI = math.log(2 * math.pi)


class Posterior(NamedTuple):
    """Normal-Gamma (diag) or Normal-Wishart (full) parameters of K components."""

    nu: Tensor  # (K,) degrees of freedom
    kappa: Tensor  # (K,) precision of the mean, in observations
    mean: Tensor  # (K, D)
    scale: Tensor  # (K, D) rates beta, or (K, D, D) matrices B


@dataclass(frozen=True)
class Bound:
    """Prior and bound. Everything is float64.

    Args:
        full: full covariances, or diagonal ones.
        gamma: concentration of the process. nu0 > D + 1 (full) or > 2; kappa0 > 0.
        mean0: (D,) prior mean, in the coordinates of the features. variance0: (D,) prior expectation of the variances.
    """

    full: bool
    gamma: float
    kappa0: float
    nu0: float
    mean0: Tensor
    variance0: Tensor

    @property
    def dim(self) -> int:
        return len(self.mean0)

    @cached_property
    def pairs(self) -> Tensor:
        """(2, D (D + 1) / 2) indices i <= j of the products in the features of `full`."""
        return torch.triu_indices(self.dim, self.dim, device=self.mean0.device)

    @cached_property
    def prior_log_normalizer(self) -> Tensor:
        nothing = 0 * self.statistics(self.features(self.mean0[None]), torch.ones_like(self.mean0[:1])[None])
        return self.log_normalizer(self.posterior(nothing))

    def features(self, x: Tensor) -> Tensor:
        """(N, D) -> (N, F)."""
        squares = x[:, self.pairs[0]] * x[:, self.pairs[1]] if self.full else x * x
        return torch.cat([torch.ones_like(x[:, :1]), x, squares], 1)

    # --- local and global steps ---------------------------------------------------------------------------------------
    def statistics(self, features: Tensor, resp: Tensor, entropy: Tensor | None = None) -> Tensor:
        """T (..., K, F + 1) of features (..., N, F) under resp (..., K, N)."""
        if entropy is None:
            entropy = -torch.xlogy(resp, resp).sum(-1)
        return torch.cat([resp @ features, entropy[..., None]], -1)

    def local_step(self, features: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Responsibilities (K, N) and the T that they give, under the `log_weights` of the components."""
        log_resp = torch.log_softmax(weights @ features.T, 0)
        resp = log_resp.exp()
        return resp, self.statistics(features, resp, -(log_resp.mul_(resp)).sum(1))

    def posterior(self, stats: Tensor) -> Posterior:
        """Conjugate update: prior plus statistics."""
        count, dim = stats[..., 0], self.dim
        total, square = stats[..., 1 : 1 + dim], stats[..., 1 + dim : -1]
        nu, kappa = self.nu0 + count, self.kappa0 + count
        mean = (self.kappa0 * self.mean0 + total) / kappa[..., None]
        if not self.full:
            beta0 = self.variance0 * (self.nu0 - 2)
            shrink = self.kappa0 * self.mean0**2 - kappa[..., None] * mean**2
            # never below the prior's, but for rounding
            return Posterior(nu, kappa, mean, torch.maximum(beta0 + square + shrink, 1e-6 * beta0))
        scale0 = torch.diag(self.variance0 * (self.nu0 - dim - 1))
        outer = self.kappa0 * torch.outer(self.mean0, self.mean0) - kappa[..., None, None] * (
            mean[..., :, None] * mean[..., None, :]
        )
        return Posterior(nu, kappa, mean, scale0 + self._unpack(square) + outer)

    def _unpack(self, products: Tensor) -> Tensor:
        """(..., D (D + 1) / 2) -> symmetric (..., D, D)."""
        matrix = products.new_empty(*products.shape[:-1], self.dim, self.dim)
        matrix[..., self.pairs[0], self.pairs[1]] = products
        matrix[..., self.pairs[1], self.pairs[0]] = products
        return matrix

    def log_weights(self, stats: Tensor) -> Tensor:
        """W (K, F) with W phi(x) = E[log pi_k] + E[log N(x; mu_k, Lambda_k^-1)]."""
        weights = self.log_likelihood_weights(self.posterior(stats))
        weights[:, 0] += expected_log_pi(stats[:, 0], self.gamma)
        return weights

    def log_likelihood_weights(self, post: Posterior) -> Tensor:
        """W (K, F) with W phi(x) = E[log N(x; mu_k, Lambda_k^-1)]."""
        nu, kappa, mean, scale = post
        if self.full:
            precision, log_det = self._precision(post)
        else:
            precision = nu[:, None] / scale
            log_det = (torch.digamma(nu / 2)[:, None] - (scale / 2).log()).sum(1)
        weights = self.density_weights(mean, precision, log_det)
        weights[:, 0] -= 0.5 * self.dim / kappa
        return weights

    def density_weights(self, mean: Tensor, precision: Tensor, log_det: Tensor) -> Tensor:
        """W (K, F) with W phi(x) = log N(x; mean_k, precision_k^-1): mean (K, D), precision (K, D) or (K, D, D)."""
        if self.full:
            linear = (precision @ mean[..., None])[..., 0]
            quadratic = -precision[..., self.pairs[0], self.pairs[1]]
            quadratic[..., self.pairs[0] == self.pairs[1]] *= 0.5
        else:
            linear, quadratic = precision * mean, -0.5 * precision
        constant = 0.5 * (log_det - self.dim * LOG_2PI - (linear * mean).sum(1))
        return torch.cat([constant[:, None], linear, quadratic], 1)

    def expected_features(self, mean: Tensor, var: Tensor) -> Tensor:
        """E[phi(z)] (B, F) of z ~ N(mean, diag var), (B, D) each."""
        expected = self.features(mean)
        where = (
            1 + self.dim + (self.pairs[0] == self.pairs[1]).nonzero()[:, 0] if self.full else slice(1 + self.dim, None)
        )
        expected[:, where] += var
        return expected

    def _precision(self, post: Posterior) -> tuple[Tensor, Tensor]:
        """E[Lambda] = nu B^-1 (K, D, D) and E[log |Lambda|] (K,) of the Normal-Wishart."""
        lower = cholesky(post.scale)
        half = (post.nu[:, None] - torch.arange(self.dim, device=post.nu.device)) / 2
        log_det = torch.digamma(half).sum(1) + self.dim * math.log(2) - log_determinant(lower)
        return post.nu[:, None, None] * torch.cholesky_inverse(lower), log_det

    def covariance(self, post: Posterior) -> Tensor:
        """E[Lambda^-1]: (K, D) variances or (K, D, D)."""
        freedom = post.nu - (self.dim + 1 if self.full else 2)
        return post.scale / freedom.reshape(-1, *[1] * (post.scale.ndim - 1))

    # --- the bound ----------------------------------------------------------------------------------------------------
    def log_normalizer(self, post: Posterior) -> Tensor:
        """c (K,): minus the log of the integral of the unnormalised density."""
        nu, kappa, _, scale = post
        common = 0.5 * self.dim * (kappa.log() - LOG_2PI)
        if self.full:
            gamma = torch.mvlgamma(nu / 2, self.dim)
            return common - 0.5 * nu * self.dim * math.log(2) - gamma + 0.5 * nu * log_determinant(cholesky(scale))
        gamma = torch.lgamma(nu / 2)[..., None]
        return common + (0.5 * nu[..., None] * (scale / 2).log() - gamma).sum(-1)

    def evidence_terms(self, stats: Tensor) -> Tensor:
        """(K,) what a component adds to the bound besides its stick: c(prior) - c(posterior) + h - N D/2 log 2 pi."""
        gain = self.prior_log_normalizer - self.log_normalizer(self.posterior(stats))
        return gain + stats[..., -1] - 0.5 * self.dim * LOG_2PI * stats[..., 0]

    def elbo(self, stats: Tensor) -> Tensor:
        """(): the evidence lower bound; exact right after a global step (Hughes and Sudderth 2013, eq. 8), in nats."""
        return self.evidence_terms(stats).sum() + stick_term(stats[:, 0], self.gamma)


def stick_parameters(count: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """Beta(eta1, eta0) of the sticks, (..., K) each: 1 + N_k and gamma + sum_{l>k} N_l."""
    after = count.flip(-1).cumsum(-1).flip(-1) - count
    return 1 + count, gamma + after.clamp(min=0)


def stick_term(count: Tensor, gamma: float) -> Tensor:
    """sum_k log B(eta1, eta0) - log B(1, gamma), over the last axis: E[log p(c, u) - log q(u)] after a global step."""
    eta1, eta0 = stick_parameters(count, gamma)
    log_beta = torch.lgamma(eta1) + torch.lgamma(eta0) - torch.lgamma(eta1 + eta0)
    return (log_beta + math.log(gamma)).sum(-1)  # B(1, gamma) = 1 / gamma


def expected_pi(count: Tensor, gamma: float) -> Tensor:
    """E[pi_k] (K,), scaled to a sum of 1: what the stick leaves for components that do not exist is shared out."""
    eta1, eta0 = stick_parameters(count, gamma)
    left = (eta0 / (eta1 + eta0)).cumprod(0)
    pi = eta1 / (eta1 + eta0) * torch.cat([left.new_ones(1), left[:-1]])
    return pi / pi.sum()


def expected_log_pi(count: Tensor, gamma: float) -> Tensor:
    """E[log pi_k] (K,) = E[log u_k] + sum_{l<k} E[log(1 - u_l)]."""
    eta1, eta0 = stick_parameters(count, gamma)
    both = torch.digamma(eta1 + eta0)
    rest = (torch.digamma(eta0) - both).cumsum(0)
    return torch.digamma(eta1) - both + rest - (rest.diff(prepend=rest.new_zeros(1)))


def cholesky(scale: Tensor) -> Tensor:
    """Lower factor of (..., D, D); one try with 1e-8 of the mean diagonal added.

    Raises: NumericalError when a matrix stays singular.
    """
    lower: Tensor
    lower, bad = torch.linalg.cholesky_ex(scale)
    if bad.any():
        jitter = 1e-8 * scale.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
        lower, bad = torch.linalg.cholesky_ex(scale + jitter * torch.eye(scale.shape[-1]).to(scale))
    if bad.any():
        raise NumericalError("a covariance of the mixture is singular: scale the data, or use a larger prior variance")
    return lower


def log_determinant(lower: Tensor) -> Tensor:
    """log |B| of a lower Cholesky factor of B."""
    return 2 * lower.diagonal(dim1=-2, dim2=-1).log().sum(-1)
