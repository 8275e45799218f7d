"""A mixture of experts in place of an MLP's hidden layers: soft gates, batched experts, features kept orthogonal.

Shapes: R rows, K experts, M features, T tasks.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from prismatic.layers import INIT_STD, Linear, NormedLinear, StackedNormedLinear, mish
from prismatic.losses import load_balance, mutual_information, normalised_entropy, temperature_step

HISTORY = 1_000  # updates that the plots look back on
DEAD_LOAD, DEAD_AFTER = 0.01, 1_000  # an expert below this share for so many updates is dead


class Gate(NamedTuple):
    """What training needs to know of one pass through a mixture."""

    p: Tensor  # (..., K) weights of the experts, rows sum to 1
    overlap: Tensor  # () mean cos^2 between the experts' features; 0 unless it is a loss


class _Gram(torch.autograd.Function):
    """f f^T of features (R, K, M). torch's own gradient of this and of `_Mix` takes 20 times as long on a CPU."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(features)
        return features @ features.mT

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        return (gradient + gradient.mT) @ ctx.saved_tensors[0]


class _Mix(torch.autograd.Function):
    """`mixture` with a gradient that is fast on a CPU."""

    @staticmethod
    def forward(ctx: Any, c: Tensor, features: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(c, features)
        return (c.unsqueeze(1) @ features).squeeze(1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        c, features = ctx.saved_tensors
        spread = gradient.unsqueeze(1)
        return (features * spread).sum(2), c.unsqueeze(2) * spread


def gram_schmidt_mixture(features: Tensor, p: Tensor) -> Tensor:
    """sum_k p_k u_k, where u is the Gram-Schmidt basis of the K features of a row, taken in their order.

    MOORE (Hendawy et al. 2024, arXiv:2311.11385) makes the basis, K passes over the features. With f = L u, L the
    Cholesky factor of f f^T, the mixture is p^T L^-1 f: two passes, the rest is K x K. The guard: every pivot |v_k|^2
    gets 1e-6 of the mean |f|^2, so that dependent or zero features shorten u_k instead of dividing by 0.

    Args: features (R, K, M); p (R, K).
    Returns: (R, M); |y|^2 = sum_k p_k^2.
    """
    size = features.shape[1]
    gram: Tensor = _Gram.apply(features)  # type: ignore[no-untyped-call]  # (R, K, K)
    guard = 1e-6 * gram.diagonal(dim1=1, dim2=2).mean(1) + 1e-12
    pivots, columns = [], []
    for k in range(size):  # over experts, on whole batches: column k of L, then what is left of the Gram matrix
        pivots.append((gram[:, 0, 0].clamp(min=0.0) + guard).rsqrt())
        columns.append(gram[:, 1:, 0] * pivots[k].unsqueeze(1))
        gram = gram[:, 1:, 1:] - columns[k].unsqueeze(2) * columns[k].unsqueeze(1)
    c = p[:, :0]
    for k in reversed(range(size)):  # c = L^-T p
        c = torch.cat((((p[:, k] - (columns[k] * c).sum(1)) * pivots[k]).unsqueeze(1), c), 1)
    return mixture(c, features)


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


def keep_top(p: Tensor, k: int) -> Tensor:
    """p (..., K) with all but the k largest at 0, rows summing to 1 again."""
    kept = torch.zeros_like(p).scatter(-1, p.topk(k).indices, 1.0) * p
    return kept / kept.sum(-1, keepdim=True)


class MoE(nn.Module):
    """head(sum_k p_k f_k(x)), p = softmax(gate(x) / tau).

    The gate sees all of x: state, action and task, for each row alone. The last layer of the gate starts at 0, so that
    experts start with equal shares. One head serves all experts: its output means the same whoever speaks.

    Args:
        dims: width of x, hidden units of the gate, of an expert, and M, an expert's features.
        head: (..., M) -> the output.
    """

    def __init__(
        self,
        dims: tuple[int, int, int, int],
        num_experts: int,
        head: nn.Module,
        *,
        orthogonal: Literal["off", "features", "penalty", "init"] = "features",
        top_k: int = 0,
        tau: float = 1.0,
        num_tasks: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        width, gate_dim, expert_dim, feature_dim = dims
        self.num_experts, self.orthogonal, self.top_k = num_experts, orthogonal, top_k
        self.gate_in = NormedLinear(width, gate_dim, mish, generator)
        self.gate_out = Linear(gate_dim, num_experts, generator, zero=True)
        self.inner = StackedNormedLinear(num_experts, width, expert_dim, generator)
        self.outer = StackedNormedLinear(num_experts, expert_dim, feature_dim, generator)
        self.head = head
        if orthogonal != "off" and not self.inner.weight.is_meta:
            flat = self.inner.weight.detach().view(-1, width)
            nn.init.orthogonal_(flat, gain=INIT_STD * max(flat.shape) ** 0.5, generator=generator)
        self.tau: Tensor
        self.history: Tensor
        self.task_history: Tensor
        self.count: Tensor
        self.quiet: Tensor
        self.register_buffer("tau", torch.tensor(tau))
        self.register_buffer("history", torch.zeros(HISTORY, num_experts))  # a ring: row count % HISTORY is next
        self.register_buffer("task_history", torch.zeros(HISTORY if num_tasks > 1 else 0, num_tasks, num_experts))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("quiet", torch.zeros(num_experts, dtype=torch.int64))  # updates below DEAD_LOAD, in a row

    def gate(self, x: Tensor) -> Tensor:
        """Weights of the experts: (..., width) -> (..., K), float32."""
        p = (self.gate_out(self.gate_in(x)).float() / self.tau).softmax(-1)
        return keep_top(p, self.top_k) if 0 < self.top_k < self.num_experts else p

    def forward(self, x: Tensor, gates: list[Gate] | None = None) -> Tensor:
        """(..., width) -> (..., out). Training passes a list that the gate is appended to."""
        rows = x.reshape(-1, x.shape[-1])
        p = self.gate(rows)
        features = self.outer(self.inner(rows)).float().transpose(0, 1)  # (R, K, M)
        with torch.autocast(x.device.type, enabled=False):
            if self.orthogonal == "features":
                y = gram_schmidt_mixture(features, p) * features.shape[-1] ** 0.5
            else:
                y = mixture(p, features)
            if gates is not None:
                overlap = mean_overlap(features) if self.orthogonal == "penalty" else p.new_zeros(())
                gates.append(Gate(p.view(*x.shape[:-1], -1), overlap))
        out: Tensor = self.head(y.view(*x.shape[:-1], -1))
        return out

    @torch.no_grad()
    def observe(
        self, p: Tensor, task: Tensor, good: Tensor, target: float, beta: float, low: float, high: float
    ) -> dict[str, Tensor]:
        """After an update: move the temperature, remember the loads. Nothing changes unless `good` () bool.

        Args: p (H, B, K) gates of the update; task (B,); target, beta, low, high as for `temperature_step`.
        Returns: metrics, tensors of shape ().
        """
        load, spread = p.mean((0, 1)), normalised_entropy(p)
        if self.num_experts > 1:
            self.tau.copy_(torch.where(good, temperature_step(self.tau, spread, target, beta, low, high), self.tau))
        self.quiet.copy_(torch.where(good, (self.quiet + 1) * (load < DEAD_LOAD), self.quiet))
        row = (self.count % HISTORY).view(1)
        self.history.index_copy_(0, row, torch.where(good, load, self.history[row]))
        metrics = {"tau": self.tau.clone(), "entropy": spread, "load_balance": load_balance(load)}
        metrics |= {f"load_{k}": load[k] for k in range(self.num_experts)}
        metrics |= {"max_load": load.amax(), "dead": (self.quiet >= DEAD_AFTER).sum().float()}
        if len(self.task_history):
            member = torch.nn.functional.one_hot(task, self.task_history.shape[1]).to(p.dtype)  # (B, T)
            count = member.sum(0)
            by_task = member.mT @ p.mean(0) / count.clamp(min=1).unsqueeze(1)  # (T, K)
            self.task_history.index_copy_(0, row, torch.where(good, by_task, self.task_history[row]))
            metrics["mi_task"] = mutual_information(by_task, count / count.sum())
        self.count += good
        return metrics

    def recent(self) -> np.ndarray:
        """The remembered loads, oldest first: (n, K), or (n, T, K) where there are several tasks. For plots."""
        ring = self.task_history if len(self.task_history) else self.history
        count = int(self.count)
        rows = ring.cpu().numpy()
        return rows[:count].copy() if count <= HISTORY else np.roll(rows, -(count % HISTORY), axis=0)

    def forget(self) -> None:
        """Empty the history. Training does not read it."""
        for ring in (self.history, self.task_history, self.count):
            ring.zero_()
