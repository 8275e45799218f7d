"""The learner: acts epsilon-greedily with a memory for each env, and learns from replayed windows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mpn.config import TrainConfig
from mpn.losses import linear_epsilon, multiplicative_epsilon, recurrent_double_dqn_loss
from mpn.model import DoubleMPNDQN, State, map_state, numpy_policy
from rlcore.seeding import numpy_generator, numpy_state, set_numpy_state, torch_generator

Array = np.ndarray[Any, Any]
NUMPY_CORES = ("mpn", "mpn-frozen")  # small enough that numpy beats torch's cost of a call


class Agent:
    """Recurrent double DQN (van Hasselt et al. 2016; Kapturowski et al. 2019) on one of the cores.

    Args:
        obs_dim, num_actions: of the environment. device: where the networks learn.
    """

    def __init__(self, cfg: TrainConfig, obs_dim: int, num_actions: int, device: torch.device) -> None:
        self.cfg, self.device, self.num_actions = cfg, device, num_actions
        self.nets = make_nets(cfg, obs_dim, num_actions).to(device)
        self.parameters = list(self.nets.online.parameters())
        self.optimizer = torch.optim.Adam(self.parameters, lr=cfg.lr, eps=1e-5, fused=True)
        self.exploration = numpy_generator(cfg.seed, "exploration")
        self.policy = GreedyPolicy(self.nets.online, device)
        self.memory = self.policy.initial_state(cfg.num_envs)
        self.updates = 0
        self.bad_in_a_row = torch.zeros((), device=device)  # updates skipped since the last good one
        self.skipped = torch.zeros((), device=device)

    def epsilon(self, step: int, episodes: int) -> float:
        """Share of random actions at env step `step`, after `episodes` finished ones."""
        cfg = self.cfg
        if cfg.epsilon_decay is not None:
            return multiplicative_epsilon(episodes, cfg.epsilon_decay, cfg.epsilon_start, cfg.epsilon_end)
        return linear_epsilon(step, int(cfg.epsilon_fraction * cfg.total_steps), cfg.epsilon_start, cfg.epsilon_end)

    def act(self, obs: Array, epsilon: float) -> Array:
        """Actions (N,) for observations (N, D). Each env's memory moves on, whoever chooses the action."""
        action, self.memory = self.policy.act(obs, self.memory)
        random = self.exploration.random(len(obs)) < epsilon
        if random.any():
            action[random] = self.exploration.integers(self.num_actions, size=int(random.sum()))
        return action

    def forget(self, done: Array) -> None:
        """Empty the memory of the envs whose episode has ended: done (N,) bool."""
        if done.any():
            self.memory = self.policy.reset(self.memory, done)

    def update(self, batch: Mapping[str, Tensor], start: State | None, progress: float) -> dict[str, Tensor]:
        """One gradient step on windows (K + L + 1, B, ...): burn-in without gradient, then L steps learnt from.

        A batch whose loss or gradient is not finite is skipped and counted. Nothing here waits for the device.

        Args:
            start: the memory (B, ...) before the first row, None if empty.
            progress: share of the run that is done, in [0, 1], for the learning rate.
        """
        cfg, nets, k = self.cfg, self.nets, self.cfg.burn_in
        obs, is_init = batch["obs"], batch["is_init"]
        with torch.no_grad():
            online_state = target_state = nets.online.init_state(obs.shape[1]) if start is None else start
            if k > 0:
                _, online_state = nets.online.sequence(obs[:k], is_init[:k], online_state)
                _, target_state = nets.target.sequence(obs[:k], is_init[:k], target_state)
            target_q, _ = nets.target.sequence(obs[k:], is_init[k:], target_state)
        q, _ = nets.online.sequence(obs[k:], is_init[k:], online_state)
        action, reward, terminated, truncated = (
            batch[n][k:-1] for n in ("action", "reward", "terminated", "truncated")
        )
        loss, info = recurrent_double_dqn_loss(
            q, target_q, action, reward, terminated, truncated, cfg.gamma, cfg.n_step, cfg.huber_delta
        )
        for p in self.parameters:
            p.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        good = torch.isfinite(loss.detach() + norm)
        self._step(good, norm, progress)
        self.updates += 1
        if cfg.tau is not None:
            nets.soft_update(cfg.tau)
        elif self.updates % cfg.target_update_freq == 0:
            nets.hard_update()
        metrics = {"loss": loss.detach(), "q_mean": info["q_mean"], "grad_norm": norm}
        return {name: torch.where(good, value, 0.0) for name, value in metrics.items()}

    def _step(self, good: Tensor, norm: Tensor, progress: float) -> None:
        # Fused Adam leaves everything as it is where found_inf is 1: torch's gradient scalers rely on the same.
        # It divides gradients by grad_scale, which clips their norm without another pass over them.
        bad = good.logical_not().float()
        self.optimizer.found_inf = bad  # type: ignore[attr-defined]
        self.optimizer.grad_scale = (norm / self.cfg.grad_clip).clamp(min=1.0)  # type: ignore[attr-defined]
        self.optimizer.param_groups[0]["lr"] = self.cfg.lr + min(progress, 1.0) * (self.cfg.lr_end - self.cfg.lr)
        self.optimizer.step()
        self.skipped += bad
        self.bad_in_a_row = (self.bad_in_a_row + bad) * bad

    def state_dict(self) -> dict[str, Any]:
        """Everything that shapes the agent's future."""
        return {
            "model": model_facts(self.cfg, self.nets.online.obs_dim, self.num_actions),
            "online": self.nets.online.state_dict(),
            "target": self.nets.target.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "memory": self.memory,
            "exploration": numpy_state(self.exploration),
            "updates": self.updates,
            "bad_in_a_row": self.bad_in_a_row,
            "skipped": self.skipped,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave. ValueError or RuntimeError where the shapes are another model's."""
        self.nets.online.load_state_dict(state["online"])
        self.nets.target.load_state_dict(state["target"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.memory = self.policy.from_saved(state["memory"])
        set_numpy_state(self.exploration, state["exploration"])
        self.updates = int(state["updates"])
        self.bad_in_a_row = state["bad_in_a_row"].to(self.device)
        self.skipped = state["skipped"].to(self.device)


class GreedyPolicy:
    """argmax Q with a memory, for acting and for `rlcore.evaluate`: numpy where that is faster, else torch."""

    def __init__(self, net: Any, device: torch.device) -> None:
        self.net, self.device = net, device
        self.numpy = numpy_policy(net) if device.type == "cpu" and net.core_name in NUMPY_CORES else None

    def initial_state(self, num_envs: int) -> Any:
        """Empty memories, (N, ...)."""
        return self.net.init_state(num_envs) if self.numpy is None else self.numpy.init_state(num_envs)

    def from_saved(self, saved: Any) -> Any:
        """The state in a checkpoint, laid out in memory as it was: numpy sums in another order otherwise."""
        if self.numpy is None:
            return map_state(lambda s: s.to(self.device), saved)
        parts = saved if isinstance(saved, tuple) else (saved,)
        state = self.numpy.init_state(len(parts[0]))
        for to, value in zip(state if isinstance(state, tuple) else (state,), parts):
            to[:] = np.asarray(value)
        return state

    def q(self, obs: Array, state: Any) -> tuple[Array, Any]:
        """Q-values (N, A) of observations (N, D), and the next state."""
        if self.numpy is not None:
            return self.numpy(obs, state)
        with torch.inference_mode():
            q, state = self.net(torch.as_tensor(obs, device=self.device), state)
        return q.cpu().numpy(), state

    def act(self, obs: Array, state: Any) -> tuple[Array, Any]:
        """Best actions (N,) int64 and the next state."""
        q, state = self.q(obs, state)
        return q.argmax(1), state

    def reset(self, state: Any, done: Array) -> Any:
        """The state with the rows where `done` (N,) at 0."""
        if self.numpy is not None:
            for s in state if isinstance(state, tuple) else (state,):
                s[done] = 0.0
            return state
        keep: State = map_state(
            lambda s: s * torch.as_tensor(~done, device=s.device).view(-1, *[1] * (s.ndim - 1)), state
        )
        return keep


def model_facts(cfg: TrainConfig, obs_dim: int, num_actions: int) -> dict[str, Any]:
    """The arguments of `MPNDQN` that a checkpoint needs to be rebuilt from itself alone."""
    return {
        "obs_dim": obs_dim, "hidden_dim": cfg.hidden_dim, "action_dim": num_actions, "core": cfg.core,
        "num_layers": cfg.num_layers, "eta": cfg.eta, "lambda_decay": cfg.lambda_decay, "activation": cfg.activation,
        "bias": cfg.bias, "input_map": cfg.resolved_input_map, "input_dim": cfg.input_dim, "m_clip": cfg.m_clip,
    }  # fmt: skip


def make_nets(cfg: TrainConfig, obs_dim: int, num_actions: int) -> DoubleMPNDQN:
    """Online and target network, the same at the start, drawn from the run's own stream."""
    generator = torch_generator(cfg.seed, "weights")
    return DoubleMPNDQN(**model_facts(cfg, obs_dim, num_actions), generator=generator)
