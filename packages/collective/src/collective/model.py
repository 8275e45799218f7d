"""The network that reads a window of behaviour: embeddings, a transformer (or an LSTM or GRU), heads, a task code.

B windows of up to T states, right-aligned. Their tokens are s_0, a_0, r_0, s_1, ..., s_{T-1}, CLS: 3 T - 1 of them;
those of missing steps are on the left. Attention never looks at these, and positions count from the first state that is
there, so that a window's outputs do not depend on the windows beside it, nor on how much room it is given.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from collective.config_encoder import ModelConfig

CLS = -2.0  # every number of the CLS token, before learning
FAR = 10.0  # standard deviations beyond which a state's number is cut off
NARROW = 0.02  # least standard deviation that states are divided by: 2 cm, or 0.02 of a quaternion
REWARD = 0.1  # rewards are multiplied by it: Meta-World's reach 10, and their errors would drown the others'
Kind = Literal["transformer", "lstm", "gru"]


class Group(NamedTuple):
    """Windows that need less room than others, and time in proportion to its square."""

    size: int
    longest: int  # states
    alike: bool  # all have as many: nothing needs to be masked


class Windows(NamedTuple):
    """B windows, the newest state last."""

    states: Tensor  # (B, T, S)
    actions: Tensor  # (B, T - 1, A); action j, as reward j, lies between states j and j + 1
    rewards: Tensor  # (B, T - 1, 1)
    lengths: Tensor  # (B,) int64: states that are there, 1 .. T
    groups: tuple[Group, ...] = ()  # of windows as they come, to be read apart; () is all of them at once

    @property
    def valid(self) -> Tensor:
        """(B, T) bool: the state is there."""
        steps = self.states.shape[1]
        return torch.arange(steps, device=self.lengths.device) >= steps - self.lengths[:, None]

    @property
    def valid_between(self) -> Tensor:
        """(B, T - 1) bool: action and reward are there."""
        return self.valid[:, :-1]


class Read(NamedTuple):
    """What the network makes of B windows."""

    states: Tensor  # (B, T, S) told from all tokens that were not hidden, normalised
    actions: Tensor  # (B, T - 1, A)
    rewards: Tensor  # (B, T - 1, 1)
    code: Tensor  # (B, C)


class TrajectoryModel(nn.Module):
    """Embeddings of states, actions and rewards, what reads them, heads for each, and the task code of CLS.

    Args: classes: tasks that a further head tells apart by the code; 0 for none.
    """

    state_mean: Tensor  # (S,)
    state_scale: Tensor  # (S,) one over the standard deviation

    def __init__(self, cfg: ModelConfig, kind: Kind, state_dim: int, action_dim: int, classes: int = 0) -> None:
        super().__init__()
        self.cfg, self.kind, self.dims = cfg, kind, (state_dim, action_dim, 1)
        width = cfg.width
        self.embed = nn.ModuleList([nn.Sequential(nn.Linear(n, width), nn.LayerNorm(width)) for n in self.dims])
        self.position = nn.Parameter(torch.zeros(cfg.length, width))
        self.cls = nn.Parameter(torch.full((width,), CLS))
        self.body: Transformer | Recurrent = Transformer(cfg) if kind == "transformer" else Recurrent(cfg, kind)
        self.heads = nn.ModuleList([nn.Linear(width, n) for n in self.dims])
        self.code_head = nn.Linear(width, cfg.code_dim)
        self.class_head = nn.Linear(cfg.code_dim, classes) if classes else None
        self.register_buffer("state_mean", torch.zeros(state_dim))
        self.register_buffer("state_scale", torch.ones(state_dim))
        self.apply(_initialise)

    @torch.no_grad()
    def normalize_by(self, states: Tensor) -> None:
        """Take mean and scale of states (N, S). A number that hardly varies is not blown up."""
        self.state_mean.copy_(states.mean(0))
        self.state_scale.copy_(states.std(0, correction=0).clamp(min=NARROW).reciprocal())

    def normalized(self, windows: Windows) -> Windows:
        """States in standard deviations, rewards divided by 10. What is missing on the left is whatever it becomes."""
        states = ((windows.states - self.state_mean) * self.state_scale).clamp(-FAR, FAR)
        return windows._replace(states=states, rewards=windows.rewards * REWARD)

    def forward(self, windows: Windows, rng: torch.Generator | None = None) -> Read:
        """Read normalised windows. rng: decides what is dropped; None drops nothing."""
        out = self.outputs(windows, rng)
        state_head, action_head, reward_head = self.heads
        between = out[:, 1:-1]
        return Read(
            state_head(out[:, 0:-1:3]), action_head(between[:, 0::3]), reward_head(between[:, 1::3]),
            self.code_head(out[:, -1]),
        )  # fmt: skip

    def outputs(self, windows: Windows, rng: torch.Generator | None = None) -> Tensor:
        """(B, 3 T - 1, E), one for each token; those of missing steps mean nothing."""
        x, steps, parts, begin = self.tokens(windows), windows.states.shape[1], [], 0
        for size, longest, alike in windows.groups or (Group(len(x), steps, False),):
            rows, begin = slice(begin, begin + size), begin + size
            missing = None if alike else longest - windows.lengths[rows]
            room = 3 * (steps - longest)
            parts.append(F.pad(self.body(x[rows, room:], missing, rng), (0, 0, room, 0)))
        return torch.cat(parts)

    def code(self, windows: Windows, alike: bool = False) -> Tensor:
        """(B, C) the codes of normalised windows, as `forward` has them; nothing else is computed.

        alike: all have T states.
        """
        missing = None if alike else windows.states.shape[1] - windows.lengths
        return cast(Tensor, self.code_head(self.body.last(self.tokens(windows), missing)))

    def tokens(self, windows: Windows) -> Tensor:
        """(B, 3 T - 1, E): states at 0, 3, ..., actions at 1, 4, ..., rewards at 2, 5, ..., CLS last."""
        count, steps = windows.states.shape[:2]
        assert steps <= self.cfg.length, (steps, self.cfg.length)
        place = torch.arange(steps, device=self.position.device) - (steps - windows.lengths)[:, None]
        position = self.position[place.clamp(min=0)]  # (B, T, E)
        states, actions, rewards = (embed(x) for embed, x in zip(self.embed, windows[:3]))
        states, between = states + position, position[:, :-1]
        triples = torch.stack((states[:, :-1], actions + between, rewards + between), 2).flatten(1, 2)
        return torch.cat((triples, states[:, -1:], self.cls.expand(count, 1, -1)), 1)


class Transformer(nn.Module):
    """Layers of attention that see all tokens, before and after. Attention weights themselves are not dropped."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer(cfg) for _ in range(cfg.layers)])

    def forward(self, x: Tensor, missing: Tensor | None, rng: torch.Generator | None) -> Tensor:
        """(B, 3 T - 1, E) -> the same. missing: (B,) states that are not there; None for none anywhere."""
        bias = _bias(x, missing)
        for layer in self.layers:
            x = layer(x, bias, rng)
        return x

    def last(self, x: Tensor, missing: Tensor | None) -> Tensor:
        """(B, E) the output of the last token. The last layer asks for it alone."""
        bias = _bias(x, missing)
        *before, final = cast("list[Layer]", list(self.layers))
        for layer in before:
            x = layer(x, bias, None)
        return final.last(x, bias)


class Layer(nn.Module):
    """Self-attention, then two feed-forward layers, each added to its input and normalised (Vaswani et al. 2017)."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.heads, self.dropout = cfg.heads, cfg.dropout
        self.qkv = nn.Linear(cfg.width, 3 * cfg.width)
        self.mix = nn.Linear(cfg.width, cfg.width)
        self.norm1, self.norm2 = nn.LayerNorm(cfg.width), nn.LayerNorm(cfg.width)
        self.up, self.down = nn.Linear(cfg.width, cfg.hidden), nn.Linear(cfg.hidden, cfg.width)

    def forward(self, x: Tensor, bias: Tensor | None, rng: torch.Generator | None) -> Tensor:
        """(B, T, E) -> (B, T, E). bias: (B, 1, 1, T) added to the logits of keys."""
        count, steps, width = x.shape
        q, k, v = self.qkv(x).view(count, steps, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)  # (B, heads, T, E / heads)
        mixed = self.mix(seen.transpose(1, 2).reshape(count, steps, width))
        x = self.norm1(x + dropped(mixed, self.dropout, rng))
        hidden = dropped(self.up(x).relu_(), self.dropout, rng)
        return cast(Tensor, self.norm2(x + dropped(self.down(hidden), self.dropout, rng)))

    def last(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """(B, T, E) -> (B, E), the output of the last token.

        One query: its product with the keys' weights is taken first, and values are weighted before their weights are
        applied, so that neither keys nor values are computed. The keys' bias adds the same to all logits: none.
        """
        count, _, width = x.shape
        of_q, of_k, of_v = self.qkv.weight.view(3, self.heads, -1, width)
        bias_q, _, bias_v = self.qkv.bias.view(3, self.heads, -1)
        q = torch.einsum("be,hde->bhd", x[:, -1], of_q) + bias_q
        logits = torch.einsum("bhd,hde->bhe", q * q.shape[-1] ** -0.5, of_k) @ x.transpose(1, 2)  # (B, heads, T)
        weights = (logits if bias is None else logits + bias[:, 0]).softmax(-1)
        seen = torch.einsum("bhe,hde->bhd", weights @ x, of_v) + bias_v
        y = self.norm1(x[:, -1] + self.mix(seen.reshape(count, width)))
        return cast(Tensor, self.norm2(y + self.down(self.up(y).relu_())))


class Recurrent(nn.Module):
    """An LSTM or GRU that reads the tokens from the first to CLS; what is hidden it tells from what came before."""

    def __init__(self, cfg: ModelConfig, kind: Kind) -> None:
        super().__init__()
        self.dropout = cfg.dropout
        cell = nn.LSTM if kind == "lstm" else nn.GRU
        self.cells = cell(cfg.width, cfg.width, cfg.layers, batch_first=True)

    def forward(self, x: Tensor, missing: Tensor | None, rng: torch.Generator | None) -> Tensor:
        """(B, 3 T - 1, E) -> the same. missing: (B,) states that are not there; None for none anywhere."""
        x = dropped(x, self.dropout, rng)
        if missing is None:
            return cast(Tensor, self.cells(x)[0])
        count = x.shape[1]  # turned so that windows begin at the left: what is missing comes after the end
        turn = (torch.arange(count, device=x.device) + 3 * missing[:, None]) % count  # (B, 3 T - 1)
        row = torch.arange(len(x), device=x.device)[:, None]
        return cast(Tensor, self.cells(x[row, turn])[0][row, turn.argsort(1)])

    def last(self, x: Tensor, missing: Tensor | None) -> Tensor:
        """(B, E) the output of the last token."""
        return self.forward(x, missing, None)[:, -1]


def dropped(x: Tensor, share: float, rng: torch.Generator | None) -> Tensor:
    """Dropout: about `share` of x (in steps of 1/256) is 0, the rest is larger by as much.

    One random byte an element: a tenth of the time that a random float takes. None or 0 drops nothing.
    """
    limit = round(256 * share)
    if rng is None or not limit:
        return x
    words = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device).random_(-(2**63), None, generator=rng)
    kept = (words.view(torch.uint8)[: x.numel()] >= limit).view(x.shape)
    return x * kept.to(x.dtype).mul_(256 / (256 - limit))


def _bias(x: Tensor, missing: Tensor | None) -> Tensor | None:
    """(B, 1, 1, T): minus infinity for keys of missing steps."""
    if missing is None:
        return None
    absent = torch.arange(x.shape[1], device=x.device) < 3 * missing[:, None]
    return torch.zeros_like(absent, dtype=x.dtype).masked_fill_(absent, -torch.inf)[:, None, None]


def _initialise(module: nn.Module) -> None:
    """Xavier-uniform weights, zero biases; cells stay as torch makes them."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
