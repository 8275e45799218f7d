"""The mixture: Gram-Schmidt by hand, gates that route each row alone, a history that cannot grow."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from prismatic.config import TaskSpec, TrainConfig
from prismatic.layers import Linear
from prismatic.model import MLP, WorldModel
from prismatic.moe import HISTORY, MoE, keep_top
from prismatic.orthogonal import gram_schmidt_mixture, mean_overlap

CONTROL = (0.5, 0.02, 0.5, 2.0)  # entropy target, beta, tau_min, tau_max
GOOD = torch.tensor(True)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def block(num_experts: int = 4, orthogonal: str = "features", num_tasks: int = 1, top_k: int = 0) -> MoE:
    return MoE(
        (6, 16, 8, 32), num_experts, Linear(32, 3, generator()), orthogonal=orthogonal, tau=1.8, top_k=top_k,
        num_tasks=num_tasks, generator=generator(),
    )  # fmt: skip


def basis(features: Tensor) -> Tensor:
    """(R, K, M): the mixture of one expert alone is that expert's basis vector."""
    rows, size, _ = features.shape
    return torch.stack([gram_schmidt_mixture(features, torch.eye(size)[k].expand(rows, -1)) for k in range(size)], 1)


def modified_gram_schmidt(features: Tensor) -> Tensor:
    found: list[Tensor] = []
    for f in features.unbind(1):
        v = f
        for u in found:
            v = v - (v * u).sum(1, keepdim=True) * u
        found.append(v / (v.square().sum(1, keepdim=True) + 1e-12).sqrt())
    return torch.stack(found, 1)


def test_gram_schmidt_by_hand():
    features = torch.tensor([[[3.0, 0, 0], [1, 1, 0], [1, 1, 1]]])
    assert_close(basis(features)[0], torch.eye(3), rtol=0, atol=1e-5)


def test_random_features_become_orthonormal():
    u = basis(torch.randn(1_000, 4, 384, generator=generator()))
    assert (u @ u.mT - torch.eye(4)).abs().max() < 1e-5


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_the_fast_form_is_modified_gram_schmidt_with_its_gradient(size: int):
    raw = torch.randn(50, size, 96, generator=generator()) + 0.7  # the offset makes them lean towards each other
    p = torch.randn(50, size, generator=generator(1)).softmax(1)
    out = torch.randn(50, 96, generator=generator(2))
    results = []
    for mix in (gram_schmidt_mixture, lambda f, w: (w.unsqueeze(2) * modified_gram_schmidt(f)).sum(1)):
        f, w = raw.clone().requires_grad_(), p.clone().requires_grad_()
        y = mix(f, w)
        results.append((y, *torch.autograd.grad((y * out).sum(), (f, w))))
    for fast, slow in zip(*results):
        assert_close(fast, slow, rtol=1e-4, atol=1e-5)


def test_the_norm_of_a_mixture_is_pythagoras():
    p = torch.randn(20, 4, generator=generator()).softmax(1)
    y = gram_schmidt_mixture(torch.randn(20, 4, 64, generator=generator(1)), p)
    assert_close(y.square().sum(1), p.square().sum(1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["zero", "equal", "one zero", "nearly equal"])
def test_dependent_features_stay_finite(kind: str):  # D24
    features = torch.randn(8, 4, 64, generator=generator())
    if kind == "zero":
        features = torch.zeros_like(features)
    elif kind == "one zero":
        features[:, 1] = 0
    else:
        features = features[:, :1].expand_as(features) * (1 + 1e-7 * torch.rand(8, 4, 64) * (kind != "equal"))
    features.requires_grad_()
    y = gram_schmidt_mixture(features, torch.full((8, 4), 0.25))
    y.square().sum().backward()
    assert features.grad is not None
    assert y.isfinite().all()
    assert features.grad.isfinite().all()
    assert y.norm(dim=1).max() < 1.01


def test_overlap_by_hand():
    features = torch.tensor([[[2.0, 0], [0, 3], [1, 1]]])  # cos^2: 0, 1/2, 1/2
    assert_close(mean_overlap(features), torch.tensor(1 / 3))
    assert mean_overlap(features[:, :1]) == 0


def test_top_k_keeps_exactly_k():
    p = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25]])
    kept = keep_top(p, 2)
    assert_close(kept[0], torch.tensor([0, 0, 3 / 7, 4 / 7]))
    assert (kept[1] > 0).sum() == 2
    assert_close(kept.sum(1), torch.ones(2))
    moe = block(top_k=1)
    moe.gate_out.weight.data.normal_(generator=generator())
    assert ((moe.gate(torch.randn(9, 6)) > 0).sum(1) == 1).all()


def test_gates_start_equal_and_follow_the_temperature():
    moe = block(2)
    x = torch.randn(5, 6, generator=generator())
    assert_close(moe.gate(x), torch.full((5, 2), 0.5))
    moe.gate_out.bias.data.copy_(torch.tensor([math.log(4), 0]))
    for tau, share in ((1.0, 0.8), (2.0, 2 / 3), (0.5, 16 / 17)):
        moe.tau.fill_(tau)
        assert_close(moe.gate(x)[:, 0], torch.full((5,), share))


def test_each_row_is_routed_alone():  # D25: no normalisation over other rows
    moe = block()
    moe.gate_out.weight.data.normal_(generator=generator())
    x = torch.randn(7, 6, generator=generator(1))
    p = moe.gate(x)
    assert_close(p.sum(1), torch.ones(7))
    assert p.std(0).min() > 0.01
    for row in range(7):
        assert_close(moe.gate(x[row : row + 1])[0], p[row])


def test_one_expert_is_the_dense_trunk():
    moe = block(1, orthogonal="off")
    dense = MLP((6, 8, 32), moe.head, generator(5))
    for layer, stacked in zip(dense.hidden, (moe.inner, moe.outer)):
        stacked.weight.data[0], stacked.bias.data[0] = layer.weight.data, layer.bias.data
        stacked.scale.data[0], stacked.shift.data[0] = layer.scale.data, layer.shift.data
    x = torch.randn(3, 5, 6, generator=generator(1))
    assert_close(moe(x), dense(x), rtol=1e-6, atol=1e-6)
    found = moe.observe(torch.ones(3, 5, 1), torch.zeros(5, dtype=torch.int64), GOOD, *CONTROL)
    assert found["entropy"] == found["load_balance"] == 0
    assert_close(moe.tau, torch.tensor(1.8))


def test_a_whole_model_with_one_expert_has_the_dense_width():
    model = WorldModel(TrainConfig(model_size="tiny", n_experts=1), [TaskSpec("a", 3, 1, 500)], generator())
    assert model.dynamics.inner.weight.shape == (1, 128, 65)


@pytest.mark.parametrize("mode", ["features", "penalty", "init"])
def test_experts_start_orthogonal(mode: str):
    rows = block(3, orthogonal=mode).inner.weight.detach().flatten(0, 1)  # (24, 6): the columns are orthogonal
    gram = rows.mT @ rows
    assert_close(gram, gram[0, 0] * torch.eye(6), rtol=0, atol=1e-5)
    assert rows.square().mean().sqrt().item() == pytest.approx(0.02, rel=1e-4)


def test_the_temperature_moves_as_by_hand_and_only_after_good_updates():
    moe, p = block(), torch.tensor([0.7, 0.1, 0.1, 0.1]).expand(3, 5, 4)
    task = torch.zeros(5, dtype=torch.int64)
    found = moe.observe(p, task, GOOD, *CONTROL)
    assert_close(moe.tau, torch.tensor(1.796432))
    assert_close(found["load_balance"], torch.tensor(1.08))
    assert_close(found["max_load"], torch.tensor(0.7))
    before = {name: value.clone() for name, value in moe.named_buffers()}
    moe.observe(p * math.nan, task, ~GOOD, *CONTROL)
    for name, value in moe.named_buffers():
        assert torch.equal(value, before[name]), name


def test_dead_experts_are_counted():
    moe, p = block(3), torch.tensor([0.995, 0.005, 0.0]).expand(1, 1, 3)
    moe.quiet.fill_(998)
    task = torch.zeros(1, dtype=torch.int64)
    assert moe.observe(p, task, GOOD, *CONTROL)["dead"] == 0
    assert moe.observe(p, task, GOOD, *CONTROL)["dead"] == 2
    assert moe.observe(p.flip(2), task, GOOD, *CONTROL)["dead"] == 1


def test_the_history_is_a_ring_of_constant_memory():  # D23
    moe, task = block(2, num_tasks=2), torch.tensor([0, 1])
    places = [(b.data_ptr(), b.shape) for b in moe.buffers()]
    for n in range(HISTORY + 300):
        share = torch.tensor([[n / 2_000, 0.5]])  # (H = 1, B = 2): task 0 moves, task 1 stays
        moe.observe(torch.stack((share, 1 - share), -1), task, GOOD, *CONTROL)
    assert places == [(b.data_ptr(), b.shape) for b in moe.buffers()]
    seen = moe.recent()
    assert seen.shape == (HISTORY, 2, 2)
    np.testing.assert_allclose(seen[:, 0, 0], np.arange(300, HISTORY + 300) / 2_000, rtol=1e-5)
    np.testing.assert_allclose(seen[:, 1], 0.5)
    moe.forget()
    assert moe.recent().shape == (0, 2, 2)
    assert not moe.history.any()


def test_tasks_that_own_an_expert_show_in_the_mutual_information():
    moe, own = block(2, num_tasks=2), torch.tensor([[1.0, 0.0], [0.0, 1.0]]).unsqueeze(0)
    found = moe.observe(own, torch.tensor([0, 1]), GOOD, *CONTROL)
    assert_close(found["mi_task"], torch.tensor(math.log(2)))
    assert_close(found["load_balance"], torch.tensor(0.0))


def test_gates_are_reported_only_where_asked():
    moe, gates = block(orthogonal="penalty"), []
    x = torch.randn(2, 3, 6, generator=generator())
    assert torch.equal(moe(x), moe(x, gates))
    assert gates[0].p.shape == (2, 3, 4)
    assert 0 < gates[0].overlap < 1
