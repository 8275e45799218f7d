"""A mixture of experts in place of an MLP's hidden layers: soft gates, batched experts, features kept orthogonal.

Shapes: R rows, K experts, M features, T tasks.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from prismatic import cpu
from prismatic.layers import INIT_STD, Linear, NormedLinear, StackedNormedLinear, mish
from prismatic.losses import load_balance, mutual_information, normalised_entropy, temperature_step
from prismatic.orthogonal import gram_schmidt_mixture, mean_overlap, mixture

HISTORY = 1_000  # updates that the plots look back on
DEAD_LOAD, DEAD_AFTER = 0.01, 1_000  # an expert below this share for so many updates is dead


class Gate(NamedTuple):
    """What training needs to know of one pass through a mixture."""

    p: Tensor  # (..., K) weights of the experts, rows sum to 1
    overlap: Tensor  # () mean cos^2 between the experts' features; 0 unless it is a loss


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
        p = cpu.softmax(self.gate_out(self.gate_in(x)).float() / self.tau)
        return keep_top(p, self.top_k) if 0 < self.top_k < self.num_experts else p

    def forward(self, x: Tensor, gates: list[Gate] | None = None) -> Tensor:
        """(..., width) -> (..., out). Training passes a list that the gate is appended to."""
        rows = x.reshape(-1, x.shape[-1])
        p = self.gate(rows)
        features = self.outer(self.inner(rows)).float().transpose(0, 1)  # (R, K, M)
        with torch.autocast(x.device.type, enabled=False):
            if self.orthogonal == "features":
                y = gram_schmidt_mixture(features, p * features.shape[-1] ** 0.5)
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
        load, spread = p.mean((0, 1)), normalised_entropy(p, self.top_k)
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

    def dead(self) -> list[int]:
        """Experts below `DEAD_LOAD` for the last `DEAD_AFTER` updates. Waits for the device."""
        return [k for k, quiet in enumerate(self.quiet.tolist()) if quiet >= DEAD_AFTER]

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
