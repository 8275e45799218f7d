"""The actor's loss with a teacher's advice, against the same written plainly."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from collective.cloning import advised_sac
from rlblocks.config import SACConfig
from rlblocks.sac import SAC

OBS, ACT, ROWS = 5, 3, 16
CFG = SACConfig(hidden=(16, 16), init="xavier", log_std_map="tanh", alpha=0.2)


def make(advised: bool = True, choosy: bool = True) -> SAC:
    if not advised:
        return SAC(CFG, OBS, ACT, seeds=[3])
    return advised_sac(CFG, OBS, ACT, choosy=choosy, seeds=[3])


def batch(count: float) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    fields = {name: torch.randn(ROWS, OBS, generator=g) for name in ("obs", "next_obs")}
    fields |= {name: torch.rand(ROWS, ACT, generator=g) * 2 - 1 for name in ("action", "advice")}
    fields |= {"reward": torch.randn(ROWS, generator=g), "discount": torch.full((ROWS,), 0.9)}
    return fields | {"clone": torch.full((ROWS,), count)}


def noise() -> Tensor:
    return torch.randn(2, 1, ROWS, ACT, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("choosy", [True, False])
def test_an_update_goes_down_the_sum(choosy: bool):
    """The actor's gradient is SAC's and that of c mean|Q| (tanh m - a*)^2, choosy: where Q(s, a*) > Q(s, pi(s))."""
    agent = make(choosy=choosy)
    plain = copy.deepcopy(agent.actor.parameters.detach()).requires_grad_()
    agent.update(batch(0.7), noise(), actor=False)  # only the critics, so that the actor below meets the same ones
    other = make(choosy=choosy)
    other.load_state_dict(agent.state_dict())
    other.critic_adam.lrs = [0.0]
    rows = {name: value.unsqueeze(0) for name, value in batch(0.7).items()}

    out = other.actor.batched(rows["obs"], plain)
    mean, raw = out.chunk(2, -1)
    log_std = -20 + 11 * (raw.tanh() + 1)
    before = mean + log_std.exp() * noise()[0]
    action = before.tanh()
    squash = 2 * (math.log(2) - before - F.softplus(-2 * before))
    log_prob = -0.5 * noise()[0].square() - log_std - 0.5 * math.log(2 * math.pi) - squash
    q = other.q(other.critic, rows["obs"], action, frozen=True)[0].min(0).values
    advised = other.q(other.critic, rows["obs"], rows["advice"], frozen=True)[0].min(0).values.detach()
    better = (advised > q.detach()) if choosy else torch.ones(ROWS)
    assert not choosy or 0 < better.sum() < ROWS  # or the filter is not tried
    pull = (0.7 * q.detach().abs().mean() * better * (mean.tanh() - rows["advice"]).square().sum(-1)[0]).mean()
    loss = (0.2 * log_prob.sum(-1)[0] - q).mean() + pull
    expected = torch.autograd.grad(loss, plain)[0]

    other.update(batch(0.7), noise())
    gradient = other.actor_adam.state["mean"][0] / (1 - 0.9)
    torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=1e-4)
    assert float(pull.detach()) > 0.01


@pytest.mark.parametrize("count", [0.0, 1.0])
def test_advice_without_weight_is_none(count: float):
    tutored, plain = make(), make(advised=False)
    for _ in range(5):
        tutored.update(batch(count), noise())
        plain.update(batch(count), noise())
    alike = all(torch.equal(a, b) for a, b in zip(tutored.tensors().values(), plain.tensors().values()))
    assert alike == (count == 0.0)


def test_advice_that_is_better_is_followed():
    """Rewards say that the advised action is best; an actor that only meets others comes to it."""
    agent = make()
    rows = batch(1.0)
    rows["advice"] = torch.full((ROWS, ACT), 0.6)
    rows["reward"] = -(rows["action"] - rows["advice"]).square().sum(-1)
    rows["discount"] = torch.zeros(ROWS)

    def off() -> float:
        obs = rows["obs"].numpy()
        return float((torch.from_numpy(agent.act(obs, deterministic=True)) - rows["advice"]).square().sum(-1).mean())

    first = off()
    for _ in range(500):
        agent.update(rows)
    assert off() < 0.4 * first
