"""What SAC agents do: stacked, at play, through checkpoints, with a prior, a pull, and what is private."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_sac import ACT, CFG, OBS, ROWS, close, make, make_batch, make_noise
from torch import Tensor

from rlblocks.config import SACConfig
from rlblocks.gaussians import kl
from rlblocks.sac import SAC, Sample, actor_loss, critic_loss, soft_td_target
from rlcore import checkpoint
from rlcore.errors import UsageError


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_stacked_agents_are_separate_ones(precision: Any) -> None:
    cfg, seeds = replace(CFG, precision=precision), (3, 1, 4)
    together, alone = make(cfg, seeds), [make(cfg, (seed,)) for seed in seeds]
    for k in range(10):
        batch = make_batch(k, 3, ROWS)
        metrics = together.update(batch)
        single = [agent.update({key: value[n] for key, value in batch.items()}) for n, agent in enumerate(alone)]
        for name, value in metrics.items():
            close(value, torch.stack([m[name] for m in single]), 1e-5)
    obs = np.random.default_rng(0).standard_normal((3, 2, OBS), np.float32)
    np.testing.assert_allclose(together.act(obs), [a.act(o) for a, o in zip(alone, obs)], atol=1e-5)
    for name in ("actor", "critic", "target"):
        rows = torch.cat([getattr(agent, name).parameters for agent in alone])
        close(getattr(together, name).parameters, rows, 1e-5)
    close(together.log_alpha, torch.cat([agent.log_alpha for agent in alone]), 1e-5)


@pytest.mark.parametrize("log_std_map", ["clamp", "tanh"])
def test_numpy_acts_as_torch_does(log_std_map: Any) -> None:
    agent = make(replace(CFG, log_std_map=log_std_map), (0, 1))
    obs = np.random.default_rng(0).standard_normal((2, 6, OBS), np.float32)
    noise = np.stack([copy.deepcopy(g).standard_normal((6, ACT), np.float32) for g in agent.exploration])
    sample = agent.policy(torch.from_numpy(obs), torch.from_numpy(noise))
    np.testing.assert_allclose(agent.act(obs), sample.action.detach(), atol=1e-6)
    np.testing.assert_allclose(agent.act(obs, deterministic=True), sample.mean.detach().tanh(), atol=1e-6)
    agent.update(make_batch(0, 2, ROWS))  # the views follow
    sample = agent.policy(torch.from_numpy(obs), torch.zeros(2, 6, ACT))
    np.testing.assert_allclose(agent.act(obs, deterministic=True), sample.action.detach(), atol=1e-6)


def test_one_agent_acts_on_one_observation_or_many() -> None:
    agent, obs = make(), np.random.default_rng(0).standard_normal((3, OBS), np.float32)
    many = agent.act(obs, deterministic=True)
    assert many.shape == (3, ACT)
    assert many.dtype == np.float32
    np.testing.assert_allclose(agent.act(obs[0], deterministic=True), many[0], atol=1e-6)
    assert not np.array_equal(agent.act(obs), agent.act(obs))


def test_what_is_private_never_reaches_the_actor() -> None:
    """Acting is given none of it; an update's actions are the same whatever it is, the critics' values are not."""
    agent, batch = make(private=2), make_batch(0, 1, ROWS)["obs"]
    others = batch.clone()
    others[..., -2:] = 7.0
    one, two = (agent.policy(obs, make_noise(0)[0]).action for obs in (batch, others))
    assert torch.equal(one, two)
    assert not torch.equal(agent.q(agent.critic, batch, one), agent.q(agent.critic, others, one))
    acted = agent.act(batch[..., :-2].numpy(), deterministic=True)
    close(torch.as_tensor(acted), agent.policy(batch, torch.zeros(1, ROWS, ACT)).action.detach(), 1e-6)
    with pytest.raises(AssertionError):
        agent.act(batch.numpy())
    widths = []

    def cost(obs: Tensor, sample: Sample) -> Tensor:
        widths.append(obs.shape[-1])
        return sample.log_prob

    make(private=2, cost=cost).update(make_batch(0, ROWS), make_noise(0))
    assert widths == [OBS - 2, OBS - 2]


def test_state_goes_through_a_checkpoint_and_on_bit_for_bit(tmp_path: Path) -> None:
    cfg = replace(CFG, target_every=2, actor_every=3)
    agent, other = make(cfg, (0, 1), num_tasks=3), make(cfg, (7, 8), num_tasks=3)
    obs = np.ones((2, 1, OBS), np.float32)
    for k in range(4):
        agent.update(make_batch(k, 2, ROWS, tasks=3))
        agent.act(obs)
    checkpoint.save(tmp_path / "a.pt", {"agent": agent.state_dict()})
    other.load_state_dict(checkpoint.load(tmp_path / "a.pt")["agent"])
    for k in range(4, 8):
        batch = make_batch(k, 2, ROWS, tasks=3)
        a, b = agent.update(batch), other.update(batch)
        assert all(torch.equal(a[name], b[name]) for name in a)
        assert np.array_equal(agent.act(obs), other.act(obs))
    for name, value in agent.tensors().items():
        assert torch.equal(value, other.tensors()[name])
    with pytest.raises(UsageError, match="actor"):
        make(replace(cfg, hidden=(8,)), (0, 1), num_tasks=3).load_state_dict(agent.state_dict())


def test_same_seed_same_numbers_and_nothing_global() -> None:
    before = torch.get_rng_state()
    one, other = make(), make()
    for k in range(3):
        for agent in (one, other):
            agent.update(make_batch(k, ROWS))
    assert torch.equal(one.actor.parameters, other.actor.parameters)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(one.actor.parameters, make(seeds=(1,)).actor.parameters)


def test_periods_count_critic_updates() -> None:
    agent = make(replace(CFG, target_every=2, actor_every=3))
    moved = []
    for k in range(6):
        before = {name: value.detach().clone() for name, value in agent.tensors().items()}
        metrics = agent.update(make_batch(k, ROWS))
        assert ("actor_loss" in metrics) == ((k + 1) % 3 == 0)
        moved.append({name for name, value in agent.tensors().items() if not torch.equal(value, before[name])})
    critic, target, actor = {"critic"}, {"target"}, {"actor", "log_alpha"}
    assert moved == [critic, critic | target, critic | actor, critic | target, critic, critic | target | actor]


def test_catching_up_leaves_the_actor_alone() -> None:
    agent = make()
    before = agent.actor.parameters.detach().clone()
    metrics = agent.update(make_batch(0, ROWS), actor=False)
    assert metrics.keys() == {"critic_loss", "q"}
    assert torch.equal(agent.actor.parameters, before)
    assert torch.equal(agent.log_alpha, make().log_alpha)


def test_critics_get_no_gradient_from_the_actor() -> None:
    one, other = make(), make()
    metrics = one.update(make_batch(0, ROWS))
    assert "actor_loss" in metrics
    other.update(make_batch(0, ROWS), actor=False)
    assert torch.equal(one.critic.parameters, other.critic.parameters)
    assert torch.equal(one.critic_adam.state["mean"][0], other.critic_adam.state["mean"][0])
    obs, action = torch.zeros(1, 3, OBS), torch.zeros(1, 3, ACT, requires_grad=True)
    (of_action,) = torch.autograd.grad(one.q(one.critic, obs, action, frozen=True).sum(), action)
    assert bool(of_action.any())  # ... but they pass one on
    assert not one.q(one.critic, obs, action.detach(), frozen=True).requires_grad


def test_temperatures_of_absent_tasks_stay() -> None:
    agent = make(num_tasks=4)
    for k, present in enumerate([(0, 1, 2, 3), (0, 2), (3,)]):
        before = agent.log_alpha.detach().clone()
        batch = make_batch(k, ROWS)
        batch["task_id"] = torch.tensor(present).repeat(ROWS)[:ROWS]
        agent.update(batch)
        moved = (agent.log_alpha != before)[0].nonzero()[:, 0].tolist()
        assert moved == list(present)


def test_each_row_uses_its_own_tasks_temperature() -> None:
    agent = make(num_tasks=2)
    with torch.no_grad():
        agent.log_alpha.copy_(torch.tensor([[0.1, 0.9]]).log())
    single = {alpha: make(replace(CFG, alpha=alpha)) for alpha in (0.1, 0.9)}
    for task, alpha in enumerate((0.1, 0.9)):
        twin = copy.deepcopy(agent.state_dict())
        batch = {**make_batch(0, ROWS), "task_id": torch.full((ROWS,), task)}
        got, want = agent.update(batch, make_noise(0)), single[alpha].update(batch, make_noise(0))
        for name in ("critic_loss", "actor_loss", "alpha"):
            close(got[name], want[name], 1e-6)
        agent.load_state_dict(twin)


def test_what_else_the_actor_goes_down() -> None:
    """Its gradient is the sum's: the pull is given the batch's further fields, and the values of its own actions."""
    seen: list[tuple[torch.Size, ...]] = []

    def pull(agent: SAC, obs: Tensor, now: Sample, q: Tensor, fields: Any) -> Tensor:
        seen.append((obs.shape, q.shape, fields[0].shape))
        return (now.mean - fields[0]).square().mean((1, 2))

    advice = torch.full((ROWS, ACT), 0.3)
    pulled, plain = make(pull=pull, fields=("advice",)), make()
    before = plain.actor.parameters.detach().clone().requires_grad_()
    for agent in (pulled, plain):
        agent.update(make_batch(0, ROWS) | {"advice": advice}, make_noise(0))
    assert seen == [((1, ROWS, OBS), (1, CFG.critics, ROWS), (1, ROWS, ACT))]
    mean = plain.actor.batched(make_batch(0, ROWS)["obs"][None], before).chunk(2, -1)[0]
    (extra,) = torch.autograd.grad((mean - advice).square().mean(), before)
    first, second = (agent.actor_adam.state["mean"][0] / (1 - 0.9) for agent in (pulled, plain))
    close(first - second, extra, 1e-5)


def test_a_prior_in_place_of_entropy() -> None:
    """The cost is KL(pi || prior): with the policy itself as the prior, nothing is paid, and alpha does not matter."""
    zero, half = torch.zeros(()), torch.full((), math.log(0.5))

    def divergence(obs: Tensor, sample: Sample) -> Tensor:
        return kl(sample.mean, sample.log_std, zero.expand_as(sample.mean), half.expand_as(sample.mean))

    agent = make(cost=divergence, target_cost=0.5)
    sample = agent.policy(make_batch(0, 1, ROWS)["obs"], make_noise(0)[0])
    expected = float(divergence(Tensor(), sample).detach().mean())
    before = float(agent.log_alpha.detach())
    metrics = agent.update(make_batch(0, ROWS), make_noise(0))
    assert float(metrics["cost"]) == pytest.approx(expected, rel=1e-5)
    assert (float(agent.log_alpha.detach()) > before) == (expected > 0.5)

    def nothing(obs: Tensor, sample: Sample) -> Tensor:
        return kl(sample.mean, sample.log_std, sample.mean, sample.log_std)

    losses = [
        make(replace(CFG, alpha=alpha), cost=nothing, target_cost=1.0).update(make_batch(0, ROWS), make_noise(0))
        for alpha in (0.1, 100.0)
    ]
    for name in ("critic_loss", "actor_loss"):
        close(losses[0][name], losses[1][name], 1e-5)


def test_bf16_stays_close_to_float32() -> None:
    exact, rough = (make(replace(CFG, hidden=(64, 64, 64), precision=p)) for p in ("float32", "bf16"))
    for k in range(5):
        a, b = (agent.update(make_batch(k, ROWS), make_noise(k)) for agent in (exact, rough))
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=0.03, atol=0.03)
    gap = (exact.actor.parameters - rough.actor.parameters).detach().abs().mean()
    assert 0 < float(gap) < 0.2 * 5 * CFG.actor_lr  # of the way that five steps of Adam can go
    assert all(value.dtype == torch.float32 for value in rough.tensors().values())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_graphed_updates_are_plain_ones() -> None:
    """Two kinds of updates, through warm-ups, recording and replays; and after a checkpoint has been put back."""
    cfg = replace(CFG, actor_every=2)
    graphed, plain = (
        make(replace(cfg, cuda_graph=graph), (0, 1), device="cuda", num_tasks=2) for graph in (True, False)
    )
    for k in range(24):
        batch = {name: value.cuda() for name, value in make_batch(k, 2, ROWS, tasks=2).items()}
        a, b = graphed.update(batch), plain.update(batch)
        assert a.keys() == b.keys()
        for name in a:
            torch.testing.assert_close(a[name], b[name], atol=1e-4, rtol=1e-4)
        if k == 14:
            graphed.load_state_dict(copy.deepcopy(graphed.state_dict()))
    for name, value in graphed.tensors().items():
        torch.testing.assert_close(value, plain.tensors()[name], atol=1e-4, rtol=1e-4)
    obs = np.ones((2, 3, OBS), np.float32)
    np.testing.assert_allclose(graphed.act(obs, deterministic=True), plain.act(obs, deterministic=True), atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_learns_what_a_cpu_does() -> None:
    gpu, cpu = make(device="cuda"), make()
    for k in range(5):
        gpu.update({name: value.cuda() for name, value in make_batch(k, ROWS).items()}, make_noise(k).cuda())
        cpu.update(make_batch(k, ROWS), make_noise(k))
    for name, value in gpu.tensors().items():
        torch.testing.assert_close(value.cpu(), cpu.tensors()[name], atol=1e-4, rtol=1e-3)


def test_extreme_batches_stay_finite() -> None:
    agent = make()
    with torch.no_grad():
        for _, bias in agent.actor.layers(agent.actor.parameters)[-1:]:
            bias[..., :ACT] = 20.0  # u = 20 and beyond: tanh is 1
            bias[..., ACT:] = 5.0
    for k in range(3):
        metrics = agent.update({**make_batch(k, ROWS), "action": torch.ones(ROWS, ACT)})
        assert all(bool(value.isfinite().all()) for value in (*metrics.values(), *agent.tensors().values()))


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(AssertionError, match=r"\[2, 4\].*\[3\]"):
        soft_td_target(torch.zeros(3), torch.zeros(3), torch.zeros(2, 4), torch.zeros(3), torch.zeros(()))
    with pytest.raises(AssertionError, match=r"\[2, 4\].*\[3\]"):
        critic_loss(torch.zeros(2, 4), torch.zeros(3))
    with pytest.raises(AssertionError, match=r"\[2, 4\].*\[3\]"):
        actor_loss(torch.zeros(2, 4), torch.zeros(3), torch.zeros(()))
    agent = make(seeds=(0, 1))
    with pytest.raises(AssertionError, match=f"{OBS}"):
        agent.update(make_batch(0, ROWS))  # no axis of agents
    with pytest.raises(AssertionError, match="2"):
        agent.act(np.zeros((3, OBS), np.float32))
    with pytest.raises(AssertionError, match="3"):
        make().act(np.zeros((3,), np.float32))
    batch = make_batch(0, ROWS)
    with pytest.raises(AssertionError, match=f"{ACT + 1}"):
        make().update({**batch, "action": torch.zeros(ROWS, ACT + 1)})
    with pytest.raises(AssertionError, match="1"):
        make().update({**batch, "reward": batch["reward"][:, None]})


@pytest.mark.parametrize(
    "wrong",
    [
        {"hidden": ()}, {"hidden": (0,)}, {"critics": 0}, {"tau": 0.0}, {"tau": 1.5}, {"alpha": 0.0},
        {"actor_lr": -1.0}, {"target_every": 0}, {"actor_every": 0}, {"log_std_min": 3.0},
    ],
)  # fmt: skip
def test_config_refuses(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        SACConfig(**wrong)
