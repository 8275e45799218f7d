"""The networks: their size, what they say before they have learnt, what masks and heads do."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from prismatic.config import SIZES, TaskSpec, TrainConfig
from prismatic.layers import simnorm
from prismatic.losses import soft_cross_entropy, two_hot
from prismatic.model import WorldModel

PENDULUM = [TaskSpec("pendulum", 3, 1, 500)]
TWO = [TaskSpec("wide", 5, 3, 1000), TaskSpec("narrow", 3, 1, 100)]
TINY = TrainConfig(model_size="tiny")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_learnable_numbers_of_size_1_are_counted_once():  # D4
    model = WorldModel(TrainConfig(model_size=1, use_moe=False), PENDULUM, generator())
    assert model.num_learnable == 1_197_745


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("moe", [False, True])
def test_every_size_can_be_built_and_experts_cost_what_dense_costs(size: str | int, moe: bool):
    with torch.device("meta"):
        model = WorldModel(TrainConfig(model_size=size, use_moe=moe), PENDULUM)
        dense = WorldModel(TrainConfig(model_size=size, use_moe=False), PENDULUM)
    share = 1.1 if size != "tiny" else 1.4  # tiny experts have 64 units at least
    assert model.num_learnable < share * dense.num_learnable
    if isinstance(size, int):
        assert dense.num_learnable == pytest.approx(size * 1e6, rel=0.25)


def test_weights_are_drawn_as_the_paper_says_and_from_the_generator_alone():
    before = torch.get_rng_state()
    model = WorldModel(TINY, PENDULUM, generator())
    assert torch.equal(before, torch.get_rng_state())
    again = WorldModel(TINY, PENDULUM, generator())
    for (name, p), q in zip(model.named_parameters(), again.parameters()):
        assert torch.equal(p, q), name
        if name.endswith("weight") and p.abs().sum() > 0 and p.numel() > 1_000:
            assert p.std().item() == pytest.approx(0.02, rel=0.1), name
        if name.endswith("bias"):
            assert not p.any(), name


@pytest.mark.parametrize("moe", [False, True])
def test_zero_heads_say_zero_and_cost_ln_101(moe: bool):
    model = WorldModel(TrainConfig(model_size="tiny", use_moe=moe), PENDULUM, generator())
    task, z, a = torch.zeros(4, dtype=torch.int64), torch.rand(4, 64), torch.rand(4, 1)
    for logits in (model.reward(z, a, task), *model.q(z, a, task)):
        assert_close(model.value(logits), torch.zeros(4), rtol=0, atol=1e-5)
        assert_close(soft_cross_entropy(logits, two_hot(torch.randn(4))), torch.full((4,), 4.615121))


def test_simnorm_is_a_softmax_of_groups_of_eight():
    z = simnorm(torch.randn(5, 64, generator=generator()))
    assert_close(z.unflatten(-1, (8, 8)).sum(-1), torch.ones(5, 8))
    assert_close(simnorm(torch.zeros(2, 16)), torch.full((2, 16), 0.125))


@pytest.mark.parametrize(("raw", "log_std"), [(0.0, -4.0), (-50.0, -10.0), (50.0, 2.0)])
def test_log_std_of_the_policy(raw: float, log_std: float):
    model = WorldModel(TINY, PENDULUM, generator())
    with torch.no_grad():
        model.policy_net.head.weight.zero_()
        model.policy_net.head.bias.copy_(torch.tensor([0.3, raw]))
    z, task = torch.rand(2, 64), torch.zeros(2, dtype=torch.int64)
    sample = model.pi(z, task, torch.ones(2, 1))
    assert_close(sample.log_std, torch.full((2, 1), log_std))
    assert_close(sample.mean, torch.full((2, 1), 0.3).tanh())
    assert_close(sample.action, (0.3 + torch.full((2, 1), log_std).exp()).tanh())


@pytest.mark.parametrize("heads", [[3, 1], [0, 4]])
def test_only_the_heads_asked_for_are_evaluated(heads: list[int]):
    model = WorldModel(TrainConfig(model_size=5, use_moe=False), PENDULUM, generator())
    with torch.no_grad():
        model.critics.head.weight.normal_(generator=generator(1))
    z, a, task = torch.rand(3, 2, 512), torch.rand(3, 2, 1), torch.zeros(2, dtype=torch.int64)
    every = model.q(z, a, task)
    assert every.shape == (5, 3, 2, 101)
    assert_close(model.q(z, a, task, torch.tensor(heads)), every[heads])


def test_detached_critics_pass_gradients_to_the_action_alone():
    model = WorldModel(TINY, PENDULUM, generator())
    with torch.no_grad():
        model.critics.head.weight.normal_(generator=generator(1))
    a = torch.rand(2, 1, requires_grad=True)
    model.q(torch.rand(2, 64), a, torch.zeros(2, dtype=torch.int64), detach=True)[..., 0].sum().backward()
    assert a.grad is not None
    assert a.grad.any()
    assert all(p.grad is None for p in model.parameters())


def test_targets_are_a_copy_that_no_gradient_reaches():
    model = WorldModel(TINY, PENDULUM, generator())
    for p, q in zip(model.critics.parameters(), model.target_critics.parameters()):
        assert torch.equal(p, q)
        assert p.data_ptr() != q.data_ptr()
        assert not q.requires_grad


def test_what_lies_in_the_padding_never_matters():
    model = WorldModel(TINY, TWO, generator())
    task = torch.tensor([1, 0])
    obs, junk = torch.randn(2, 5, generator=generator(1)), torch.zeros(2, 5)
    junk[0, 3:] = 1e3
    assert torch.equal(model.encode(obs, task), model.encode(obs + junk, task))
    sample = model.pi(torch.rand(2, 64), task, torch.ones(2, 3))
    assert not sample.action[0, 1:].any()
    assert sample.action[1].all()
    assert_close(model.mask_action(torch.ones(2, 3), task), torch.tensor([[1.0, 0, 0], [1, 1, 1]]))


@pytest.mark.parametrize("entropy", ["gaussian", "squashed"])
def test_entropy_counts_the_tasks_own_actions(entropy: str):
    """A narrow task beside a wide one has the entropy it has alone."""
    model = WorldModel(TrainConfig(model_size="tiny", entropy=entropy), TWO, generator())
    z, noise = torch.rand(1, 64), torch.tensor([[0.5, -9.0, 9.0]])
    sample = model.pi(z, torch.tensor([1]), noise)
    u, log_std = sample.u[:, :1], sample.log_std[:, :1]
    normal = torch.distributions.Normal(u - 0.5 * log_std.exp(), log_std.exp())
    expected = -normal.log_prob(u)
    if entropy == "squashed":
        expected = expected + (1 - u.tanh().square()).log()
    assert_close(model.policy_entropy(sample, torch.tensor([1])), expected[:, 0], rtol=1e-4, atol=1e-4)


def test_discounts_and_episodic_follow_the_tasks():
    model = WorldModel(TINY, [TaskSpec("a", 3, 1, 500), TaskSpec("b", 3, 1, 1000, episodic=True)], generator())
    assert_close(model.discounts, torch.tensor([0.99, 0.995]))
    assert model.episodic
    assert model.can_end.tolist() == [0, 1]
    assert not WorldModel(TrainConfig(model_size="tiny", episodic="false"), [model.tasks[1]], generator()).episodic


def test_old_names_of_the_blocks():
    model = WorldModel(TINY, PENDULUM, generator())
    assert model._dynamics is model.dynamics
    assert model._reward is model.reward_net
