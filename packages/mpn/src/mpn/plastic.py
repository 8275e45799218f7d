"""The plastic layer: a linear map whose weights W are modulated, within an episode, by a Hebbian matrix M.

    a_t = b + (W * (1 + M_{t-1})) x_t      h_t = phi(a_t)      M_t = lambda M_{t-1} + eta h_t x_t^T      M_0 = 0

`*` is elementwise. The output uses the OLD M; the update uses the NEW h and the same x. Nothing else is recurrent.
Source: Aitken & Mihalas 2023, eLife 12:e83035 (multi-plasticity network).

Shapes: B batch, T time, I inputs, H hidden units. The functions keep M transposed, `M_T` (B, I, H), because then both
products run along contiguous memory; `MPNLayer` shows the customary (B, H, I), a transposed view of the same memory.
What M can remember: `M_{t-1} x_t` only sees the past through inputs whose support overlaps x_t. One-hot inputs that
never repeat are therefore unreadable for every W, eta and lambda; a constant extra input repairs it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlcore.errors import QuintetWarning, UsageError

Activation = Callable[[Tensor], Tensor]
ACTIVATIONS: dict[str, Activation] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "linear": lambda a: a,
}


def mpn_step(
    x: Tensor,
    M_T: Tensor,
    W: Tensor,
    b: Tensor | None,
    eta: float,
    lam: float,
    activation: Activation = torch.tanh,
    m_clip: float | None = None,
) -> tuple[Tensor, Tensor]:
    """One step. x (B, I), M_T (B, I, H), W (H, I), b (H) or None -> h (B, H), the next M_T (B, I, H)."""
    h, M_T = mpn_sequence(x.unsqueeze(0), None, M_T, W, b, eta, lam, activation, m_clip)
    return h.squeeze(0), M_T


def mpn_sequence(
    x: Tensor,
    is_init: Tensor | None,
    M_T: Tensor,
    W: Tensor,
    b: Tensor | None,
    eta: float,
    lam: float,
    activation: Activation = torch.tanh,
    m_clip: float | None = None,
) -> tuple[Tensor, Tensor]:
    """T steps. x (T, B, I), is_init (T, B) bool or None, M_T (B, I, H) -> h (T, B, H), the last M_T (B, I, H).

    is_init[t] empties M before input t. The slow part W x + b is one matrix product for all T; nothing is approximated.
    """
    u, W_T = F.linear(x, W, b), W.t().contiguous()
    resets = [False] * len(x)
    if is_init is not None:  # looking at the flags would stall a GPU: there, every step is masked
        resets = is_init.any(1).tolist() if is_init.device.type == "cpu" else [True] * len(x)
    hidden = [u.new_empty(u.shape[1], 0, u.shape[2])]
    # unbind, not indexing: the gradient of one x[t] is a whole (T, B, I) tensor. Shaped once, not in every step
    steps = zip(x.unsqueeze(2).unbind(0), x.unsqueeze(3).unbind(0), u.unsqueeze(2).unbind(0))
    for t, (row, column, u_t) in enumerate(steps):  # (B, 1, I), (B, I, 1), (B, 1, H)
        if is_init is not None and resets[t]:
            M_T = M_T.masked_fill(is_init[t, :, None, None], 0.0)
        h = activation(torch.baddbmm(u_t, row, M_T * W_T))
        M_T = torch.baddbmm(M_T, column, h, beta=lam, alpha=eta)
        M_T = M_T if m_clip is None else M_T.clamp(-m_clip, m_clip)
        hidden.append(h)
    return torch.cat(hidden, 1).transpose(0, 1), M_T


class MPNLayer(nn.Module):
    """The plastic layer as a module. Its state M is (B, H, I), at least float32, also under autocast.

    eta: learning rate of M; negative is anti-Hebbian. lambda_decay: what is left of M after one step, in [0, 1].
    freeze_plasticity: M stays 0, which makes the layer a plain Linear + activation; the state keeps its shape.
    m_clip: keep M within [-m_clip, m_clip].

    With |phi| <= c and |x| <= X, |M| <= |eta| c X / (1 - lambda). relu and linear have no such bound: for a constant x
    M grows without end where |lambda + eta sum_j W_ij x_j^2| >= 1.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        eta: float = 0.01,
        lambda_decay: float = 0.95,
        activation: str = "tanh",
        bias: bool = True,
        freeze_plasticity: bool = False,
        m_clip: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not 0.0 <= lambda_decay <= 1.0:
            raise UsageError(f"lambda_decay is {lambda_decay}: it must lie in [0, 1]; try 0.9")
        if not math.isfinite(eta):
            raise UsageError(f"eta is {eta}: it must be a finite number; try 0.05")
        if activation not in ACTIVATIONS:
            raise UsageError(f"activation {activation!r} is unknown: choose one of {', '.join(ACTIVATIONS)}")
        if m_clip is not None and not m_clip > 0:
            raise UsageError(f"m_clip is {m_clip}: it must be positive, or None for no limit")
        if lambda_decay == 1.0 and not freeze_plasticity:
            warnings.warn("lambda_decay 1: M never decays and may grow without bound", QuintetWarning, stacklevel=2)
        self.input_size, self.hidden_size = input_size, hidden_size
        self.eta, self.lambda_decay, self.m_clip = float(eta), float(lambda_decay), m_clip
        self.activation, self.freeze_plasticity = activation, freeze_plasticity
        std = (2.0 / input_size) ** 0.5  # N(0, 2/I): the variance is 2/I
        self.W = nn.Parameter(torch.empty(hidden_size, input_size).normal_(0.0, std, generator=generator))
        self.b = nn.Parameter(torch.zeros(hidden_size)) if bias else None
        self.zero: Tensor
        self.register_buffer("zero", torch.zeros(()), persistent=False)  # the frozen state: one number, expanded

    def init_state(self, batch_size: int, device: torch.device | str | None = None) -> Tensor:
        """M = 0, (B, H, I)."""
        if self.freeze_plasticity:
            return self.zero.to(device or self.zero.device).expand(batch_size, self.hidden_size, self.input_size)
        dtype = torch.promote_types(self.W.dtype, torch.float32)
        shape = (batch_size, self.input_size, self.hidden_size)
        return torch.zeros(shape, dtype=dtype, device=device or self.W.device).transpose(1, 2)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, I), M (B, H, I) -> h (B, H), M (B, H, I)."""
        h, state = self.sequence(x.unsqueeze(0), None, state)
        return h.squeeze(0), state

    def sequence(self, x: Tensor, is_init: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        """x (T, B, I), M (B, H, I) -> h (T, B, H), M. is_init (T, B) or None: is_init[t] empties M before input t."""
        phi = ACTIVATIONS[self.activation]
        if self.freeze_plasticity:
            return phi(F.linear(x, self.W, self.b)), self.init_state(x.shape[1])
        with torch.autocast(x.device.type, enabled=False):  # M sums many small terms: bfloat16 would lose them
            dtype = state.dtype
            W, b = self.W.to(dtype), None if self.b is None else self.b.to(dtype)
            M_T = state.transpose(1, 2).contiguous()
            h, M_T = mpn_sequence(x.to(dtype), is_init, M_T, W, b, self.eta, self.lambda_decay, phi, self.m_clip)
        return h, M_T.transpose(1, 2)
