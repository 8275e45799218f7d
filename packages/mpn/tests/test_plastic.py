"""The plastic layer against numbers worked by hand, a naive loop written from the equations, and its closed forms."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mpn.plastic import ACTIVATIONS, MPNLayer, mpn_sequence, mpn_step
from rlcore.errors import QuintetWarning, UsageError

F64 = torch.float64


def naive(x, is_init, M, W, b, eta, lam, phi):
    """The definition, one sample at a time. x (T, B, I), M (B, H, I) -> h (T, B, H), M (B, H, I)."""
    outputs, finals = [], []
    for i in range(x.shape[1]):
        m, hs = M[i], []
        for t in range(x.shape[0]):
            if is_init is not None and is_init[t, i]:
                m = torch.zeros_like(m)
            h = phi(b + (W * (1 + m)) @ x[t, i])
            m = lam * m + eta * torch.outer(h, x[t, i])
            hs.append(h)
        outputs.append(torch.stack(hs))
        finals.append(m)
    return torch.stack(outputs, 1), torch.stack(finals)


def layer64(inputs, hidden, **kwargs):
    return MPNLayer(inputs, hidden, generator=torch.Generator().manual_seed(0), **kwargs).double()


def run(layer, x, is_init=None, state=None):
    return layer.sequence(x, is_init, layer.init_state(x.shape[1]) if state is None else state)


HAND_W = torch.tensor([[1.0, 2.0], [0.0, -1.0]], dtype=F64)
HAND_X = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]], dtype=F64).unsqueeze(1)


@pytest.mark.parametrize(
    ("activation", "h", "last_M"),
    [
        ("linear", [[1, 0], [3.5, -1], [11, -1]], [[1, 11.875], [-0.25, -1.25]]),
        (
            "tanh",
            [[0.7615941560, 0], [0.9976879107, -0.7615941560], [0.9999875974, -0.8450003215]],
            [[0.3446212472, 1.2494095751], [-0.1903985390, -1.0353988605]],
        ),
    ],
)
def test_two_by_two_by_hand(activation, h, last_M):
    layer = layer64(2, 2, eta=0.5, lambda_decay=0.5, activation=activation)
    layer.W.data.copy_(HAND_W)
    out, M = run(layer, HAND_X)
    torch.testing.assert_close(out[:, 0], torch.tensor(h, dtype=F64), atol=1e-9, rtol=0)
    torch.testing.assert_close(M[0], torch.tensor(last_M, dtype=F64), atol=1e-9, rtol=0)


def test_hand_case_M_after_each_step():
    layer = layer64(2, 2, eta=0.5, lambda_decay=0.5, activation="linear")
    layer.W.data.copy_(HAND_W)
    state = layer.init_state(1)
    for x, M in zip(HAND_X, ([[0.5, 0], [0, 0]], [[2, 1.75], [-0.5, -0.5]], [[1, 11.875], [-0.25, -1.25]])):
        _, state = layer.step(x, state)
        assert torch.equal(state[0], torch.tensor(M, dtype=F64))


@pytest.mark.parametrize("resets", [False, True])
def test_sequence_and_every_gradient_equal_the_naive_loop(resets):
    g = torch.Generator().manual_seed(1)
    T, B, inputs, hidden = 12, 3, 5, 7

    def rand(*shape):
        return torch.randn(*shape, generator=g, dtype=F64, requires_grad=True)

    W, b, x, M0 = rand(hidden, inputs), rand(hidden), rand(T, B, inputs), rand(B, hidden, inputs)
    is_init = torch.rand(T, B, generator=g) < 0.2 if resets else None
    weight_h, weight_M = (
        torch.randn(T, B, hidden, generator=g, dtype=F64),
        torch.randn(M0.shape, generator=g, dtype=F64),
    )
    results = []
    for form in ("naive", "steps"):
        if form == "naive":
            h, M = naive(x, is_init, M0, W, b, 0.3, 0.8, torch.tanh)
        else:
            h, M_T = mpn_sequence(x, is_init, M0.transpose(1, 2), W, b, 0.3, 0.8)
            M = M_T.transpose(1, 2)
        gradients = torch.autograd.grad((h * weight_h).sum() + (M * weight_M).sum(), (W, b, x, M0))
        results.append((h, M, *gradients))
    for want, got in zip(*results):
        torch.testing.assert_close(got, want, atol=1e-12, rtol=1e-12)


def test_step_equals_sequence_of_one():
    layer = layer64(5, 7, eta=0.3)
    x, M_T = torch.randn(2, 5, dtype=F64), torch.randn(2, 5, 7, dtype=F64)
    h, M1 = mpn_step(x, M_T, layer.W, layer.b, 0.3, 0.95)
    h2, M2 = layer.step(x, M_T.transpose(1, 2))
    torch.testing.assert_close(h, h2)
    torch.testing.assert_close(M1.transpose(1, 2), M2)


def test_gradcheck():
    g = torch.Generator().manual_seed(2)
    sizes = ((4, 2, 3), (2, 3, 2), (2, 3), (2,))  # x, M_T, W, b
    tensors = [torch.randn(*s, generator=g, dtype=F64, requires_grad=True) for s in sizes]
    is_init = torch.zeros(4, 2, dtype=torch.bool)
    is_init[2, 1] = True
    assert torch.autograd.gradcheck(lambda x, M, W, b: mpn_sequence(x, is_init, M, W, b, 0.3, 0.8), tensors)


def test_disjoint_inputs_cannot_be_remembered():
    """x_s * x_t = 0 for all s < t: h_t is phi(b + W x_t), bit for bit, whatever came before."""
    layer = layer64(4, 6, eta=5.0, lambda_decay=0.99)
    x = torch.diag(torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=F64)).unsqueeze(1)
    h, _ = run(layer, x)
    alone = torch.stack([run(layer, row.unsqueeze(0))[0][0] for row in x])
    assert torch.equal(h, alone)
    overlapping, _ = run(layer, torch.cat((x, x[:1])))
    assert not torch.allclose(overlapping[-1], alone[0])


def test_special_cases():
    g = torch.Generator().manual_seed(3)
    x, M0 = torch.randn(5, 2, 3, generator=g, dtype=F64), torch.randn(2, 4, 3, generator=g, dtype=F64)
    layer = layer64(3, 4, eta=0.2, lambda_decay=0.7)
    layer.b.data.normal_(generator=g)
    h, M = layer.step(torch.zeros(2, 3, dtype=F64), M0)  # no input: nothing is written
    torch.testing.assert_close(h, torch.tanh(layer.b).expand(2, 4))
    torch.testing.assert_close(M, 0.7 * M0)
    layer.lambda_decay = 0.0  # no memory: M is the last outer product
    h, M = run(layer, x, state=M0)
    torch.testing.assert_close(M, 0.2 * torch.einsum("bh,bi->bhi", h[-1], x[-1]))
    plain = torch.tanh(x @ layer.W.T + layer.b)
    layer.eta = 0.0
    torch.testing.assert_close(run(layer, x)[0], plain)
    frozen = layer64(3, 4, eta=9.0, freeze_plasticity=True)
    frozen.load_state_dict(layer.state_dict())
    h, M = run(frozen, x)
    torch.testing.assert_close(h, plain)
    assert M.shape == (2, 4, 3)
    assert not M.any()
    assert M.untyped_storage().nbytes() <= 8  # one number, expanded


def test_no_learning_leaves_pure_decay():
    """eta = 0: M_t = lambda^t M_0, and h_t reads lambda^(t-1) M_0 (t from 1)."""
    g = torch.Generator().manual_seed(4)
    x, M0 = torch.randn(6, 2, 3, generator=g, dtype=F64), torch.randn(2, 4, 3, generator=g, dtype=F64)
    layer = layer64(3, 4, eta=0.0, lambda_decay=0.5)  # 0.5: exact in binary
    h, M = run(layer, x, state=M0)
    assert torch.equal(M, 0.5**6 * M0)
    for t in range(6):
        want = torch.tanh(layer.b + torch.einsum("bhi,bi->bh", layer.W * (1 + 0.5**t * M0), x[t]))
        torch.testing.assert_close(h[t], want)


def test_first_M_is_linear_in_eta():
    x = torch.randn(1, 2, 3, dtype=F64)
    unit = run(layer64(3, 4, eta=0.25), x)[1]
    assert torch.equal(run(layer64(3, 4, eta=1.0), x)[1], 4 * unit)
    assert torch.equal(run(layer64(3, 4, eta=-0.25), x)[1], -unit)


@given(st.integers(0, 2**31), st.integers(1, 200))
def test_tanh_keeps_M_bounded(seed, steps):
    """|x| <= 1, eta .1, lambda .95: |M| <= .1 / (1 - .95) = 2 at any length."""
    x = 2 * torch.rand(steps, 1, 2, generator=torch.Generator().manual_seed(seed)) - 1
    assert run(MPNLayer(2, 3, eta=0.1, lambda_decay=0.95), x)[1].abs().max() <= 2.0 + 1e-5


def test_linear_scalar_fixed_point_and_growth():
    for W, steps, want in ((0.5, 2000, 1.0), (1.0, 500, 50.0)):
        layer = layer64(1, 1, eta=0.1, lambda_decay=0.9, activation="linear")
        layer.W.data.fill_(W)
        _, M = run(layer, torch.ones(steps, 1, 1, dtype=F64))
        assert M.item() == pytest.approx(want, abs=1e-9)


def test_m_clip_limits_M():
    layer = layer64(2, 3, eta=2.0, activation="linear", m_clip=0.5)
    _, M = run(layer, torch.ones(50, 1, 2, dtype=F64))
    assert M.abs().max() == 0.5


def test_M_stays_float32_under_autocast():
    layer = MPNLayer(3, 4, eta=0.1, generator=torch.Generator().manual_seed(0))
    x = torch.randn(20, 2, 3, generator=torch.Generator().manual_seed(1))
    h, M = run(layer, x)
    with torch.autocast("cpu", torch.bfloat16):
        h16, M16 = run(layer, x)
    assert M16.dtype == torch.float32
    assert torch.equal(M, M16)
    assert torch.equal(h, h16)
    assert layer.to(torch.bfloat16).init_state(1).dtype == torch.float32


def test_an_empty_sequence_changes_nothing():
    layer = layer64(3, 4)
    state = torch.randn(2, 4, 3, dtype=F64)
    h, M = run(layer, torch.empty(0, 2, 3, dtype=F64), state=state)
    assert h.shape == (0, 2, 4)
    assert torch.equal(M, state)


def test_a_reset_clears_even_nan():
    layer = layer64(3, 4)
    M = torch.full((1, 4, 3), math.nan, dtype=F64)
    h, M = run(layer, torch.ones(2, 1, 3, dtype=F64), torch.tensor([[True], [False]]), M)
    assert h.isfinite().all()
    assert M.isfinite().all()


def test_initial_weights():
    before = torch.get_rng_state()
    layer = MPNLayer(8, 20_000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(before, torch.get_rng_state())
    assert layer.W.var().item() == pytest.approx(2 / 8, rel=0.02)
    assert layer.W.mean().item() == pytest.approx(0.0, abs=0.01)
    assert not layer.b.any()
    assert MPNLayer(3, 4, bias=False).b is None
    assert set(ACTIVATIONS) == {"tanh", "relu", "sigmoid", "linear"}


@pytest.mark.parametrize(
    ("kwargs", "name"),
    [
        ({"lambda_decay": 1.01}, "lambda_decay"),
        ({"lambda_decay": -0.1}, "lambda_decay"),
        ({"lambda_decay": math.nan}, "lambda_decay"),
        ({"eta": math.nan}, "eta"),
        ({"eta": math.inf}, "eta"),
        ({"activation": "gelu"}, "tanh"),
        ({"m_clip": 0.0}, "m_clip"),
    ],
)
def test_bad_constants_are_refused(kwargs, name):
    with pytest.raises(UsageError, match=name):
        MPNLayer(2, 2, **kwargs)


def test_no_decay_warns():
    with pytest.warns(QuintetWarning, match="never decays"):
        MPNLayer(2, 2, lambda_decay=1.0)
