"""The high-level agent: oracles 9 and 10, the published squashing (D6), losses by hand, saving, a bandit it solves."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from gasp.agent import Agent, Squash, make_squash
from gasp.config_rl import AgentConfig
from gasp.config_skills import ModelConfig
from gasp.model import SkillModel
from rlblocks import gaussians
from rlblocks.dpmm import DPMixture
from rlcore import checkpoint
from rlcore.errors import UsageError

S, A, Z = 3, 2, 4
THREE = Squash(3.0, 3.0)


def make_agent(seed: int = 0, squash: Squash = THREE, **options: Any) -> Agent:
    torch.manual_seed(5)
    model = SkillModel(ModelConfig(latent_dim=Z, hidden=16, decoder_layers=1, prior_layers=1), S, A)
    return Agent(AgentConfig(**{"critic_hidden": (16, 16), **options}), model, squash, seed)


def make_batch(agent: Agent, rows: int = 8, **fixed: torch.Tensor) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(3)
    batch = {name: torch.randn(rows, S, generator=g) for name in ("obs", "next_obs")}
    batch |= {"z": torch.randn(rows, Z, generator=g), "reward": torch.randn(rows, generator=g)}
    batch["discount"] = torch.full((rows,), 0.9)
    for name, of in (("proposal", "obs"), ("next_proposal", "next_obs")):
        batch[name] = torch.from_numpy(agent.proposal(batch[of].numpy()))
    return {**batch, **fixed}


# --- squashing --------------------------------------------------------------------------------------------------------
def test_oracle_9():
    """c tanh(a / c) has slope 1 at 0; the published one gives 2 tanh(0.5) = 0.924234."""
    a = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    z = make_squash(AgentConfig())(a)
    assert torch.autograd.grad(z, a)[0].item() == pytest.approx(1.0)
    published = make_squash(AgentConfig(squash="spirl"))(torch.tensor([0.5, 9.0]))
    assert published.tolist() == pytest.approx([0.924234, 2.0], abs=1e-6)  # and nothing beyond 2


def test_skills_of_every_component_can_be_reached():
    """D6: with components beyond 2, the published squashing cannot; the range follows the mixture."""
    x = np.random.default_rng(0).normal([[5.0, 0.0]] * 500 + [[-1.0, 1.0]] * 500, 0.3)
    mixture = DPMixture(2, seed=0)
    mixture.fit(x)
    reach = 1.25 * float((mixture.means.abs() + 2 * mixture.variances.sqrt()).max())
    assert make_squash(AgentConfig(), mixture) == Squash(pytest.approx(reach), pytest.approx(reach))
    assert reach > 6
    assert make_squash(AgentConfig(), None) == Squash(3.0, 3.0)
    assert make_squash(AgentConfig(squash_range=4.5), mixture) == Squash(4.5, 4.5)


# --- losses -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("moved", [0.0, 0.05])
def test_oracle_10(moved: float, monkeypatch: pytest.MonkeyPatch):
    """A policy that is the prior diverges from it by nothing: the target is R + gamma min Q', whatever alpha is.

    One that has moved away pays for it.
    """
    seen: dict[str, torch.Tensor] = {}
    agent = make_agent(alpha=7.0)
    batch, noise = make_batch(agent), torch.zeros(2, 8, Z)
    monkeypatch.setattr("gasp.agent.critic_loss", lambda q, y: (seen.update(y=y), 0.5 * (q - y).square().mean())[1])
    with torch.no_grad():
        for p in agent.actor.parameters():
            p.add_(moved)
        mean, log_std = agent.actor.prior(batch["next_obs"])
        worst = agent.q(agent.target, batch["next_obs"], agent.squash(mean)).min(0).values
        divergence = gaussians.kl(mean, log_std, *agent.model.prior(batch["next_obs"]))
    agent.update(batch, noise)
    assert (float(divergence.mean()) > 0.01) == bool(moved)
    expected = batch["reward"] + 0.9 * (worst - 7.0 * (divergence if moved else 0.0))
    torch.testing.assert_close(seen["y"], expected, rtol=1e-4, atol=1e-4)


def test_divergence_is_of_the_policy_from_the_prior_before_squashing():
    agent = make_agent()
    with torch.no_grad():
        for p in agent.actor.parameters():
            p.add_(0.05)
    batch = make_batch(agent)
    expected = gaussians.kl(*agent.actor.prior(batch["obs"]), *agent.model.prior(batch["obs"]))
    drawn = agent.draw(batch["obs"], torch.randn(8, Z), batch["proposal"])
    torch.testing.assert_close(drawn.cost, expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        for p in agent.actor.parameters():
            p.mul_(50.0)
    assert agent.draw(batch["obs"], torch.randn(8, Z), batch["proposal"]).cost.max() == 100.0  # published limit


def test_entropy_is_of_skills_in_units_of_their_range():
    agent = make_agent(regulariser="entropy", squash=Squash(4.0, 4.0))
    assert agent.target_cost == Z
    obs, noise = torch.randn(8, S), torch.randn(8, Z)
    mean, log_std = agent.actor.prior(obs)
    z, cost = agent.draw(obs, noise, None)
    a = mean + log_std.exp() * noise
    torch.testing.assert_close(z, 4.0 * torch.tanh(a / 4.0))
    slope = (1 - (z / 4.0).square()) / 4.0  # of tanh(a / 4)
    torch.testing.assert_close(cost, gaussians.log_prob(a, mean, log_std) - slope.log().sum(-1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("divergence", "rises"), [(1e-3, True), (100.0, False)])
def test_temperature_rises_while_the_policy_is_too_far_from_the_prior(divergence: float, rises: bool):
    agent = make_agent(divergence=divergence, alpha_lr=0.01)
    with torch.no_grad():
        for p in agent.actor.parameters():
            p.add_(0.1)
    before = float(agent.log_alpha.detach())
    agent.update(make_batch(agent))
    assert (float(agent.log_alpha.detach()) > before) == rises


def test_an_update_changes_what_it_should_and_nothing_else():
    agent = make_agent()
    frozen = copy.deepcopy(agent.model.state_dict())
    before = {k: v.clone() for k, v in agent.tensors().items()}
    metrics = agent.update(make_batch(agent))
    assert all(torch.equal(v, frozen[k]) for k, v in agent.model.state_dict().items())
    after = agent.tensors()
    moved = {k for k in after if not torch.equal(after[k], before[k])}
    assert moved == {k for k in after if "obs_" not in k}  # all but the normaliser
    assert metrics.keys() == {"critic_loss", "actor_loss", "q", "divergence", "alpha"}
    step = after["target"] - before["target"]
    torch.testing.assert_close(step, 0.005 * (after["critic"] - before["target"]), rtol=1e-3, atol=1e-7)


# --- acting -----------------------------------------------------------------------------------------------------------
def test_at_first_the_policy_is_the_prior_unless_it_may_not_know_it():
    obs = np.random.default_rng(0).normal(size=(50, S)).astype(np.float32)
    guided, free = make_agent(), make_agent(regulariser="entropy")
    same = guided.choose(obs, "policy", np.random.default_rng(1))
    assert np.array_equal(same, guided.choose(obs, "prior", np.random.default_rng(1)))
    apart = free.choose(obs, "mean") - free.choose(obs, "prior", np.random.default_rng(1))
    assert np.abs(apart).mean() > 0.1
    uniform = free.choose(obs, "uniform")
    assert np.abs(uniform).max() <= 3
    assert np.abs(uniform).max() > 2.5


def test_actions_of_the_decoder_are_cut_off():
    agent = make_agent()
    with torch.no_grad():
        agent.model.decoder[-1].bias.fill_(5.0)
    assert np.array_equal(agent.act(np.zeros((3, S), np.float32), np.zeros((3, Z), np.float32)), np.ones((3, A)))


# --- saving -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [{}, {"regulariser": "entropy"}, {"learn_alpha": False}])
def test_a_saved_agent_goes_on_bit_for_bit(options: dict[str, Any]):
    one, two = make_agent(1, **options), make_agent(2, **options)
    batch, obs = make_batch(one), np.ones((2, S), np.float32)
    one.update(batch)
    one.choose(obs, "policy")
    two.load_state_dict(copy.deepcopy(checkpoint.portable(one.state_dict())))
    for agent in (one, two):
        for _ in range(3):
            agent.update(batch)
    assert all(torch.equal(v, two.tensors()[k]) for k, v in one.tensors().items())
    assert np.array_equal(one.choose(obs, "policy"), two.choose(obs, "policy"))
    assert one.updates == two.updates == 4


def test_an_agent_that_was_on_a_gpu_goes_on_here():
    """The state of its generator, 16 bytes, does not fit; all else does."""
    one, two = make_agent(1), make_agent(2)
    two.load_state_dict({**copy.deepcopy(one.state_dict()), "noise": torch.zeros(16, dtype=torch.uint8)})
    assert all(torch.equal(v, two.tensors()[k]) for k, v in one.tensors().items())
    two.update(make_batch(two))


def test_an_agent_of_other_shapes_or_ranges_is_refused():
    state = make_agent().state_dict()
    with pytest.raises(UsageError, match="critic"):
        make_agent(critic_hidden=(8,)).load_state_dict(state)
    with pytest.raises(UsageError, match="squashes"):
        make_agent(squash=Squash(4.0, 4.0)).load_state_dict(state)


# --- learning ---------------------------------------------------------------------------------------------------------
@pytest.mark.learn
def test_it_finds_the_skill_that_pays():
    """One step: reward -|z - 1|^2. Divergence is cheap, so the prior is left."""
    agent = make_agent(alpha=0.01, learn_alpha=False, actor_lr=3e-3, critic_lr=3e-3)
    rng, obs = np.random.default_rng(0), np.zeros((64, S), np.float32)

    def miss() -> float:
        return float(np.square(agent.choose(obs[:1], "mean") - 1.0).sum())

    before = miss()
    for _ in range(300):
        z = torch.from_numpy(agent.choose(obs, "policy", rng))
        fixed = {"obs": torch.from_numpy(obs), "z": z, "reward": -(z - 1.0).square().sum(-1)}
        agent.update(make_batch(agent, 64, **fixed, discount=torch.zeros(64)))
    assert miss() < 0.2 < before
