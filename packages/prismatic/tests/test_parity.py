"""The package against the same mathematics written the long way (`plain_tdmpc2.py`), from outputs to plans."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from prismatic.agent import Agent, UpdateNoise
from prismatic.config import TaskSpec, TrainConfig
from prismatic.planner import PlanNoise, plan, shift

CPU = torch.device("cpu")
ONE = [TaskSpec("one", 5, 2, 500)]
TWO = [TaskSpec("long", 5, 3, 1000), TaskSpec("short", 3, 1, 100, episodic=True)]
CASES = {
    "dense": (TrainConfig(use_moe=False), ONE),
    "dense-two-tasks": (TrainConfig(use_moe=False, dropout=0.1), TWO),
    "moe": (TrainConfig(), ONE),
    "moe-two-tasks": (TrainConfig(n_experts=3), TWO),
    "moe-not-orthogonal": (TrainConfig(use_orthogonal=False, n_experts=2), ONE),
    "moe-penalty-squashed": (TrainConfig(orthogonal_mode="penalty", entropy="squashed"), TWO),
    "moe-top-2-init": (TrainConfig(orthogonal_mode="init", moe_top_k=2, moe_expert_dim=40), ONE),
}
SMALL = {"batch_size": 12, "num_samples": 24, "num_elites": 6, "num_pi_trajs": 4, "iterations": 3}


def load_plain() -> ModuleType:
    spec = importlib.util.spec_from_file_location("plain_tdmpc2", Path(__file__).with_name("plain_tdmpc2.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


plain = load_plain()


def make_agent(case: str, size: str | int = "tiny") -> Agent:
    """An agent that has been shaken, so that no head or gate says nothing any more."""
    cfg, tasks = CASES[case]
    values = {f: getattr(cfg, f) for f in cfg.__dataclass_fields__}
    agent = Agent(TrainConfig(**{**values, **SMALL, "model_size": size}), tasks, CPU)
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in agent.model.parameters():
            p += 0.1 * torch.randn(p.shape, generator=g)
        if agent.model.task_emb is not None:
            agent.model.task_emb *= 0.5
    return agent


def make_batch(agent: Agent, seed: int = 0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    cfg, model = agent.cfg, agent.model
    shape = (cfg.horizon, cfg.batch_size)
    return {
        "obs": torch.randn(*shape, model.obs_dim, generator=g),
        "next_obs": torch.randn(*shape, model.obs_dim, generator=g),
        "action": torch.rand(*shape, model.action_dim, generator=g) * 2 - 1,
        "reward": 3 * torch.randn(shape, generator=g),
        "terminated": torch.rand(shape, generator=g) < 0.2,
        "task": torch.arange(cfg.batch_size) % len(agent.tasks),
    }


@pytest.mark.parametrize("case", CASES)
def test_networks_say_the_same(case: str):
    agent = make_agent(case)
    net, model, g = plain.PlainModel(agent), agent.model, torch.Generator().manual_seed(2)
    task = torch.arange(7) % len(agent.tasks)
    obs = torch.randn(7, model.obs_dim, generator=g) * model.obs_mask[task]
    z = model.encode(obs, task)
    assert_close(z, net.encoder(net.join(task, obs)), rtol=1e-5, atol=1e-5)
    assert_close(z.unflatten(-1, (-1, 8)).sum(-1), torch.ones(7, 8))
    action = torch.randn(7, model.action_dim, generator=g).tanh()
    assert_close(model.next(z, action, task), net.dynamics(net.join(task, z, action)), rtol=1e-5, atol=1e-5)
    assert_close(model.reward(z, action, task), net.rewards(net.join(task, z, action)), rtol=1e-5, atol=1e-5)
    for target in (False, True):
        assert_close(model.q(z, action, task, target=target), net.q(z, action, task, target), rtol=1e-5, atol=1e-5)
    noise = torch.randn(7, model.action_dim, generator=g)
    ours, (act, mean, entropy) = model.pi(z, task, noise), net.pi(z, task, noise)
    assert_close(ours.action, act, rtol=1e-5, atol=1e-5)
    assert_close(ours.mean, mean, rtol=1e-5, atol=1e-5)
    assert_close(model.policy_entropy(ours, task), entropy, rtol=1e-5, atol=1e-4)
    if model.episodic:
        assert net.termination is not None
        assert_close(model.terminated(z, task), net.termination(net.join(task, z)).squeeze(-1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_two_updates_are_the_same(case: str):
    agent = make_agent(case)
    learner = plain.PlainLearner(agent)
    for seed in (0, 1):
        batch, state = make_batch(agent, seed), agent.generator.get_state()
        noise: UpdateNoise = agent.draw(agent.cfg.batch_size)
        agent.generator.set_state(state)  # the update draws the same
        expected, found = learner.update(batch, noise), agent.update(batch)
        for name, value in expected.items():
            assert_close(found[name], value.detach(), rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
    again = plain.PlainModel(agent)
    for (name, ours), theirs in zip(again.named_parameters(), learner.net.parameters()):
        # Adam divides each gradient by its size: the few that are next to 0 are rounding, blown up.
        off = (ours - theirs).abs() / agent.cfg.lr
        assert off.mean() < 1e-3, (name, off.mean())
        assert off.max() < 0.2, (name, off.max())


@pytest.mark.parametrize("case", CASES)
def test_plans_are_the_same(case: str):
    agent = make_agent(case)
    net, model, envs = plain.PlainModel(agent), agent.model, 4
    g = torch.Generator().manual_seed(3)
    obs, task = torch.randn(envs, model.obs_dim, generator=g), torch.arange(envs) % len(agent.tasks)
    memory = agent.new_plan(envs, 0, "test")
    noise: PlanNoise = memory.noise(agent.settings, agent.cfg.size.num_q)
    start = model.mask_action(torch.rand(3, envs, model.action_dim, generator=g) - 0.5, task)
    start = shift(start, torch.tensor([True, False, False, False]))
    with torch.no_grad():
        mean, *_ = plan(model, model.encode(obs, task), task, start, noise, agent.settings)
    for env in range(envs):
        expected = plain.plain_plan(net, obs[env], task[env], start[:, env], noise, env)
        assert_close(mean[:, env], expected, rtol=1e-4, atol=1e-5)


def test_one_expert_is_the_dense_agent():
    """K = 1, not orthogonalised: from the same weights the same losses, updates and plans as without experts."""
    whole = TrainConfig(**SMALL, model_size="tiny", n_experts=1, use_orthogonal=False, moe_expert_dim=128)
    one, dense = (Agent(replace(whole, use_moe=moe), ONE, CPU) for moe in (True, False))
    renamed = {
        f"{block}.{theirs}.{part}": f"{block}.hidden.{i}.{part}"
        for block in ("dynamics", "reward_net")
        for i, theirs in enumerate(("inner", "outer"))
        for part in ("weight", "bias", "scale", "shift")
    }
    weights, shapes = one.model.state_dict(), dense.model.state_dict()
    kept = {renamed.get(name, name): value for name, value in weights.items()}
    dense.model.load_state_dict({name: kept[name].view_as(like) for name, like in shapes.items()})
    memories = [agent.new_plan(3, 0, "test") for agent in (one, dense)]
    for seed in range(3):
        losses = [agent.update(make_batch(agent, seed)) for agent in (one, dense)]
        for name, value in losses[1].items():
            assert_close(losses[0][name], value, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
        assert (losses[0]["moe_loss"], one.model.dynamics.tau) == (0.0, torch.tensor(1.8))  # nothing to balance or heat
        obs, ids = np.random.default_rng(seed).normal(size=(3, 5)).astype(np.float32), np.zeros(3, np.int64)
        plans = [agent.act(obs, ids == 0, ids, memory) for agent, memory in zip((one, dense), memories)]
        np.testing.assert_allclose(*plans, atol=1e-4)
