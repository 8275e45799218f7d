"""Mixtures of experts' features, orthogonalised or as they are. Backward passes are written out: on a CPU torch's own
gradients of products this narrow take several times as long.

Shapes: R rows, K experts, M features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

GUARD = 1e-6  # of the mean |f|^2 of a row, added to every pivot |v_k|^2


def gram_schmidt_mixture(features: Tensor, p: Tensor) -> Tensor:
    """sum_k p_k u_k, where u is the Gram-Schmidt basis of the K features of a row, taken in their order.

    MOORE (Hendawy et al. 2024, arXiv:2311.11385) makes the basis, K passes over the features. With f = L u, L the
    Cholesky factor of f f^T, the mixture is p^T L^-1 f: two passes, the rest is K x K. The guard keeps it finite where
    features are dependent or zero: it shortens u_k instead of dividing by 0.

    Args: features (R, K, M); p (R, K).
    Returns: (R, M); |y|^2 = sum_k p_k^2.
    """
    y: Tensor = _GramSchmidtMixture.apply(features, p)  # type: ignore[no-untyped-call]
    return y


def mixture(c: Tensor, features: Tensor) -> Tensor:
    """sum_k c_k f_k: c (R, K), features (R, K, M) -> (R, M)."""
    y: Tensor = _Mix.apply(c, features)  # type: ignore[no-untyped-call]
    return y


def mean_overlap(features: Tensor) -> Tensor:
    """Mean over rows and pairs k < l of cos^2(f_k, f_l): features (R, K, M) -> ()."""
    gram: Tensor = _Gram.apply(features)  # type: ignore[no-untyped-call]
    square = gram.diagonal(dim1=1, dim2=2)
    cos2 = gram.square() / (square.unsqueeze(1) * square.unsqueeze(2) + 1e-12)
    size = features.shape[1]
    return cos2.triu(1).sum((1, 2)).mean() / max(size * (size - 1) / 2, 1)


def inverse_cholesky(gram: Tensor) -> Tensor:
    """T (R, K, K), lower triangular with T gram T^T = 1, of gram (R, K, K) with its guard on the diagonal.

    Gauss on [gram, 1], rows of the batch innermost: K is small, and LAPACK gives up where a pivot rounds below 0.
    """
    rows, size, _ = gram.shape
    work = gram.new_zeros(size, 2 * size, rows)
    work[:, :size] = gram.permute(1, 2, 0)
    diagonal = work.diagonal(dim1=0, dim2=1)  # (R, K)
    guard = diagonal.mean(1, keepdim=True) * GUARD + 1e-12
    diagonal.add_(guard)
    work.diagonal(size, 0, 1).fill_(1.0)
    for k in range(size - 1):
        work[k, k].clamp_(min=guard[:, 0])
        factor = work[k + 1 :, k] / work[k, k]
        work[k + 1 :].addcmul_(factor.unsqueeze(1), work[k], value=-1)
    pivots = torch.maximum(diagonal, guard)
    return (work[:, size:] * pivots.t().rsqrt().unsqueeze(1)).permute(2, 0, 1)


class _GramSchmidtMixture(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, p: Tensor) -> Tensor:  # type: ignore[override]
        inverse = inverse_cholesky(features @ features.mT)
        c = (p.unsqueeze(1) @ inverse).squeeze(1)  # (R, K): T^T p
        ctx.save_for_backward(features, p, inverse, c)
        return (c.unsqueeze(1) @ features).squeeze(1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        """dT = -Phi(T dG T^T) T for G = f f^T, Phi the lower triangle with half of the diagonal (Murray 2016,
        arXiv:1602.07527), and c = T^T p. The guard's own gradient, a millionth, is left out."""
        features, p, inverse, c = ctx.saved_tensors
        of_c = features @ gradient.unsqueeze(2)  # (R, K, 1)
        of_p = inverse @ of_c
        inner = (p.unsqueeze(2) * of_p.mT).tril_()
        inner.diagonal(dim1=1, dim2=2).mul_(0.5)
        of_gram = inverse.mT @ (inner @ inverse)  # the gradient's negative
        of_features = torch.baddbmm(c.unsqueeze(2) * gradient.unsqueeze(1), of_gram + of_gram.mT, features, alpha=-1)
        return of_features, of_p.squeeze(2)


class _Gram(torch.autograd.Function):
    """f f^T of features (R, K, M)."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(features)
        return features @ features.mT

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        return (gradient + gradient.mT) @ ctx.saved_tensors[0]


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, c: Tensor, features: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(c, features)
        return (c.unsqueeze(1) @ features).squeeze(1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        c, features = ctx.saved_tensors
        spread = gradient.unsqueeze(1)
        return (features * spread).sum(2), c.unsqueeze(2) * spread
