"""A world model's update and plan: ours beside a plain TD-MPC2, experts beside none, many envs at once, bf16.

Observations of 17, actions of 6 (a cheetah's), random batches, one thread. The peer is TD-MPC2 in plain eager torch,
with our weights and our noise, written like its public code: separate modules of Linear, LayerNorm and F.mish; all
critics evaluated, in the planner, the target and the policy's loss, and two of them picked; rewards and critics of an
update in one call over its steps, their losses in a loop over steps and critics; torch's Adam and clipping. Its planner
lets the policy prior propose once, then evaluates those sequences with the others in every iteration. Its networks and
planner are those that our tests compare with (packages/prismatic/tests/plain_tdmpc2.py). Before the clock starts, both
sides' losses and plans are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from benchmarks.micro.timing import Row, compare, load_plain, per_call, run
from prismatic.agent import Agent, UpdateNoise
from prismatic.config import PRESETS, TaskSpec, TrainConfig
from prismatic.planner import PlanState

OBS, ACTION, ENVS = 17, 6, 8
DENSE = {"1": TrainConfig(model_size=1, use_moe=False), "5": TrainConfig(model_size=5, use_moe=False)}
DENSE |= {"tiny (preset cpu)": TrainConfig(**PRESETS["cpu"], use_moe=False)}
UPDATE_COST, PLAN_COST = 1.3, 1.5  # what experts may cost, as a multiple of dense
Call = Callable[[], Any]


plain = load_plain("prismatic", "plain_tdmpc2")


def main(argv: Sequence[str] | None = None) -> int:
    torch.set_num_threads(1)
    packages = ("prismatic", "rlcore", "torch", "numpy")
    return run("prismatic", "prismatic: updates and plans", measure, packages, argv)


def measure(repetitions: int) -> Iterator[Row]:
    for size, bars in (("1", (1.1, 1.1)), ("5", (1.1, 1.25))):
        agent, peer = make_agent(DENSE[size]), Peer(make_agent(DENSE[size]))
        same_numbers(make_agent(DENSE[size]), Peer(make_agent(DENSE[size])))
        for what, ours, theirs, bar in (
            ("update of 256 windows", update_of(agent), peer.update_call(), bars[0]),
            ("plan of 512 sequences, 6 times", plan_of(agent), peer.plan_call(agent.new_plan(1, 0)), bars[1]),
        ):
            yield compare(
                f"dense, size {size}: {what}", ("prismatic", per_call(ours)), ("plain eager TD-MPC2", per_call(theirs)),
                bar=bar, unit="CPU time a call", repetitions=repetitions,
            )  # fmt: skip
    for size, dense in DENSE.items():
        agent, experts = make_agent(dense), make_agent(replace(dense, use_moe=True))
        for what, call, cost in (("update", update_of, UPDATE_COST), ("plan", plan_of, PLAN_COST)):
            yield compare(
                f"size {size}: {what} with 4 experts, at most {cost:g} times dense",
                ("prismatic, 4 orthogonal experts", per_call(call(experts))),
                ("prismatic, dense", per_call(call(agent))),
                bar=round(1 / cost, 3), unit="CPU time a call", repetitions=repetitions,
            )  # fmt: skip
    for size, dense in list(DENSE.items())[::2]:
        agent = make_agent(dense)
        yield compare(
            f"dense, size {size}: plans for {ENVS} envs",
            ("prismatic, one call", per_call(plan_of(agent, agent.new_plan(ENVS, 0)))),
            (f"prismatic, {ENVS} calls", per_call(one_by_one(agent))),
            bar=None, unit=f"CPU time for {ENVS} plans", repetitions=repetitions,
        )  # fmt: skip
    drawn, every = critics_of(make_agent(DENSE["5"]))
    yield compare(
        "size 5: the value of 512 states from 2 of 5 critics",
        ("only the 2 that are drawn", per_call(drawn)), ("all 5, then 2 of them", per_call(every)),
        bar=2, unit="CPU time a call", repetitions=repetitions,
    )  # fmt: skip
    for what, call in (("update", update_of), ("plan", plan_of)):
        yield compare(
            f"dense, size 5: {what} in bf16",
            ("prismatic, bf16", per_call(call(make_agent(replace(DENSE["5"], precision="bf16"))))),
            ("prismatic, float32", per_call(call(make_agent(DENSE["5"])))),
            bar=None, unit="CPU time a call", repetitions=repetitions,
        )  # fmt: skip


# --- ours -------------------------------------------------------------------------------------------------------------
def make_agent(cfg: TrainConfig) -> Agent:
    """An agent whose weights are shaken, so that no head or gate says nothing."""
    agent = Agent(cfg, [TaskSpec("some", OBS, ACTION, 500)], torch.device("cpu"))
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in agent.model.parameters():
            p += 0.02 * torch.randn(p.shape, generator=g)
    return agent


def make_batch(cfg: TrainConfig) -> dict[str, Tensor]:
    g, shape = torch.Generator().manual_seed(0), (cfg.horizon, cfg.batch_size)
    return {
        "obs": torch.randn(*shape, OBS, generator=g), "next_obs": torch.randn(*shape, OBS, generator=g),
        "action": torch.rand(*shape, ACTION, generator=g) * 2 - 1, "reward": torch.randn(shape, generator=g),
        "terminated": torch.zeros(shape, dtype=torch.bool), "task": torch.zeros(cfg.batch_size, dtype=torch.int64),
    }  # fmt: skip


def update_of(agent: Agent) -> Call:
    batch = make_batch(agent.cfg)
    return lambda: agent.update(batch)


def plan_of(agent: Agent, state: PlanState | None = None) -> Call:
    """One call of `act` for all envs of `state` (one, where it is left out), in the middle of their episodes."""
    state = state or agent.new_plan(1, 0)
    envs = state.mean.shape[1]
    obs = np.random.default_rng(0).standard_normal((envs, OBS), np.float32)
    first, task = np.zeros(envs, bool), np.zeros(envs, np.int64)
    return lambda: agent.act(obs, first, task, state)


def one_by_one(agent: Agent) -> Call:
    calls = [plan_of(agent, agent.new_plan(1, 0, first_env=env)) for env in range(ENVS)]
    return lambda: [call() for call in calls]


def critics_of(agent: Agent) -> tuple[Call, Call]:
    """The value of a planner's last states, asking the two critics that were drawn, and asking all."""
    model, heads = agent.model, torch.tensor([1, 3])
    z, task = torch.rand(512, model.encoder.head.weight.shape[0]), torch.zeros(512, dtype=torch.int64)
    action = torch.rand(512, ACTION)

    def drawn() -> Tensor:
        with torch.inference_mode():
            return model.value(model.q(z, action, task, heads)).mean(0)

    def every() -> Tensor:
        with torch.inference_mode():
            return model.value(model.q(z, action, task)[heads]).mean(0)

    return drawn, every


# --- the peer ---------------------------------------------------------------------------------------------------------
class Peer(plain.PlainLearner):
    """The plain learner, its update as in TD-MPC2's public code. Dense, one task, which does not terminate."""

    def __init__(self, agent: Agent) -> None:
        super().__init__(agent)
        self.agent = agent

    def update(self, batch: dict[str, Tensor], noise: UpdateNoise) -> dict[str, Tensor]:
        cfg, net, task, action = self.cfg, self.net, batch["task"], batch["action"]
        with torch.no_grad():
            next_z = net.encoder(batch["next_obs"])
            next_action, _, _ = net.pi(next_z, task, noise.next_action)
            both = net.value(net.q(next_z, next_action, task, target=True)[noise.target_heads])
            target = batch["reward"] + net.ours[0].discounts[task] * both.amin(0)
        states = [net.encoder(batch["obs"][0])]
        consistency = reward = value = torch.zeros(())
        for t in range(cfg.horizon):
            states.append(net.dynamics(torch.cat((states[t], action[t]), -1)))
            consistency = consistency + cfg.rho**t * F.mse_loss(states[-1], next_z[t])
        zs = torch.stack(states)
        x = torch.cat((zs[:-1], action), -1)
        rewards, qs = net.rewards(x), self.critics(x, noise.dropped)
        for t in range(cfg.horizon):
            reward = reward + cfg.rho**t * plain.soft_ce(rewards[t], batch["reward"][t]).mean()
            for q in qs:
                value = value + cfg.rho**t * plain.soft_ce(q[t], target[t]).mean()
        terms = {"consistency_loss": consistency, "reward_loss": reward, "value_loss": value / len(qs)}
        terms = {name: term / cfg.horizon for name, term in terms.items()}
        loss = cfg.consistency_coef * terms["consistency_loss"]
        loss = loss + cfg.reward_coef * terms["reward_loss"] + cfg.value_coef * terms["value_loss"]
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.learnt, cfg.grad_clip_norm)
        self.optimizer.step()
        pi_loss = self.policy_step(zs.detach(), task, noise)
        with torch.no_grad():
            for slow, fast in zip(net.targets.parameters(), net.critics.parameters()):
                slow.lerp_(fast, cfg.tau)
        return {**terms, "grad_norm": norm, "pi_loss": pi_loss}

    def critics(self, x: Tensor, dropped: Tensor | None) -> Tensor:
        """(num_q, H, B, 101) of all critics, with dropout."""
        masks = [None] * len(self.net.critics) if dropped is None else dropped.unflatten(1, x.shape[:2])
        return torch.stack([head(second(first(x, m))) for (first, second, head), m in zip(self.net.critics, masks)])

    def policy_step(self, states: Tensor, task: Tensor, noise: UpdateNoise) -> Tensor:
        """All steps at once; the critics, frozen, get no gradient."""
        cfg, net = self.cfg, self.net
        action, _, entropy = net.pi(states, task, noise.action)
        net.critics.requires_grad_(False)
        q = net.value(net.q(states, action, task)[noise.heads]).mean(0)  # (H + 1, B)
        net.critics.requires_grad_(True)
        low, high = torch.quantile(q[0].detach(), torch.tensor([0.05, 0.95])).tolist()
        self.scale += cfg.tau * (max(1.0, high - low) - self.scale)
        rho = cfg.rho ** torch.arange(len(states))
        loss = -(rho * (q / self.scale + cfg.entropy_coef * entropy).mean(1)).mean()
        self.pi_optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.policy.parameters(), cfg.grad_clip_norm)
        self.pi_optimizer.step()
        return loss.detach()

    def update_call(self) -> Call:
        batch = make_batch(self.cfg)
        return lambda: self.update(batch, self.agent.draw(self.cfg.batch_size))

    def plan_call(self, state: PlanState) -> Call:
        """What `plan_of` does, for its one env: the noise, the plan, the memory of it in `state`."""
        obs = torch.from_numpy(np.random.default_rng(0).standard_normal((1, OBS), np.float32))[0]

        def call() -> None:
            noise = state.noise(self.agent.settings, self.cfg.size.num_q)
            start = torch.cat((state.mean[1:], torch.zeros_like(state.mean[:1])))[:, 0]
            state.mean[:, 0] = plain.plain_plan(self.net, obs, torch.tensor(0), start, noise, 0)

        return call


def same_numbers(agent: Agent, peer: Peer) -> None:
    """AssertionError unless both sides, from the same weights and noise, lose and plan the same."""
    found, expected = update_of(agent)(), peer.update_call()()
    for name, value in expected.items():
        assert_close(found[name], value.detach(), rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    agent, peer = make_agent(agent.cfg), Peer(make_agent(agent.cfg))
    ours, theirs = agent.new_plan(1, 0), agent.new_plan(1, 0)
    plan_of(agent, ours)()
    peer.plan_call(theirs)()
    assert_close(ours.mean, theirs.mean, rtol=1e-2, atol=1e-3)


if __name__ == "__main__":
    raise SystemExit(main())
