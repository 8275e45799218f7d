"""SAC's equations by hand, and its update beside a plain one: nn.Linear, autograd and torch.optim."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from small_sac import ACT, CFG, FEW, ROWS, close, make, make_batch, make_noise, tensor
from torch import Tensor, nn

from rlblocks.config import SACConfig
from rlblocks.sac import SAC, actor_loss, critic_loss, soft_td_target, temperature_loss
from rlblocks.stacked import Stacked


def test_soft_td_target_by_hand() -> None:
    reward, alpha = tensor(0.5, 0.5, 0.5), torch.tensor(0.2)
    discount = tensor(0.99, 0.0, 0.99)  # goes on; terminated; cut by a time limit, which bootstraps
    next_q, cost = torch.tensor([[2.0, 2.0, 2.0], [3.0, 2.5, 9.0]]), tensor(-1.0, -1.0, -1.0)
    close(soft_td_target(reward, discount, next_q, cost, alpha), tensor(2.678, 0.5, 2.678), 1e-6)
    assert not soft_td_target(reward, discount, next_q.requires_grad_(), cost, alpha).requires_grad


def test_soft_td_target_over_several_steps_by_hand() -> None:
    got = soft_td_target(tensor(1.0), tensor(0.9**3), torch.tensor([[10.0]]), tensor(0.0), torch.tensor(1.0))
    close(got, tensor(8.29), 1e-6)


@FEW
@given(st.integers(0, 2**31), st.floats(0, 100))
def test_without_divergence_the_target_is_that_of_q_learning(seed: int, alpha: float) -> None:
    reward, discount, a, b = torch.randn(4, 3, 7, generator=torch.Generator().manual_seed(seed))
    got = soft_td_target(reward, discount, torch.stack((a, b), 1), torch.zeros(3, 7), torch.tensor(alpha))
    close(got, reward + discount * torch.minimum(a, b), 1e-6)


def test_losses_by_hand() -> None:
    q, target = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), tensor(2.0, 0.0)
    assert float(critic_loss(q, target)) == pytest.approx(0.5 * ((1 + 4) / 2 + (1 + 0) / 2))
    assert float(actor_loss(q, tensor(-1.0, 3.0), torch.tensor(0.5))) == pytest.approx((-0.5 - 1.0 + 1.5 - 0.0) / 2)
    log_alpha = torch.tensor(math.log(0.5), requires_grad=True)
    loss = temperature_loss(log_alpha, tensor(-1.0, -3.0), target_cost=4.0)  # entropy 2, wanted: -4
    assert float(loss.detach()) == pytest.approx(math.log(0.5) * 6.0)
    (grad,) = torch.autograd.grad(loss, log_alpha)
    assert float(grad) == pytest.approx(6.0)  # entropy enough: the temperature falls
    loss = temperature_loss(log_alpha, tensor(7.0, 9.0), target_cost=5.0)  # divergence 8, wanted: 5
    assert float(loss.detach()) == pytest.approx(math.log(0.5) * -3.0)
    assert torch.autograd.grad(loss, log_alpha)[0] < 0  # too far from the prior: it rises


def test_losses_of_stacked_agents_are_theirs_alone() -> None:
    q, target, cost = torch.randn(3, 2, 8), torch.randn(3, 8), torch.randn(3, 8)
    alpha = torch.rand(3, 1)
    for n in range(3):
        close(critic_loss(q, target)[n], critic_loss(q[n], target[n]), 1e-6)
        close(actor_loss(q, cost, alpha)[n], actor_loss(q[n], cost[n], alpha[n]), 1e-6)
        close(temperature_loss(alpha, cost, 2.0)[n], temperature_loss(alpha[n], cost[n], 2.0), 1e-6)


def test_polyak_by_hand() -> None:
    agent = make(replace(CFG, tau=0.005, critic_lr=1e-30))
    with torch.no_grad():
        agent.critic.parameters.fill_(1.0)
        agent.target.parameters.zero_()
    for _ in range(2):
        agent.update(make_batch(0, ROWS), actor=False)
    close(agent.target.parameters, torch.full_like(agent.target.parameters, 0.009975), 1e-7)


# --- a plain SAC ------------------------------------------------------------------------------------------------------


class Plain:
    """Separate nets, separate optimisers, the density from its definition. `agent` lends its first parameters."""

    def __init__(self, agent: SAC, dtype: torch.dtype) -> None:
        self.cfg, self.dtype, self.seen = agent.cfg, dtype, agent.seen
        self.actor = self.nets(agent.actor)[0]
        self.critics, self.targets = self.nets(agent.critic), self.nets(agent.target)
        self.log_alpha = agent.log_alpha.detach().to(dtype, copy=True).squeeze().requires_grad_()
        critic_parameters = [p for critic in self.critics for p in critic.parameters()]
        self.optimizers = [
            torch.optim.Adam(critic_parameters, lr=self.cfg.critic_lr, foreach=False, fused=False),
            torch.optim.Adam(self.actor.parameters(), lr=self.cfg.actor_lr, foreach=False, fused=False),
            torch.optim.Adam([self.log_alpha], lr=self.cfg.alpha_lr, foreach=False, fused=False),
        ]

    def nets(self, stack: Stacked) -> list[nn.Sequential]:
        made = []
        for g in range(stack.nets):
            layers: list[nn.Module] = []
            for weight, bias in stack.layers(stack.parameters.detach()):
                linear = nn.Linear(*weight.shape[1:]).to(self.dtype)
                with torch.no_grad():
                    linear.weight.copy_(weight[g].T)
                    linear.bias.copy_(bias[g, 0])
                layers += [linear, nn.ReLU()]
            made.append(nn.Sequential(*layers[:-1]))
        return made

    def flat(self, net: nn.Sequential) -> Tensor:
        layers = [layer for layer in net if isinstance(layer, nn.Linear)]
        return torch.cat([x for layer in layers for x in (layer.weight.T.reshape(-1), layer.bias)]).detach()

    def policy(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        mean, x = self.actor(obs[:, : self.seen]).split(ACT, 1)
        low, high = self.cfg.log_std_min, self.cfg.log_std_max
        log_std = x.clamp(low, high) if self.cfg.log_std_map == "clamp" else low + (high - low) * (x.tanh() + 1) / 2
        std = log_std.exp()
        u = mean + std * noise
        density = torch.exp(-((u - mean) ** 2) / (2 * std**2)) / (std * math.sqrt(2 * math.pi))
        action = torch.tanh(u)
        return action, (density.log() - torch.log(1 - action**2)).sum(1)

    def q(self, critics: list[nn.Sequential], obs: Tensor, action: Tensor) -> list[Tensor]:
        return [critic(torch.cat([obs, action], 1)).squeeze(1) for critic in critics]

    def step(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def update(self, batch: dict[str, Tensor], noise: Tensor) -> None:
        obs, action, reward, discount, next_obs = (
            batch[name].to(self.dtype) for name in ("obs", "action", "reward", "discount", "next_obs")
        )
        for_critic, for_actor, for_alpha = self.optimizers
        alpha = self.log_alpha.exp().detach()
        with torch.no_grad():
            next_action, next_log_prob = self.policy(next_obs, noise[1, 0].to(self.dtype))
            next_q = torch.min(*self.q(self.targets, next_obs, next_action))
            y = reward + discount * (next_q - alpha * next_log_prob)
        self.step(for_critic, sum(0.5 * F.mse_loss(q, y) for q in self.q(self.critics, obs, action)))  # type: ignore[arg-type]
        new_action, log_prob = self.policy(obs, noise[0, 0].to(self.dtype))
        target_entropy = -ACT if self.cfg.target_entropy is None else self.cfg.target_entropy
        alpha_loss = (self.log_alpha * (-log_prob.detach() - target_entropy)).mean()
        self.step(for_actor, (alpha * log_prob - torch.min(*self.q(self.critics, obs, new_action))).mean())
        if self.cfg.learn_alpha:
            self.step(for_alpha, alpha_loss)
        with torch.no_grad():
            for critic, target in zip(self.critics, self.targets):
                for p, old in zip(critic.parameters(), target.parameters()):
                    old.copy_(self.cfg.tau * p + (1 - self.cfg.tau) * old)


@pytest.mark.parametrize(
    ("cfg", "private"),
    [
        (CFG, 0),
        (replace(CFG, log_std_map="tanh", init="xavier", target_entropy=-1.0), 0),
        (replace(CFG, learn_alpha=False, hidden=(256, 256), alpha=1.0), 0),
        (CFG, 2),
    ],
    ids=["default", "tanh-xavier", "fixed-alpha", "private"],
)
def test_updates_are_those_of_the_plain_one(cfg: SACConfig, private: int) -> None:
    """In float64, so that 1e-6 is about the algorithm: Adam's first steps are +-lr, whatever a gradient's rounding."""
    agent = doubled(make(cfg, private=private))
    plain = Plain(agent, torch.float64)
    for k in range(5):
        batch = {name: value.double() for name, value in make_batch(k, ROWS).items()}
        agent.update(batch, make_noise(k).double())
        plain.update(batch, make_noise(k))
        close(agent.critic.parameters, torch.stack([plain.flat(net) for net in plain.critics]), 1e-6)
        close(agent.target.parameters, torch.stack([plain.flat(net) for net in plain.targets]), 1e-6)
        close(agent.actor.parameters[0], plain.flat(plain.actor), 1e-6)
        close(agent.log_alpha.squeeze(), plain.log_alpha, 1e-6)


def doubled(agent: SAC) -> SAC:
    """The same agent in float64, with fresh optimisers."""
    for net in (agent.actor, agent.critic, agent.target):
        net.parameters.data = net.parameters.data.double()
    agent.log_alpha.data = agent.log_alpha.data.double()
    for adam in (agent.actor_adam, agent.critic_adam):
        adam.__init__([*zip(adam.parameters, adam.lrs)])  # type: ignore[misc]
    return agent


def test_one_update_in_float32_is_the_plain_one() -> None:
    """The one that is used. The plain one is in float64 here: in float32 its density is less exact than ours."""
    agent = make()
    plain = Plain(agent, torch.float64)
    agent.update(make_batch(0, ROWS), make_noise(0))
    plain.update(make_batch(0, ROWS), make_noise(0))
    gradient = torch.cat([p.grad.t().reshape(-1) for p in plain.actor.parameters() if p.grad is not None])
    close(agent.actor_adam.state["mean"][0][0] / (1 - 0.9), gradient.float(), 1e-6)
    close(agent.critic.parameters, torch.stack([plain.flat(net) for net in plain.critics]).float(), 1e-6)
    close(agent.target.parameters, torch.stack([plain.flat(net) for net in plain.targets]).float(), 1e-6)
    close(agent.log_alpha.squeeze(), plain.log_alpha.float(), 1e-6)
