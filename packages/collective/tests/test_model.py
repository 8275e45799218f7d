"""The network: its tokens, windows of any length beside each other, the faster ways through it, a plain transformer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from collective.config_encoder import ModelConfig
from collective.model import CLS, REWARD, Group, TrajectoryModel, Windows, dropped
from rlcore.errors import UsageError

SMALL = ModelConfig(width=16, heads=4, layers=2, hidden=24, dropout=0.1)
KINDS = ("transformer", "lstm", "gru")
CLOSE = {"rtol": 0, "atol": 1e-5}


def model(kind: str = "transformer", cfg: ModelConfig = SMALL, classes: int = 0) -> TrajectoryModel:
    """Random weights, constants and positions: nothing is zero that would hide a mistake."""
    torch.manual_seed(1)
    made = TrajectoryModel(cfg, kind, 21, 4, classes)  # type: ignore[arg-type]
    with torch.no_grad():
        made.position.normal_()
        made.state_mean.normal_()
        for name, value in made.named_parameters():
            if "norm" in name or name.endswith("bias"):
                value.add_(0.3 * torch.randn_like(value))
    return made


def windows(lengths: list[int], steps: int = 20, seed: int = 0) -> Windows:
    """Random ones, zero where steps are missing."""
    rng = torch.Generator().manual_seed(seed)
    sizes = ((steps, 21), (steps - 1, 4), (steps - 1, 1))
    states, actions, rewards = (torch.randn(len(lengths), *size, generator=rng) for size in sizes)
    made = Windows(states, actions, rewards, torch.tensor(lengths))
    hide = lambda x, there: x * there[..., None]  # noqa: E731
    return made._replace(
        states=hide(states, made.valid),
        actions=hide(actions, made.valid_between),
        rewards=hide(rewards, made.valid_between),
    )


def one(made: Windows, i: int, steps: int) -> Windows:
    """Window i alone, in room for `steps` states."""
    cut = made.states.shape[1] - steps
    s, a, r = (value[i : i + 1, cut:] for value in made[:3])
    return Windows(s, a, r, made.lengths[i : i + 1])


def there(made: Windows) -> Tensor:
    """(B, 3 T - 1) bool: the token is of a step that is there."""
    return torch.cat(
        (made.valid.repeat_interleave(3, 1)[:, :-2], torch.ones(len(made.lengths), 1, dtype=torch.bool)), 1
    )


# --- tokens -----------------------------------------------------------------------------------------------------------
class TestTokens:
    """Oracle 1."""

    def parts(self, steps: int, lengths: list[int] | None = None) -> tuple[TrajectoryModel, Windows, Tensor]:
        made = windows(lengths or [steps], steps)
        return (net := model()), made, net.tokens(made)

    def test_a_full_window_has_59(self):
        net, made, tokens = self.parts(20)
        assert tokens.shape == (1, 59, 16)
        for first, embed, values in zip(range(3), net.embed, made[:3]):
            expected = embed(values) + net.position[: values.shape[1]]
            torch.testing.assert_close(tokens[:, first:58:3], expected)
        assert range(0, 58, 3)[-1] == 57
        assert range(1, 58, 3)[-1] == 55
        assert range(2, 58, 3)[-1] == 56
        torch.testing.assert_close(tokens[0, 58], net.cls)

    def test_a_window_of_one_state_has_two(self):
        net, made, tokens = self.parts(1)
        assert tokens.shape == (1, 2, 16)
        torch.testing.assert_close(tokens[0, 0], net.embed[0](made.states[0, 0]) + net.position[0])
        torch.testing.assert_close(tokens[0, 1], net.cls)

    def test_positions_count_from_the_first_state_that_is_there(self):
        net, made, tokens = self.parts(20, [7])
        expected = net.embed[0](made.states[0, 13:]) + net.position[:7]
        torch.testing.assert_close(tokens[0, 39:58:3], expected)

    def test_before_learning(self):
        net = TrajectoryModel(ModelConfig(), "transformer", 21, 4)
        assert (net.position == 0).all()
        assert (net.cls == CLS).all()
        assert net.position.shape == (20, 32)
        assert all(isinstance(embed[1], nn.LayerNorm) for embed in net.embed)

    def test_heads(self):
        net, made = model(classes=3), windows([20, 4])
        read = net(made)
        assert [tuple(x.shape) for x in read] == [(2, 20, 21), (2, 19, 4), (2, 19, 1), (2, 6)]
        out = net.outputs(made)
        torch.testing.assert_close(read.states[:, 5], net.heads[0](out[:, 15]))
        torch.testing.assert_close(read.actions[:, 5], net.heads[1](out[:, 16]))
        torch.testing.assert_close(read.rewards[:, 5], net.heads[2](out[:, 17]))
        torch.testing.assert_close(read.states[:, -1], net.heads[0](out[:, -2]))
        torch.testing.assert_close(read.code, net.code_head(out[:, -1]))
        assert net.class_head(read.code).shape == (2, 3)


# --- windows of any length --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
class TestAnyLength:
    """Oracle 17: what is beside a window, and how much room it has, changes nothing."""

    def test_together_as_alone(self, kind: str):
        made, net = windows(list(range(1, 21))), model(kind)
        together, codes = net.outputs(made), net.code(made)
        for i, length in enumerate(range(1, 21)):
            alone = one(made, i, length)
            out = net.outputs(alone)
            torch.testing.assert_close(together[i : i + 1, -out.shape[1] :], out, **CLOSE)
            torch.testing.assert_close(codes[i : i + 1], net.code(alone, alike=True), **CLOSE)

    def test_what_is_missing_may_be_anything(self, kind: str):
        made, net = windows(list(range(1, 21))), model(kind)
        noise = windows([20] * 20, seed=9)
        filled = made._replace(
            states=torch.where(made.valid[..., None], made.states, 9 * noise.states),
            actions=torch.where(made.valid_between[..., None], made.actions, 9 * noise.actions),
            rewards=torch.where(made.valid_between[..., None], made.rewards, 9 * noise.rewards),
        )
        kept = there(made)
        torch.testing.assert_close(net.outputs(filled)[kept], net.outputs(made)[kept], **CLOSE)
        torch.testing.assert_close(net.code(filled), net.code(made), **CLOSE)

    def test_in_another_order(self, kind: str):
        made, net = windows([3, 20, 1, 20, 11]), model(kind)
        order = torch.tensor([4, 2, 0, 1, 3])
        turned = Windows(*(value[order] for value in made[:4]))
        torch.testing.assert_close(net.code(turned), net.code(made)[order], **CLOSE)

    def test_nothing_learns_from_what_is_missing(self, kind: str):
        made, net = windows([4, 20]), model(kind)
        states = made.states.requires_grad_()
        net.outputs(made._replace(states=states))[there(made)].square().sum().backward()
        assert (states.grad[0, :16] == 0).all()
        assert (states.grad[0, 16:] != 0).any(1).all()

    def test_the_newest_step_is_seen(self, kind: str):
        made, net = windows([20]), model(kind)
        for place, value in zip((19, 18, 18), made[:3]):
            changed = value.clone()
            changed[:, place] += 1.0
            other = made._replace(**{("states", "actions", "rewards")[[21, 4, 1].index(value.shape[2])]: changed})
            assert not torch.allclose(net.code(other), net.code(made), atol=1e-4)


# --- faster ways ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_the_code_alone_is_the_code(kind: str):
    made, net = windows([20, 1, 2, 19, 20, 6]), model(kind)
    torch.testing.assert_close(net.code(made), net(made).code, **CLOSE)
    full = windows([20] * 5)
    torch.testing.assert_close(net.code(full, alike=True), net(full).code, **CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_groups_change_neither_outputs_nor_gradients(kind: str):
    made, net = windows([20, 20, 19, 8, 3, 3]), model(kind, replace(SMALL, dropout=0.0))
    groups = (Group(2, 20, True), Group(2, 19, False), Group(2, 3, True))
    kept, gradients = there(made), []
    for part in (made, made._replace(groups=groups)):
        out = net.outputs(part)[kept]
        net.zero_grad()
        out.square().sum().backward()
        gradients.append([out.detach(), *(p.grad.clone() for p in net.parameters() if p.grad is not None)])
    for a, b in zip(*gradients):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_a_plain_transformer_gives_the_same():
    """torch's own layers, with our weights."""
    net = model()
    layers = []
    for ours in net.body.layers:
        plain = nn.TransformerEncoderLayer(16, 4, 24, 0.0, batch_first=True)
        with torch.no_grad():
            pairs = {
                plain.self_attn.in_proj_weight: ours.qkv.weight, plain.self_attn.in_proj_bias: ours.qkv.bias,
                plain.self_attn.out_proj.weight: ours.mix.weight, plain.self_attn.out_proj.bias: ours.mix.bias,
                plain.linear1.weight: ours.up.weight, plain.linear1.bias: ours.up.bias,
                plain.linear2.weight: ours.down.weight, plain.linear2.bias: ours.down.bias,
                plain.norm1.weight: ours.norm1.weight, plain.norm1.bias: ours.norm1.bias,
                plain.norm2.weight: ours.norm2.weight, plain.norm2.bias: ours.norm2.bias,
            }  # fmt: skip
            for theirs, value in pairs.items():
                theirs.copy_(value)
        layers.append(plain.train())  # no fast path of its own
    made = windows([20, 9, 1])
    x, kept = net.tokens(made), there(made)
    for layer in layers:
        x = layer(x, src_key_padding_mask=~kept)
    torch.testing.assert_close(net.outputs(made)[kept], x[kept], **CLOSE)


def test_a_recurrent_net_hears_of_nothing_later():
    made, net = windows([20]), model("gru")
    states = made.states.clone()
    states[:, 10:] += 1.0
    before, after = net.outputs(made), net.outputs(made._replace(states=states))
    torch.testing.assert_close(after[:, :30], before[:, :30])
    assert not torch.allclose(after[:, 30:], before[:, 30:])


# --- dropout ----------------------------------------------------------------------------------------------------------
def test_dropout_drops_its_share_and_keeps_the_mean():
    x = torch.ones(1_000_003)
    y = dropped(x, 0.1, torch.Generator().manual_seed(0))
    assert float((y == 0).float().mean()) == pytest.approx(26 / 256, abs=1e-3)
    assert float(y.mean()) == pytest.approx(1.0, abs=1e-3)
    assert len(y.unique()) == 2


def test_nothing_is_dropped_without_a_generator():
    x = torch.randn(5, 7)
    assert dropped(x, 0.5, None) is x
    assert dropped(x, 0.0, torch.Generator()) is x


def test_the_generator_alone_decides_what_is_dropped():
    net, made = model(), windows([20, 5])
    draw = lambda seed: net(made, torch.Generator().manual_seed(seed)).code  # noqa: E731
    first = draw(0)
    torch.rand(3)  # the global generator has no part in it
    assert torch.equal(draw(0), first)
    assert not torch.equal(draw(1), first)


# --- constants --------------------------------------------------------------------------------------------------------
def test_states_count_in_standard_deviations_and_rewards_in_tenths():
    """D5: raw rewards would drown everything else."""
    net, rng = TrajectoryModel(SMALL, "transformer", 21, 4), np.random.default_rng(0)
    data = torch.from_numpy(rng.normal(3.0, 2.0, (500, 21)).astype(np.float32))
    data[:, 4] = 0.6  # never changes
    data[:, 5] = 0.6 + 1e-4 * data[:, 5]  # hardly ever does
    net.normalize_by(data)
    raw = windows([20])
    seen = net.normalized(raw._replace(states=data[:20][None], rewards=torch.full((1, 19, 1), 10.0)))
    assert float(seen.rewards.max()) == REWARD * 10 == 1.0
    assert float(seen.states[..., :4].std()) == pytest.approx(1.0, abs=0.15)
    assert float(seen.states[..., 4].abs().max()) < 1e-4
    assert float(seen.states[..., 5].abs().max()) < 0.1
    assert bool(torch.isfinite(net.normalized(raw._replace(states=1e9 * raw.states)).states).all())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"width": 30}, "multiple of heads"),
        ({"dropout": 1.0}, "dropout"),
        ({"length": 1}, "length"),
        ({"layers": 0}, "layers"),
    ],
)
def test_sizes_that_make_no_sense(options: dict[str, float], said: str):
    with pytest.raises(UsageError, match=said):
        ModelConfig(**options)  # type: ignore[arg-type]
