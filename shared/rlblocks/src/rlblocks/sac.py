"""Soft actor-critic: its targets and losses as functions, and one plain agent that holds N learners in one program.

Haarnoja et al. 2018, arXiv:1812.05905. `N` learners (agents), `B` rows of a batch, `E` critics, `A` action dimensions.
What regularises the policy is an argument, the cost: log pi for maximum entropy, KL(pi || prior) for a skill prior.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.optim.adam import adam

from rlblocks.config import SACConfig
from rlblocks.gaussians import clamp_log_std, tanh_gaussian, tanh_log_std
from rlblocks.graphs import Graphed
from rlblocks.stacked import Stacked
from rlcore.errors import UsageError
from rlcore.nets import polyak_
from rlcore.seeding import numpy_generator, numpy_state, set_numpy_state, set_torch_state, torch_generator

Array = np.ndarray[Any, Any]
LOG_STD_MAPS = {"clamp": clamp_log_std, "tanh": tanh_log_std}


def soft_td_target(reward: Tensor, discount: Tensor, next_q: Tensor, next_cost: Tensor, alpha: Tensor) -> Tensor:
    """One-step soft Bellman target, y = r + d * (min_e Q_e(s', a') - alpha * c(s', a')); eqs. 2, 3 and 5.

    Args:
        reward:    (..., B)     in the scale the critics are trained on.
        discount:  (..., B)     gamma * (1 - terminated), gamma^k for k steps. A time limit is not a termination.
        next_q:    (..., E, B)  target critics at a' ~ pi(s').
        next_cost: (..., B)     nats.
        alpha:     temperature, >= 0; broadcasts against (..., B).
    Returns: (..., B) target, detached.
    """
    assert reward.shape == discount.shape == next_cost.shape, (reward.shape, discount.shape, next_cost.shape)
    assert (*next_q.shape[:-2], next_q.shape[-1]) == reward.shape, (next_q.shape, reward.shape)
    return (reward + discount * (next_q.min(-2).values - alpha * next_cost)).detach()


def critic_loss(q: Tensor, target: Tensor) -> Tensor:
    """sum_e mean_b 1/2 (Q_e - y)^2; eq. 5. q (..., E, B), target (..., B) -> (...)."""
    assert (*q.shape[:-2], q.shape[-1]) == target.shape, (q.shape, target.shape)
    return 0.5 * (q - target.unsqueeze(-2)).square().mean(-1).sum(-1)


def actor_loss(q: Tensor, cost: Tensor, alpha: Tensor) -> Tensor:
    """mean_b (alpha c - min_e Q_e), at actions of the policy; eq. 7. q (..., E, B), cost (..., B) -> (...)."""
    assert (*q.shape[:-2], q.shape[-1]) == cost.shape, (q.shape, cost.shape)
    return (alpha * cost - q.min(-2).values).mean(-1)


def temperature_loss(log_alpha: Tensor, cost: Tensor, target_cost: float) -> Tensor:
    """mean_b log alpha (target - c), c detached: alpha rises while the cost is above its target. (..., B) -> (...).

    For entropy c = log pi and the target is minus the wanted entropy; for a skill prior c = KL and it is the wanted
    divergence (Pertsch et al. 2020, arXiv:2010.11944). Eq. 18 has alpha where this has its logarithm: the same sign and
    the same zero, but a gradient that shrinks with alpha, which Adam, whose scale lags, then follows too slowly.
    """
    return (log_alpha * (target_cost - cost.detach())).mean(-1)


class Sample(NamedTuple):
    """The policy's distribution in some states, and one action from it."""

    mean: Tensor  # (N, B, A) before squashing
    log_std: Tensor  # (N, B, A) before squashing
    action: Tensor  # (N, B, A) in [-1, 1]
    log_prob: Tensor  # (N, B) nats


Cost = Callable[[Tensor, Sample], Tensor]  # (observations (N, B, D), sample) -> (N, B) nats
# (agent, observations (N, B, D), sample, its values (N, E, B), further fields of the batch) -> (N,)
Pull = Callable[["SAC", Tensor, Sample, Tensor, Sequence[Tensor]], Tensor]


def entropy_cost(obs: Tensor, sample: Sample) -> Tensor:
    """log pi: what maximum entropy pays for."""
    return sample.log_prob


class SAC:
    """N independent soft actor-critics, stacked: one agent a seed.

    Each has its own random streams, so that N stacked agents do what N separate ones would. With one seed the leading
    axis N is left out of observations, actions, batches and metrics. Acts in float32, with numpy where it is on a CPU.

    Args:
        seeds: decide weights, exploration and the noise of updates.
        num_tasks: temperatures of an agent; with more than one, batches hold "task_id".
        cost: the regulariser; `target_cost` is what it is tuned to, minus the target entropy if left out.
        pull: what else the actor goes down, imitation say; it is given the whole observations, what is private too, and
            the batch's `fields`, (N, B, ...) each.
        private: numbers at the end of an update's observations that the critics see and the actor does not: what is
            known in training alone (asymmetric, Pinto et al. 2017, arXiv:1710.06542). `act` is given none of them.
    """

    def __init__(
        self, cfg: SACConfig, obs_dim: int, action_dim: int, *, seeds: Sequence[int], num_tasks: int = 1,
        device: str | torch.device = "cpu", cost: Cost = entropy_cost, target_cost: float | None = None,
        pull: Pull | None = None, fields: tuple[str, ...] = (), private: int = 0,
    ) -> None:  # fmt: skip
        self.cfg, self.obs_dim, self.action_dim, self.num_tasks = cfg, obs_dim, action_dim, num_tasks
        self.agents, self.device, self.cost, self.pull = len(seeds), torch.device(device), cost, pull
        entropy = -float(action_dim) if cfg.target_entropy is None else cfg.target_entropy
        self.target_cost, self.fields = -entropy if target_cost is None else target_cost, fields
        self.seen = obs_dim - private
        weights = [torch_generator(seed, "weights") for seed in seeds]
        make = functools.partial(Stacked, init=cfg.init, low=cfg.precision == "bf16", device=self.device)
        self.actor = make([self.seen, *cfg.hidden, 2 * action_dim], weights)
        each_critic = [generator for generator in weights for _ in range(cfg.critics)]
        self.critic, self.target = (make([obs_dim + action_dim, *cfg.hidden, 1], each_critic) for _ in range(2))
        polyak_([self.target.parameters], [self.critic.parameters], 1.0)
        self.log_alpha = torch.full((self.agents, num_tasks), cfg.alpha, device=self.device).log_().requires_grad_()
        self.critic_adam = Adam([(self.critic.parameters, cfg.critic_lr)])
        self.actor_adam = Adam(
            [(self.actor.parameters, cfg.actor_lr), *[(self.log_alpha, cfg.alpha_lr)] * cfg.learn_alpha]
        )
        self.noise = [torch_generator(seed, "updates", device=str(self.device)) for seed in seeds]
        self.exploration = [numpy_generator(seed, "exploration") for seed in seeds]
        self.updates = 0  # of the critics
        on_gpu, of_layers = self.device.type == "cuda", self.actor.layers(self.actor.parameters.detach())
        self._learn = Graphed(self._learn_once) if cfg.cuda_graph and on_gpu else self._learn_once
        self._views = [(w.numpy(), b.numpy()) for w, b in of_layers] if self.device.type == "cpu" else []

    def act(self, obs: Array, deterministic: bool = False) -> Array:
        """Actions in [-1, 1] for what the actor sees (N, B, D), or (B, D) or (D,) where there is one agent."""
        assert obs.shape[-1] == self.seen, (obs.shape, self.seen)
        assert self.agents == 1 or (obs.ndim == 3 and len(obs) == self.agents), (obs.shape, self.agents)
        mean, log_std = np.split(self._output(obs.reshape(self.agents, -1, self.seen)), 2, -1)
        if not deterministic:
            cfg = self.cfg
            noise = np.stack([g.standard_normal(mean.shape[1:], np.float32) for g in self.exploration])
            if cfg.log_std_map == "clamp":
                log_std = log_std.clip(cfg.log_std_min, cfg.log_std_max)
            else:
                log_std = cfg.log_std_min + 0.5 * (cfg.log_std_max - cfg.log_std_min) * (np.tanh(log_std) + 1.0)
            mean = mean + np.exp(log_std) * noise
        return cast(Array, np.tanh(mean).reshape(*obs.shape[:-1], self.action_dim))

    def _output(self, h: Array) -> Array:
        """The actor's output (N, B, 2A)."""
        h = h.astype(np.float32, copy=False)
        if not self._views:
            with torch.inference_mode():
                return np.asarray(self.actor(torch.as_tensor(h, device=self.device)).cpu())
        for i, (weight, bias) in enumerate(self._views):
            if i:
                np.maximum(h, 0.0, out=h)
            h = h @ weight
            h += bias
        return h

    def policy(self, obs: Tensor, noise: Tensor) -> Sample:
        """The policy in states (N, B, D) and its action for that noise (N, B, A)."""
        cfg = self.cfg
        mean, raw = self.actor(obs[..., : self.seen]).chunk(2, -1)
        log_std = LOG_STD_MAPS[cfg.log_std_map](raw, cfg.log_std_min, cfg.log_std_max)
        return Sample(mean, log_std, *tanh_gaussian(mean, log_std, noise))

    def q(self, critic: Stacked, obs: Tensor, action: Tensor, frozen: bool = False) -> Tensor:
        """Values (N, E, B) of the critics or target critics in states (N, B, D) at actions (N, B, A)."""
        return critic(torch.cat((obs, action), -1), frozen).view(self.agents, self.cfg.critics, -1)

    def update(self, batch: Mapping[str, Tensor], noise: Tensor | None = None, actor: bool = True) -> dict[str, Tensor]:
        """One step of the critics and, unless `actor` is False, of actor and temperature. Waits for no device.

        Args:
            batch: obs, next_obs (N, B, D), action (N, B, A), reward, discount (N, B); task_id (N, B) int64 with several
                tasks. discount is gamma * (1 - terminated).
            noise: (2, N, B, A) standard normal: for the actions in obs and in next_obs; drawn where None.
        Returns: metrics, (N,) or () each, detached.
        """
        fields = "obs", "action", "reward", "discount", "next_obs", *("task_id",) * (self.num_tasks > 1), *self.fields
        tensors = [batch[name].unsqueeze(0) if self.agents == 1 else batch[name] for name in fields]
        if noise is None:
            shape = 2, *tensors[1].shape[1:]
            noise = torch.stack([torch.randn(shape, generator=g, device=self.device) for g in self.noise], 1)
        self.updates += 1
        polyak = self.updates % self.cfg.target_every == 0
        metrics = self._learn([noise, *tensors], polyak, actor and self.updates % self.cfg.actor_every == 0)
        return {name: value.squeeze(0) for name, value in metrics.items()} if self.agents == 1 else metrics

    def _learn_once(self, tensors: Sequence[Tensor], polyak: bool, actor: bool) -> dict[str, Tensor]:
        """The update itself."""
        noise, obs, action, reward, discount, next_obs, *more = tensors
        task, extra = more[: self.num_tasks > 1], more[self.num_tasks > 1 :]
        assert obs.shape == next_obs.shape == (self.agents, obs.shape[1], self.obs_dim), (obs.shape, next_obs.shape)
        assert action.shape == (*obs.shape[:2], self.action_dim), (action.shape, obs.shape)
        log_alpha = self.log_alpha.gather(1, task[0]) if task else self.log_alpha  # (N, B) or (N, 1)
        alpha = log_alpha.detach().exp()

        with torch.no_grad():
            later = self.policy(next_obs, noise[1])
            next_q = self.q(self.target, next_obs, later.action)
            target = soft_td_target(reward, discount, next_q, self.cost(next_obs[..., : self.seen], later), alpha)
        q = self.q(self.critic, obs, action)
        loss = critic_loss(q, target)
        self.critic_adam.step(loss)
        if polyak:
            polyak_([self.target.parameters], [self.critic.parameters], self.cfg.tau)
        metrics = {"critic_loss": loss.detach(), "q": q.detach().mean((1, 2))}
        if not actor:
            return metrics

        now = self.policy(obs, noise[0])
        cost = self.cost(obs[..., : self.seen], now)
        q = self.q(self.critic, obs, now.action, frozen=True)
        loss = actor_loss(q, cost, alpha) + (self.pull(self, obs, now, q, extra) if self.pull else 0.0)
        metrics |= {"actor_loss": loss.detach(), "cost": cost.detach().mean(-1), "alpha": alpha.mean(-1)}
        if self.cfg.learn_alpha:
            loss = loss + temperature_loss(log_alpha, cost, self.target_cost)
        before = self.log_alpha.detach().clone() if task else None
        self.actor_adam.step(loss)
        if before is not None:  # Adam's momentum would move the temperatures of absent tasks, too
            present = torch.zeros_like(before).scatter_(1, task[0], 1.0) > 0
            self.log_alpha.detach().copy_(torch.where(present, self.log_alpha.detach(), before))
        return metrics

    def tensors(self) -> dict[str, Tensor]:
        """What is learnt, without the optimisers: live, not copies."""
        actor, critic, target = self.actor.parameters, self.critic.parameters, self.target.parameters
        return {"log_alpha": self.log_alpha, "actor": actor, "critic": critic, "target": target}

    def state_dict(self) -> dict[str, Any]:
        """Everything that shapes the agents' future."""
        return {
            **{name: tensor.detach() for name, tensor in self.tensors().items()},
            "actor_adam": self.actor_adam.state,
            "critic_adam": self.critic_adam.state,
            "noise": [generator.get_state() for generator in self.noise],
            "exploration": [numpy_state(generator) for generator in self.exploration],
            "updates": self.updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave. UsageError where shapes differ."""
        for name, tensor in self.tensors().items():
            if tensor.shape != state[name].shape:
                raise UsageError(f"the saved SAC has {name} {tuple(state[name].shape)}, this one {tuple(tensor.shape)}")
            tensor.detach().copy_(state[name])
        for optimizer in ("actor_adam", "critic_adam"):
            for name, tensors in getattr(self, optimizer).state.items():
                for tensor, value in zip(tensors, state[optimizer][name]):
                    tensor.copy_(value)
        for generator, saved in zip(self.noise, state["noise"]):
            set_torch_state(generator, saved)
        for rng, numbers in zip(self.exploration, state["exploration"]):
            set_numpy_state(rng, numbers)
        self.updates = int(state["updates"])


class Adam:
    """Kingma and Ba 2014, arXiv:1412.6980, in place, by the kernel that `torch.optim.Adam(fused=True)` calls.

    Without that class's bookkeeping, 6 % of an update.
    """

    def __init__(self, groups: Sequence[tuple[Tensor, float]]) -> None:
        self.parameters, self.lrs = [p for p, _ in groups], [lr for _, lr in groups]
        self.state = {
            "mean": [torch.zeros_like(p.detach()) for p in self.parameters],
            "square": [torch.zeros_like(p.detach()) for p in self.parameters],
            "steps": [torch.zeros((), device=p.device) for p in self.parameters],
        }

    def step(self, loss: Tensor) -> None:
        """One step down the sum of the losses (N,): those of separate agents share no parameter."""
        grads = torch.autograd.grad(loss, self.parameters, torch.ones_like(loss))
        for p, grad, mean, square, steps, lr in zip(self.parameters, grads, *self.state.values(), self.lrs):
            adam(
                [p.detach()], [grad], [mean], [square], [], [steps], fused=True, capturable=p.is_cuda, amsgrad=False,
                beta1=0.9, beta2=0.999, lr=lr, weight_decay=0.0, eps=1e-8, maximize=False,
            )  # fmt: skip
