"""The planner: on models whose answer is known, one env or many, and what its noise depends on."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from prismatic.agent import Agent
from prismatic.config import TaskSpec, TrainConfig
from prismatic.model import PolicySample
from prismatic.planner import PlanSettings, PlanState, choose, draw_heads, plan, score, settings_of, shift

CPU = torch.device("cpu")
SETTINGS = PlanSettings(3, 6, 512, 64, 24, 0.05, 2.0, 0.5)
SMALL = TrainConfig(model_size="tiny", num_samples=32, num_elites=8, num_pi_trajs=4, iterations=3)
ONE, TWO = [TaskSpec("one", 4, 2, 500)], [TaskSpec("wide", 4, 3, 500), TaskSpec("narrow", 2, 1, 100, episodic=True)]


class Known:
    """z' = z + a, r = -z^2 - 0.1 a^2, Q(z, a) = -z^2: values are numbers, not codes. The prior does nothing."""

    episodic = False
    discounts = torch.tensor([1.0])

    def mask_action(self, x: Tensor, task: Tensor) -> Tensor:
        return x

    def next(self, z: Tensor, a: Tensor, task: Tensor) -> Tensor:
        return z + a

    def reward(self, z: Tensor, a: Tensor, task: Tensor) -> Tensor:
        return -z.square().sum(-1) - 0.1 * a.square().sum(-1)

    def q(self, z: Tensor, a: Tensor, task: Tensor, heads: Tensor) -> Tensor:
        return -z.square().sum(-1).expand(2, *z.shape[:-1])

    def pi(self, z: Tensor, task: Tensor, noise: Tensor) -> PolicySample:
        return PolicySample(*[torch.zeros_like(noise)] * 5)

    def value(self, x: Tensor) -> Tensor:
        return x


def best_gain(steps: int) -> float:
    """a = -gain z is best when `steps` actions are left: the Riccati recursion of Known's numbers."""
    p = 1.0
    for _ in range(steps):
        gain = p / (0.1 + p)
        p = 1 + 0.1 * gain**2 + p * (1 - gain) ** 2
    return gain


def test_the_best_action_of_a_linear_quadratic_model():
    z = torch.tensor([[0.8, -0.5], [0.0, 0.3], [-0.9, 0.6]])  # (E, D)
    memory, task = PlanState(3, 3, 2, 0, "test"), torch.zeros(3, dtype=torch.int64)
    mean, std, elites, weight = plan(Known(), z, task, memory.mean, memory.noise(SETTINGS, 2), SETTINGS)
    assert_close(mean[0], -best_gain(3) * z, rtol=0, atol=0.1)
    assert std.max() < 0.5
    assert elites.shape == (3, 3, 64, 2)
    assert_close(weight.sum(1), torch.ones(3))


def test_scores_by_hand():
    states, actions = torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1, 1), torch.zeros(2, 1, 1, 1)
    model = Known()
    model.discounts = torch.tensor([0.5])
    total, left = score(model, states, actions, torch.zeros(1, 1, dtype=torch.int64))
    assert (total.item(), left.item()) == (-1 - 0.5 * 4, 0.25)


@pytest.mark.parametrize(("end", "total", "left"), [(1, -1, 0), (2, -1 - 0.5 * 4, 0), (9, -1 - 0.5 * 4, 0.25)])
@pytest.mark.parametrize("can_end", [0.0, 1.0])
def test_nothing_counts_after_a_predicted_end(end: int, total: float, left: float, can_end: float):
    """States 1, 2, 3; the one that the end is predicted in is the one after step `end`. It is sticky."""
    model = Known()
    model.discounts, model.can_end, model.episodic = torch.tensor([0.5]), torch.tensor([can_end]), True
    model.terminated = lambda z, task: torch.where(z.squeeze(-1) == end + 1, 1.0, -1.0)  # type: ignore[attr-defined]
    states, actions = torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1, 1), torch.zeros(2, 1, 1, 1)
    found = score(model, states, actions, torch.zeros(1, 1, dtype=torch.int64))
    assert tuple(x.item() for x in found) == ((total, left) if can_end else (-3, 0.25))


def test_sequences_of_unknown_value_count_as_zero():
    class Broken(Known):
        def reward(self, z: Tensor, a: Tensor, task: Tensor) -> Tensor:
            return torch.where(a[..., 0] > 0, math.nan, -10.0)  # 0 beats -30

    memory = PlanState(1, 3, 1, 0)
    task = torch.zeros(1, dtype=torch.int64)
    mean, *_ = plan(Broken(), torch.zeros(1, 1), task, memory.mean, memory.noise(SETTINGS, 2), SETTINGS)
    assert mean.isfinite().all()
    assert (mean > 0).any()


def test_the_next_plan_starts_one_step_on_or_at_zero():
    mean = torch.arange(12.0).view(3, 2, 2)
    ahead = shift(mean, torch.tensor([False, True]))
    assert_close(ahead[:, 0], torch.tensor([[4.0, 5], [8, 9], [0, 0]]))
    assert not ahead[:, 1].any()


def test_choices_by_hand():
    elites = torch.tensor([[[[0.1], [0.2], [0.3]], [[0.4], [0.5], [0.6]]]])  # (H = 1, E = 2, n = 3, A = 1)
    weight = torch.tensor([[0.5, 0.3, 0.2]] * 2)
    mean, std = torch.tensor([[[0.7], [-0.9]]]), torch.tensor([[[0.5], [1.0]]])
    noise = PlanState(2, 1, 1, 0).noise(replace(SETTINGS, horizon=1), 2)
    noise = noise._replace(pick=torch.tensor([0.6, 0.99]), act=torch.tensor([[0.2], [-3.0]]))
    fit = (mean, std, elites, weight, noise)
    assert_close(choose(*fit, sample=False, explore=False), torch.tensor([[0.7], [-0.9]]))
    assert_close(choose(*fit, sample=True, explore=False), torch.tensor([[0.2], [0.6]]))
    assert_close(choose(*fit, sample=True, explore=True), torch.tensor([[0.3], [-1.0]]))


def test_pairs_of_critics_differ_and_all_are_drawn():
    pairs = draw_heads(2_000, 5, torch.Generator().manual_seed(0), CPU)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    counts = torch.bincount(pairs.flatten(), minlength=5)
    assert counts.min() > 700
    assert counts.max() < 900


@pytest.mark.parametrize(("dims", "iterations"), [(19, 6), (20, 8)])
def test_wide_actions_take_two_more_iterations_and_no_configuration_changes(dims: int, iterations: int):  # D6
    cfg = TrainConfig(model_size="tiny")
    for _ in range(2):
        assert Agent(cfg, [TaskSpec("x", 3, dims, 500)], CPU).settings.iterations == iterations
    assert cfg.iterations == 6
    assert settings_of(cfg, dims).horizon == cfg.horizon


def shaken(cfg: TrainConfig, tasks: list[TaskSpec]) -> Agent:
    agent = Agent(cfg, tasks, CPU)
    with torch.no_grad():
        for p in agent.model.parameters():
            p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1))
    return agent


@pytest.mark.parametrize("tasks", [ONE, TWO], ids=["one", "two"])
@pytest.mark.parametrize("cfg", [replace(SMALL, use_moe=False), SMALL], ids=["dense", "moe"])
@pytest.mark.parametrize("eval_mode", [False, True])
def test_planning_for_many_is_planning_for_each(cfg: TrainConfig, tasks: list[TaskSpec], eval_mode: bool):
    agent, envs = shaken(cfg, tasks), 5
    obs = np.random.default_rng(0).normal(size=(3, envs, 4)).astype(np.float32)
    task = np.arange(envs) % len(tasks)
    first = np.zeros((3, envs), bool)
    first[0] = first[2, 3] = True
    together = agent.new_plan(envs, 7, "plan")
    alone = [agent.new_plan(1, 7, "plan", first_env=env) for env in range(envs)]
    for t in range(3):
        batched = agent.act(obs[t], first[t], task, together, eval_mode)
        for env, memory in enumerate(alone):
            row = slice(env, env + 1)
            single = agent.act(obs[t, row], first[t, row], task[row], memory, eval_mode)
            np.testing.assert_allclose(batched[row], single, atol=1e-5)
    assert batched.dtype == np.float32
    assert (np.abs(batched) <= 1).all()


def test_evaluation_repeats_and_acts_by_the_mean():  # D8
    agent, obs, one = shaken(SMALL, ONE), np.ones((1, 4), np.float32), np.ones(1, bool)
    task, memories = np.zeros(1, np.int64), [agent.new_plan(1, 3, "eval") for _ in range(3)]
    actions = [agent.act(obs, one, task, memory, eval_mode=True) for memory in memories]
    assert (actions[0] == actions[1]).all()
    assert (actions[0] == actions[2]).all()
    np.testing.assert_array_equal(actions[0][0], memories[0].mean[0, 0].numpy())
    sampling = shaken(replace(SMALL, eval_sample=True), ONE)
    drawn = [sampling.act(obs, one, task, sampling.new_plan(1, seed, "eval"), eval_mode=True) for seed in (3, 3, 4)]
    assert (drawn[0] == drawn[1]).all()
    assert (drawn[0] != drawn[2]).any()
    assert (drawn[0] != actions[0]).any()


def test_without_planning_the_prior_acts():
    agent, obs, one = shaken(replace(SMALL, mpc=False), ONE), np.ones((2, 4), np.float32), np.ones(2, bool)
    task, memory = np.zeros(2, np.int64), agent.new_plan(2, 0)
    greedy = agent.act(obs, one, task, memory, eval_mode=True)
    z = agent.model.encode(torch.tensor(obs), torch.tensor(task))
    np.testing.assert_allclose(
        greedy, agent.model.pi(z, torch.tensor(task), torch.zeros(2, 2)).mean.detach(), atol=1e-6
    )
    assert (agent.act(obs, one, task, memory) != greedy).any()


@pytest.mark.parametrize("pi", [0, 4])
def test_the_policy_may_propose_nothing(pi: int):
    agent = shaken(replace(SMALL, num_pi_trajs=pi), ONE)
    action = agent.act(np.ones((1, 4), np.float32), np.ones(1, bool), np.zeros(1, np.int64), agent.new_plan(1, 0))
    assert np.isfinite(action).all()


def test_padding_changes_no_plan():
    agent, first = shaken(SMALL, TWO), np.ones(2, bool)
    obs, task = np.ones((2, 4), np.float32), np.array([1, 0])
    junk = np.array([[0, 0, 50, -50], [0, 0, 0, 0]], np.float32)
    plain, padded = (agent.act(o, first, task, agent.new_plan(2, 0)) for o in (obs, obs + junk))
    np.testing.assert_array_equal(plain, padded)
    assert not plain[0, 1:].any()
    assert plain[1].all()
    memory = agent.new_plan(2, 0)
    memory.mean.fill_(0.9)  # also where the narrow task has no action
    other = agent.new_plan(2, 0)
    other.mean.fill_(0.9)
    other.mean[:, 0, 1:] = -0.9
    late = np.zeros(2, bool)
    np.testing.assert_array_equal(agent.act(obs, late, task, memory), agent.act(obs, late, task, other))


def test_memory_comes_back():
    agent, obs, task = shaken(SMALL, ONE), np.ones((2, 4), np.float32), np.zeros(2, np.int64)
    memory, fresh = agent.new_plan(2, 0), agent.new_plan(2, 99)
    agent.act(obs, np.ones(2, bool), task, memory)
    fresh.load_state_dict(memory.state_dict())
    later = np.zeros(2, bool)
    for _ in range(2):
        assert (agent.act(obs, later, task, memory) == agent.act(obs, later, task, fresh)).all()
    with pytest.raises(ValueError, match="saved plans are for 2 envs, not 3"):
        agent.new_plan(3, 0).load_state_dict(memory.state_dict())
