"""The learner: what an update does, what a bad batch must not do, and that everything comes back from a state."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mpn.agent import Agent, make_nets
from mpn.config import TrainConfig
from mpn.losses import recurrent_double_dqn_loss

CPU = torch.device("cpu")
CFG = TrainConfig(
    hidden_dim=6, batch_size=5, sequence_length=4, burn_in=3, n_step=1, huber_delta=1.0, num_envs=3,
    target_update_freq=1_000,
)  # fmt: skip
CORES = ["mpn", "mpn-frozen", "rnn", "gru", "lstm"]


def batch(seed: int = 0, cfg: TrainConfig = CFG) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    shape = (cfg.window, cfg.batch_size)
    terminated = torch.rand(shape, generator=g) < 0.2
    return {
        "obs": torch.randn(*shape, 4, generator=g),
        "action": torch.randint(2, shape, generator=g),
        "reward": torch.randn(shape, generator=g),
        "terminated": terminated,
        "truncated": (torch.rand(shape, generator=g) < 0.1) & ~terminated,
        "is_init": torch.rand(shape, generator=g) < 0.2,
    }


def plain_update(agent: Agent, data: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same update, written with nothing but steps and textbook Adam: an independent path to the same weights."""
    cfg, online, target = agent.cfg, copy.deepcopy(agent.nets.online), copy.deepcopy(agent.nets.target)
    optimizer = torch.optim.Adam(online.parameters(), lr=cfg.lr, eps=1e-5)
    values = []
    for net in (online, target):
        state, rows = net.init_state(cfg.batch_size), []
        for t in range(cfg.window):
            with torch.set_grad_enabled(t >= cfg.burn_in and net is online):
                q, state = net(data["obs"][t], state, data["is_init"][t])
            rows.append(q)
        values.append(torch.stack(rows[cfg.burn_in :]))
    steps = [data[n][cfg.burn_in : -1] for n in ("action", "reward", "terminated", "truncated")]
    loss, _ = recurrent_double_dqn_loss(*values, *steps, gamma=cfg.gamma)  # type: ignore[misc]
    loss.backward()
    torch.nn.utils.clip_grad_norm_(online.parameters(), cfg.grad_clip)
    optimizer.step()
    return dict(online.named_parameters())


@pytest.mark.parametrize("core", CORES)
def test_an_update_equals_the_plain_one(core: str):
    agent = Agent(replace(CFG, core=core), 4, 2, CPU)
    data = batch()
    expected = plain_update(agent, data)
    agent.update(data, None, progress=0.0)
    for name, value in agent.nets.online.named_parameters():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("clip", [1e-3, 1e3])
def test_the_gradient_norm_is_clipped_inside_adam(clip: float):
    """Adam forgets the scale of its gradients, but not of two in a row: the second one is larger."""
    agent = Agent(replace(CFG, grad_clip=clip), 4, 2, CPU)
    small, large = batch(1), batch(2)
    large["reward"] *= 100
    moments = []
    for data in (small, large):
        agent.update(data, None, progress=0.0)
        state = agent.optimizer.state_dict()["state"].values()
        moments.append(torch.cat([s["exp_avg"].flatten() for s in state]).norm())
    if clip < 1:  # both gradients have norm `clip`: m = 0.1 clip, then at most 0.9 * 0.1 clip + 0.1 clip
        torch.testing.assert_close(moments[0], torch.tensor(0.1 * clip), rtol=1e-3, atol=0.0)
        assert moments[1] <= 0.1901 * clip
    else:
        assert moments[1] > 2e-4


def test_gradients_flow_through_the_memory_but_not_through_the_burn_in():
    agent = Agent(replace(CFG, eta=0.5), 4, 2, CPU)
    data = batch()
    data["is_init"][:] = False
    data["obs"].requires_grad_(True)
    agent.update(data, None, progress=0.0)
    seen = data["obs"].grad.abs().sum((1, 2))
    assert (seen[: CFG.burn_in] == 0).all()
    assert (seen[CFG.burn_in : -1] > 0).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_batch_changes_nothing_and_is_counted(bad: float):
    agent = Agent(CFG, 4, 2, CPU)
    agent.update(batch(1), None, progress=0.0)
    before = {k: v.clone() for k, v in agent.nets.online.state_dict().items()}
    moments = copy.deepcopy(agent.optimizer.state_dict()["state"])
    data = batch(2)
    data["reward"][4, 1] = bad
    data["terminated"][4, 1], data["truncated"][4, 1] = False, False
    for _ in range(3):
        agent.update(data, None, progress=0.0)
    assert int(agent.bad_in_a_row) == int(agent.skipped) == 3
    for name, value in agent.nets.online.state_dict().items():
        assert torch.equal(value, before[name]), name
    after = agent.optimizer.state_dict()["state"]
    assert all(torch.equal(after[i]["exp_avg"], moments[i]["exp_avg"]) for i in moments)
    agent.update(batch(3), None, progress=0.0)
    assert int(agent.bad_in_a_row) == 0
    assert int(agent.skipped) == 3
    assert not torch.equal(agent.nets.online.q_head.weight, before["q_head.weight"])


@pytest.mark.parametrize("core", CORES)
def test_a_restored_agent_has_the_same_future(core: str):
    cfg = replace(CFG, core=core, target_update_freq=2)
    first, second = Agent(cfg, 4, 2, CPU), Agent(replace(cfg, seed=9), 4, 2, CPU)
    rng = np.random.default_rng(0)
    for k in range(3):
        first.act(rng.normal(size=(3, 4)).astype(np.float32), 0.3)
        first.update(batch(k), None, progress=0.1)
    from rlcore.checkpoint import portable

    second.load_state_dict(copy.deepcopy(portable(first.state_dict())))
    for k in range(4):
        obs = rng.normal(size=(3, 4)).astype(np.float32)
        np.testing.assert_array_equal(first.act(obs, 0.5), second.act(obs, 0.5))
        done = np.array([k == 2, False, k == 1])
        first.forget(done)
        second.forget(done)
        losses = [agent.update(batch(10 + k), None, progress=0.2)["loss"] for agent in (first, second)]
        assert torch.equal(*losses)
    for a, b in zip(first.nets.parameters(), second.nets.parameters()):
        assert torch.equal(a, b)


def test_the_memory_is_emptied_where_an_episode_ends():
    for core in CORES:
        agent = Agent(replace(CFG, core=core), 4, 2, CPU)
        agent.act(np.ones((3, 4), np.float32), 0.0)
        agent.forget(np.array([False, True, False]))
        parts = agent.memory if isinstance(agent.memory, tuple) else (agent.memory,)
        for part in map(np.asarray, parts):
            assert (part[1] == 0).all()
            assert core == "mpn-frozen" or (part[0] != 0).any()


def test_epsilon_one_explores_evenly_and_zero_is_greedy():
    agent = Agent(CFG, 4, 2, CPU)
    obs = np.ones((3, 4), np.float32)
    draws = np.concatenate([agent.act(obs, 1.0) for _ in range(500)])
    assert 0.45 < draws.mean() < 0.55
    agent.memory = agent.policy.initial_state(3)
    q, _ = agent.nets.online(torch.from_numpy(obs), agent.nets.online.init_state(3))
    np.testing.assert_array_equal(agent.act(obs, 0.0), q.argmax(1).numpy())


def test_the_learning_rate_falls_in_a_straight_line():
    agent = Agent(replace(CFG, lr=1e-3, lr_end=1e-4), 4, 2, CPU)
    rates: list[Any] = []
    for progress in (0.0, 0.5, 1.0, 1.5):
        agent.update(batch(), None, progress)
        rates.append(agent.optimizer.param_groups[0]["lr"])
    np.testing.assert_allclose(rates, [1e-3, 5.5e-4, 1e-4, 1e-4])


def test_weights_depend_on_the_seed_and_on_nothing_else():
    torch.manual_seed(1)
    first = make_nets(CFG, 4, 2).online.q_head.weight
    torch.manual_seed(2)
    assert torch.equal(first, make_nets(CFG, 4, 2).online.q_head.weight)
    assert not torch.equal(first, make_nets(replace(CFG, seed=1), 4, 2).online.q_head.weight)
