"""Q-networks with a memory: observation -> input map -> core (plastic, RNN, GRU, LSTM) -> linear readout -> Q(s, .).

Every core speaks one protocol (`Core`), so one learner trains them all. A `State` is one tensor or a flat tuple of
tensors (LSTM: h, c; several layers: one after the other), batch first.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any, Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mpn.plastic import MPNLayer
from rlcore.errors import UsageError
from rlcore.nets import count_parameters, polyak_

State = Tensor | tuple[Tensor, ...]
Array = NDArray[np.float32]
Mask = NDArray[np.bool_]
NumpyState = Array | tuple[Array, ...]
CORES = ("mpn", "mpn-frozen", "rnn", "gru", "lstm")
INPUT_MAPS = ("none", "one", "random", "learned")


class Core(Protocol):
    """A memory. x (B, I) or (T, B, I); is_init (T, B) bool: is_init[t] resets the state BEFORE input t."""

    def init_state(self, batch_size: int, device: torch.device | str | None = None) -> State: ...

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]: ...

    def sequence(self, x: Tensor, is_init: Tensor | None, state: State) -> tuple[Tensor, State]: ...


def map_state(function: Callable[[Tensor], Tensor], state: State) -> State:
    """`function` on each tensor of a state."""
    return function(state) if isinstance(state, Tensor) else tuple(map(function, state))


def reset_rows(state: State, is_init: Tensor) -> State:
    """The state with the rows where is_init (B,) back at 0. Out of place: gradients flow through the other rows."""
    return map_state(lambda s: s.masked_fill(is_init.view(-1, *[1] * (s.ndim - 1)), 0.0), state)


RECURRENT: dict[str, tuple[Callable[..., nn.RNNBase], Callable[..., Any]]] = {
    "rnn": (nn.RNN, torch.rnn_tanh_cell),
    "gru": (nn.GRU, torch.gru_cell),
    "lstm": (nn.LSTM, torch.lstm_cell),
}


class RecurrentLayer(nn.Module):
    """One layer of torch's tanh RNN, GRU or LSTM behind the `Core` protocol. State (B, H); LSTM: (h, c)."""

    def __init__(
        self, kind: str, input_size: int, hidden_size: int, bias: bool = True, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        module, self.cell = RECURRENT[kind]
        self.lstm, self.hidden_size = kind == "lstm", hidden_size
        # made empty, because the constructor would draw from the global generator
        self.net = module(input_size, hidden_size, bias=bias, device="meta").to_empty(device="cpu")
        for p in self.net.parameters():
            nn.init.uniform_(p, -(hidden_size**-0.5), hidden_size**-0.5, generator=generator)

    def init_state(self, batch_size: int, device: torch.device | str | None = None) -> State:
        weight = next(self.net.parameters())
        h = weight.new_zeros(batch_size, self.hidden_size, device=device or weight.device)
        return (h, torch.zeros_like(h)) if self.lstm else h

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        state = self.cell(x, state, *self.net.all_weights[0])
        return state[0] if self.lstm else state, state  # type: ignore[return-value]

    def sequence(self, x: Tensor, is_init: Tensor | None, state: State) -> tuple[Tensor, State]:
        """torch's fused kernel over each stretch of time in which no row is reset."""
        resets = [] if is_init is None else is_init.any(1).nonzero().flatten().tolist()
        hidden = [x.new_empty(0, x.shape[1], self.hidden_size)]
        for start, end in itertools.pairwise(sorted({0, len(x), *resets})):
            if is_init is not None and start in resets:
                state = reset_rows(state, is_init[start])
            h, state = self.net(x[start:end], map_state(lambda s: s.unsqueeze(0), state))
            state = map_state(lambda s: s.squeeze(0), state)
            hidden.append(h)
        return torch.cat(hidden), state


class Stack(nn.Module):
    """Layers on top of each other. A layer reads only the layer below, so each runs over all T before the next one."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.width = 2 if getattr(layers[0], "lstm", False) else 1  # state tensors of one layer

    def init_state(self, batch_size: int, device: torch.device | str | None = None) -> State:
        return _flat([cast(Core, layer).init_state(batch_size, device) for layer in self.layers])

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        h, state = self.sequence(x.unsqueeze(0), None, state)
        return h.squeeze(0), state

    def sequence(self, x: Tensor, is_init: Tensor | None, state: State) -> tuple[Tensor, State]:
        states = []
        for i, layer in enumerate(self.layers):
            own = state[i] if self.width == 1 else state[i * self.width : (i + 1) * self.width]
            x, own = cast(Core, layer).sequence(x, is_init, own)
            states.append(own)
        return x, _flat(states)


def _flat(states: list[State]) -> State:
    return tuple(itertools.chain.from_iterable((s,) if isinstance(s, Tensor) else s for s in states))


class InputMap(nn.Module):
    """What the core sees of an observation (..., O) -> (..., output_dim).

    none: the observation. one: with a constant 1 appended, which makes every past input readable (see `mpn.plastic`).
    random: P x + p, drawn once and never trained (buffers). learned: the same, trained. P is Xavier-uniform and p has
    the same bound, sqrt(6 / (input_dim + O)).
    """

    def __init__(self, kind: str, obs_dim: int, input_dim: int = 10, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if kind not in INPUT_MAPS:
            raise UsageError(f"input_map {kind!r} is unknown: choose one of {', '.join(INPUT_MAPS)}")
        self.kind = kind
        self.output_dim = {"none": obs_dim, "one": obs_dim + 1}.get(kind, input_dim)
        if kind in ("random", "learned"):
            bound = (6.0 / (input_dim + obs_dim)) ** 0.5
            self.P: Tensor
            self.p: Tensor
            for name, shape in (("P", (input_dim, obs_dim)), ("p", (input_dim,))):
                value = torch.empty(shape).uniform_(-bound, bound, generator=generator)
                if kind == "learned":
                    self.register_parameter(name, nn.Parameter(value))
                else:
                    self.register_buffer(name, value)

    def forward(self, obs: Tensor) -> Tensor:
        if self.kind == "none":
            return obs
        return F.pad(obs, (0, 1), value=1.0) if self.kind == "one" else F.linear(obs, self.P, self.p)


class MPNDQN(nn.Module):
    """Q(s, .) from observations and a memory.

        q, state = dqn(obs, state)                                one step: obs (B, O) -> q (B, A)
        q, state = dqn.sequence(obs, is_init, state)              T steps:  obs (T, B, O) -> q (T, B, A)
        action, state = dqn.select_action(obs, state, epsilon)    action (B,) int64

    core: mpn, mpn-frozen (M stays 0: the feed-forward control), rnn, gru or lstm. eta, lambda_decay, activation,
    freeze_plasticity and m_clip concern the mpn cores; see `MPNLayer`. All weights are drawn from `generator` (None:
    the global one); W ~ N(0, 2/I), the readout is orthogonal with gain 0.01, biases are 0.
    """

    def __init__(
        self,
        obs_dim: int,
        hidden_dim: int,
        action_dim: int,
        *,
        core: str = "mpn",
        num_layers: int = 1,
        eta: float = 0.01,
        lambda_decay: float = 0.95,
        activation: str = "tanh",
        freeze_plasticity: bool = False,
        bias: bool = True,
        input_map: str = "none",
        input_dim: int = 10,
        m_clip: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if core not in CORES:
            raise UsageError(f"core {core!r} is unknown: choose one of {', '.join(CORES)}")
        if num_layers < 1:
            raise UsageError(f"num_layers is {num_layers}: it must be at least 1")
        self.obs_dim, self.action_dim, self.core_name = obs_dim, action_dim, core
        self.input_map = InputMap(input_map, obs_dim, input_dim, generator)

        def layer(width: int) -> nn.Module:
            if core in RECURRENT:
                return RecurrentLayer(core, width, hidden_dim, bias, generator)
            frozen = freeze_plasticity or core == "mpn-frozen"
            return MPNLayer(width, hidden_dim, eta, lambda_decay, activation, bias, frozen, m_clip, generator)

        layers = [layer(hidden_dim if i else self.input_map.output_dim) for i in range(num_layers)]
        self.core: Any = layers[0] if num_layers == 1 else Stack(layers)  # a `Core`
        self.q_head = nn.Linear(hidden_dim, action_dim, device="meta").to_empty(device="cpu")
        nn.init.orthogonal_(self.q_head.weight, gain=0.01, generator=generator)
        nn.init.zeros_(self.q_head.bias)

    @property
    def parameter_count(self) -> int:
        """How many numbers training changes."""
        return count_parameters(self)

    def init_state(self, batch_size: int = 1, device: torch.device | str | None = None) -> State:
        """The memory at the start of an episode: all 0. mpn: (B, H, I), I the width after the input map."""
        return cast(State, self.core.init_state(batch_size, device))

    def forward(self, obs: Tensor, state: State, is_init: Tensor | None = None) -> tuple[Tensor, State]:
        """obs (B, O), is_init (B,) bool: rows whose memory is emptied first -> q (B, A), the next state."""
        self._check(obs, state, "(B, O)")
        h, state = self.core.step(self.input_map(obs), state if is_init is None else reset_rows(state, is_init))
        return self.q_head(h), state

    def sequence(self, obs: Tensor, is_init: Tensor | None, state: State) -> tuple[Tensor, State]:
        """obs (T, B, O), is_init (T, B) bool: rows whose memory is emptied before t -> q (T, B, A), the last state."""
        self._check(obs, state, "(T, B, O)")
        h, state = self.core.sequence(self.input_map(obs), is_init, state)
        return self.q_head(h), state

    @torch.no_grad()
    def select_action(
        self, obs: Tensor, state: State, epsilon: float = 0.1, generator: torch.Generator | None = None
    ) -> tuple[Tensor, State]:
        """Epsilon-greedy, for each row alone: obs (B, O) -> action (B,) int64, the next state."""
        q, state = self(obs, state)
        explore = torch.rand(len(q), generator=generator) < epsilon
        chance = torch.randint(self.action_dim, (len(q),), generator=generator)
        return torch.where(explore.to(q.device), chance.to(q.device), q.argmax(-1)), state

    def _check(self, obs: Tensor, state: State, expected: str) -> None:
        shape = tuple(obs.shape)
        if obs.ndim != expected.count(",") + 1 or shape[-1] != self.obs_dim:
            raise ValueError(
                f"observations have shape {shape}, expected {expected} with O = {self.obs_dim}: "
                f"build MPNDQN with obs_dim={shape[-1] if shape else 1}, or add the missing axes"
            )
        for s in (state,) if isinstance(state, Tensor) else state:
            if s.shape[0] != shape[-2]:
                raise ValueError(
                    f"observations have shape {shape} but the state has shape {tuple(s.shape)}: "
                    f"call init_state(batch_size={shape[-2]})"
                )


class DoubleMPNDQN(nn.Module):
    """The online net and its delayed copy, the target net, which no gradient reaches. Arguments as for `MPNDQN`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.online = MPNDQN(*args, **kwargs)
        self.target = copy.deepcopy(self.online).requires_grad_(False)

    def hard_update(self) -> None:
        """target <- online, buffers (the random input map) included."""
        target, online = (itertools.chain(net.parameters(), net.buffers()) for net in (self.target, self.online))
        polyak_(target, online, 1.0)

    def soft_update(self, tau: float) -> None:
        """target <- (1 - tau) target + tau online."""
        polyak_(self.target.parameters(), self.online.parameters(), tau)


NUMPY_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": np.tanh,
    "relu": lambda a: np.maximum(a, 0),
    "sigmoid": lambda a: 0.5 * (1.0 + np.tanh(0.5 * a)),  # exp(-a) would overflow
    "linear": lambda a: a,
}


class NumpyPolicy:
    """`MPNDQN.forward` of an mpn or mpn-frozen net on the CPU, without a torch call: 4 times faster for small nets.

    One call, H = 64, I = 4, one core: 8.7 us against 35 at N = 1, 12 against 50 at N = 16. It reads the weights where
    they lie and so follows every in-place update: optimisers, polyak_, load_state_dict. Not .to() and assign=True.
    """

    def __init__(self, dqn: MPNDQN) -> None:
        self.layers: list[Any] = list(dqn.core.layers) if isinstance(dqn.core, Stack) else [dqn.core]
        if not all(isinstance(layer, MPNLayer) for layer in self.layers):
            raise UsageError("numpy_policy knows the cores mpn and mpn-frozen: call the network itself for others")
        if any(p.device.type != "cpu" for p in dqn.parameters()):
            raise UsageError("numpy_policy reads weights in CPU memory: call the network itself on other devices")
        self.map, self.obs_dim = dqn.input_map, dqn.obs_dim
        self.P, self.p = (_view(getattr(self.map, name, None)) for name in ("P", "p"))
        self.W, self.b = [_view(layer.W) for layer in self.layers], [_view(layer.b) for layer in self.layers]
        self.V, self.c = _view(dqn.q_head.weight), _view(dqn.q_head.bias)

    def init_state(self, batch_size: int = 1) -> NumpyState:
        """Zeros, shaped like the network's own state."""
        states = [layer.init_state(batch_size).numpy() for layer in self.layers]
        return states[0] if len(states) == 1 else tuple(states)

    def __call__(self, obs: Array, state: NumpyState, is_init: Mask | None = None) -> tuple[Array, NumpyState]:
        """obs (N, O) float32, is_init (N,) bool: rows emptied first -> q (N, A), the state, UPDATED IN PLACE."""
        x = obs
        if self.map.kind == "one":
            x = np.concatenate((obs, np.ones((len(obs), 1), obs.dtype)), 1)
        elif self.map.kind != "none":
            x = obs @ self.P.T + self.p
        for layer, W, b, M in zip(self.layers, self.W, self.b, state if isinstance(state, tuple) else (state,)):
            a = x @ W.T if b is None else x @ W.T + b
            phi = NUMPY_ACTIVATIONS[layer.activation]
            if layer.freeze_plasticity:
                x = phi(a)
                continue
            if is_init is not None and is_init.any():
                M[is_init] = 0.0
            M_T = M.transpose(0, 2, 1)  # (N, I, H): contiguous, as `init_state` made it
            h = phi(a + np.matmul(x[:, None], M_T * np.ascontiguousarray(W.T))[:, 0])
            M_T *= layer.lambda_decay
            M_T += (layer.eta * x)[:, :, None] * h[:, None]
            if layer.m_clip is not None:
                np.clip(M_T, -layer.m_clip, layer.m_clip, out=M_T)
            x = h
        return x @ self.V.T + self.c, state


def _view(parameter: Tensor | None) -> Any:
    return None if parameter is None else parameter.detach().numpy()


def numpy_policy(dqn: MPNDQN) -> NumpyPolicy:
    """A torch-free forward pass for acting: `q, state = policy(obs, state)` on numpy arrays."""
    return NumpyPolicy(dqn)
