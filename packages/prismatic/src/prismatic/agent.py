"""The learner: plans in the world model to act, and learns the model, its critics and the policy prior from replay."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prismatic import cpu, losses
from prismatic.config import TaskSpec, TrainConfig
from prismatic.model import MIN_OBS_STD, WorldModel
from prismatic.moe import Gate, MoE
from prismatic.planner import PlanState, choose, draw_heads, plan, settings_of, shift
from rlcore.device import compile_if
from rlcore.errors import DataError
from rlcore.nets import polyak_
from rlcore.seeding import set_torch_state, torch_generator

Array = np.ndarray[Any, Any]
PENALTY_COEF = 0.01  # of orthogonal_mode=penalty
TERMS = ("consistency", "reward", "value", "termination", "moe", "gradient", "policy")  # what can be not finite


class UpdateNoise(NamedTuple):
    """All that chance decides in one update; both losses are functions of it."""

    next_action: Tensor  # (H, B, A) of the policy, in the TD target
    target_heads: Tensor  # (2,) critics whose minimum is the TD target
    dropped: Tensor | None  # (num_q, H * B, M) dropout of the critics' first layer
    action: Tensor  # (H + 1, B, A) of the policy, in its own loss
    heads: Tensor  # (2,) critics whose mean the policy climbs


class Agent:
    """TD-MPC2 (Hansen et al. 2024, arXiv:2310.16828), with or without experts, on one task or several.

    Args:
        tasks: the environments, in the order of their ids. Observations and actions are padded to the widest.
    """

    def __init__(self, cfg: TrainConfig, tasks: Sequence[TaskSpec], device: torch.device) -> None:
        self.cfg, self.tasks, self.device = cfg, tuple(tasks), device
        self.model = WorldModel(cfg, tasks, torch_generator(cfg.seed, "weights")).to(device)
        groups = self.model.model_parameters()
        self.parameters = [p for group, _ in groups for p in group]
        self.pi_parameters = list(self.model.policy_net.parameters())
        self.optimizer = torch.optim.Adam([{"params": p, "lr": cfg.lr * share} for p, share in groups], fused=True)
        self.pi_optimizer = torch.optim.Adam(self.pi_parameters, lr=cfg.lr, eps=1e-5, fused=True)
        self.settings = settings_of(cfg, self.model.action_dim)
        self.generator = torch_generator(cfg.seed, "update", device=str(device))
        self.scale = torch.ones((), device=device)  # S, of the returns
        self.weights = losses.rho_weights(cfg.rho, cfg.horizon).to(device)
        self.pi_weights = losses.rho_weights(cfg.rho, cfg.horizon + 1).to(device)
        self.updates = 0
        self.skipped = torch.zeros((), device=device)  # updates left out: something was not finite
        self.bad_in_a_row = torch.zeros((), device=device)
        self.bad_terms = torch.zeros(len(TERMS), dtype=torch.bool, device=device)  # of the last one left out
        wanted = cfg.compile == "on" or (cfg.compile == "auto" and device.type == "cuda")
        self._model_loss = compile_if(wanted, self.model_loss)
        self._policy_loss = compile_if(wanted, self.policy_loss)
        self._plan = compile_if(wanted, self._encode_and_plan)

    # --- acting

    def new_plan(self, num_envs: int, seed: int, *path: str | int, first_env: int = 0) -> PlanState:
        """Fresh planning memory for envs first_env .. first_env + num_envs - 1, drawing from the streams `path`."""
        dims = num_envs, self.cfg.horizon, self.model.action_dim
        return PlanState(*dims, seed, *path, first_env=first_env, device=self.device)

    @torch.inference_mode()
    def act(self, obs: Array, first: Array, task: Array, state: PlanState, eval_mode: bool = False) -> Array:
        """Actions (E, A) float32 in [-1, 1] for observations (E, D); `state` moves on.

        Args: first (E,) bool, at the first step of an episode; task (E,) int64; eval_mode: no exploration.
        """
        model, cfg = self.model, self.cfg
        noise = state.noise(self.settings, cfg.size.num_q)
        seen = pad(torch.as_tensor(obs, dtype=torch.float32), model.obs_dim).to(self.device)
        ids, start = torch.as_tensor(task).to(self.device), shift(state.mean, torch.as_tensor(first).to(self.device))
        if cfg.mpc:
            mean, std, elites, weight = self._plan(seen, ids, start, noise)
            state.mean.copy_(mean)
            sample = not eval_mode or cfg.eval_sample
            action = choose(mean, std, elites, weight, noise, sample=sample, explore=not eval_mode)
        else:
            with self.precision():
                drawn = model.pi(model.encode(seen, ids), ids, noise.act)
            action = drawn.mean if eval_mode else drawn.action
        result: Array = action.float().cpu().numpy()
        return result

    def _encode_and_plan(self, obs: Tensor, task: Tensor, start: Tensor, noise: Any) -> tuple[Tensor, ...]:
        with self.precision():
            return plan(self.model, self.model.encode(obs, task), task, start, noise, self.settings)

    def policy(self, task: int, seed: int, *path: str | int, padded: bool = False) -> PlanningPolicy:
        """The agent on one task as `rlcore.evaluate` wants it. padded: actions come as wide as the widest task's."""
        return PlanningPolicy(self, task, seed, path, None if padded else self.tasks[task].action_dim)

    # --- learning

    def update(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One step of the model, then of the policy, the target critics and the gates' temperatures.

        Where a loss or a gradient is not finite nothing is learnt, and that is counted. Nothing waits for the device.

        Args: batch: windows of one episode each, on the device: obs, next_obs (H, B, D), action (H, B, A), reward,
            terminated (H, B), task (B,) int64.
        Returns: metrics, tensors of shape (); 0 where the update was left out.
        """
        model, task = self.model, batch["task"]
        noise = self.draw(batch["action"].shape[1])
        loss, terms, states, dynamics_gates, reward_gates = self._model_loss(batch, noise)
        good, norm = self._step(self.optimizer, self.parameters, loss)
        if model.task_emb is not None:
            with torch.no_grad():
                model.task_emb.renorm_(2, 0, 1.0)  # rows of norm <= 1
        pi_loss, scale, pi_metrics = self._policy_loss(states, task, noise, self.scale)
        pi_good, pi_norm = self._step(self.pi_optimizer, self.pi_parameters, pi_loss, good)
        self.scale.copy_(torch.where(pi_good, scale, self.scale))
        polyak_(model.target_critics.parameters(), model.critics.parameters(), self.cfg.tau)
        metrics = {f"{name}_loss": value.detach() for name, value in terms.items()} | {"loss": loss.detach()}
        metrics |= {"grad_norm": norm, "pi_loss": pi_loss.detach(), "pi_grad_norm": pi_norm, **pi_metrics}
        metrics |= self._observe(dynamics_gates, reward_gates, task, good)
        finite = torch.stack([*(terms[name] for name in TERMS[:5]), norm, pi_loss + pi_norm]).detach().isfinite()
        self._count(pi_good, finite)
        return {name: torch.where(pi_good, value, 0.0) for name, value in metrics.items()} | {
            "scale": self.scale.clone()
        }

    def standardise(self, mean: Tensor, std: Tensor) -> None:
        """From now on observations are less mean (T, O), over std (T, O). To be said before anything is learnt."""
        self.model.obs_mean.copy_(mean)
        self.model.obs_std.copy_(std.clamp(min=MIN_OBS_STD))

    def draw(self, batch_size: int) -> UpdateNoise:
        """The noise of one update on `batch_size` windows."""
        cfg, model, g, on = self.cfg, self.model, self.generator, self.device
        shape = (cfg.horizon, batch_size, model.action_dim)
        dropped = None
        if cfg.dropout:
            dropped = torch.empty(cfg.size.num_q, cfg.horizon * batch_size, cfg.size.mlp_dim, device=on)
            dropped.bernoulli_(1 - cfg.dropout, generator=g).div_(1 - cfg.dropout)
        heads = draw_heads(2, cfg.size.num_q, g, on)
        next_action = torch.randn(shape, generator=g, device=on)
        action = torch.randn(cfg.horizon + 1, *shape[1:], generator=g, device=on)
        return UpdateNoise(next_action, heads[0], dropped, action, heads[1])

    def model_loss(
        self, batch: Mapping[str, Tensor], noise: UpdateNoise
    ) -> tuple[Tensor, dict[str, Tensor], Tensor, Tensor | None, Tensor | None]:
        """The model objective (arXiv:2310.16828, sec. 3.1) and the gates' terms.

        Returns: loss (); its terms, unweighted; latent states (H + 1, B, D), detached; gates (H, B, K) of dynamics and
            reward.
        """
        cfg, model, task = self.cfg, self.model, batch["task"]
        terminated = batch["terminated"].float()
        action = model.mask_action(pad(batch["action"], model.action_dim), task)
        with self.precision():
            with torch.no_grad():
                next_z = model.encode(pad(batch["next_obs"], model.obs_dim), task)  # (H, B, D)
                next_action = model.pi(next_z, task, noise.next_action).action
                next_q = model.value(model.q(next_z, next_action, task, noise.target_heads, target=True))
                target = losses.td_target(batch["reward"], model.discounts[task], terminated, next_q)
                reward_code, value_code = losses.two_hot(batch["reward"]), losses.two_hot(target)
            dynamics_gates: list[Gate] = []
            reward_gates: list[Gate] = []
            rolled = [model.encode(pad(batch["obs"][0], model.obs_dim), task)]
            for t in range(cfg.horizon):
                rolled.append(model.next(rolled[t], action[t], task, dynamics_gates))
            states = torch.stack(rolled)  # (H + 1, B, D)
            terms = {"consistency": losses.consistency_loss(states[1:], next_z, self.weights)}
            reward = model.reward(states[:-1], action, task, reward_gates)
            terms["reward"] = losses.code_loss(reward, reward_code, self.weights)
            q = model.q(states[:-1], action, task, dropped=noise.dropped)  # (num_q, H, B, 101)
            terms["value"] = losses.code_loss(q, value_code, self.weights)
            terms["termination"] = states.new_zeros(())
            if model.episodic:
                terms["termination"] = losses.termination_loss(model.terminated(states[1:], task), terminated)
        terms["moe"] = states.new_zeros(())
        pooled = [_pool(dynamics_gates), _pool(reward_gates)]
        for p, overlap in pooled:
            if p is not None:
                terms["moe"] = terms["moe"] + self._gate_loss(p, overlap)
        loss = (
            cfg.consistency_coef * terms["consistency"]
            + cfg.reward_coef * terms["reward"]
            + cfg.value_coef * terms["value"]
            + cfg.termination_coef * terms["termination"]
            + terms["moe"]
        )
        return loss, terms, states.detach(), pooled[0][0], pooled[1][0]

    def _gate_loss(self, p: Tensor, overlap: Tensor) -> Tensor:
        """Load balance, entropy towards its target, and the experts' overlap where it is penalised: p (H, B, K)."""
        cfg = self.cfg
        if p.shape[-1] == 1:
            return p.new_zeros(())
        spread = (losses.normalised_entropy(p, cfg.moe_top_k) - cfg.moe_entropy_target).square()
        balance = losses.load_balance(p.mean((0, 1)))
        return cfg.moe_lb_alpha * balance + cfg.moe_entropy_coef * spread + PENALTY_COEF * overlap

    def policy_loss(
        self, states: Tensor, task: Tensor, noise: UpdateNoise, scale: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The policy objective on states (H + 1, B, D), which carry no gradient; the critics' dropout is off.

        Returns: loss (); the scale of returns moved by this batch; metrics.
        """
        model = self.model
        with self.precision():
            sample = model.pi(states, task, noise.action)
            entropy = model.policy_entropy(sample, task)
            q = model.value(model.q(states, sample.action, task, noise.heads, detach=True)).mean(0)  # (H + 1, B)
        scale = losses.scale_step(scale, q[0].detach(), self.cfg.tau)
        loss = losses.policy_loss(q, scale, entropy, self.cfg.entropy_coef, self.pi_weights)
        metrics = {"pi_entropy": entropy, "pi_std": sample.log_std.exp(), "q_mean": q}
        return loss, scale, {name: value.detach().mean() for name, value in metrics.items()}

    def _step(
        self, optimizer: torch.optim.Adam, parameters: list[nn.Parameter], loss: Tensor, good: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Descend along the clipped gradient of `loss`, if it and the gradient are finite (and `good`). Both, then."""
        gradients = torch.autograd.grad(loss, parameters)
        norm = torch.nn.utils.get_total_norm(gradients)
        finite = torch.isfinite(loss.detach() + norm)
        good = finite if good is None else finite & good
        for p, gradient in zip(parameters, gradients):
            p.grad = gradient.contiguous()  # fused Adam reads memory in order: a transposed gradient would be garbage
        # Fused Adam leaves everything as it is where found_inf is 1: torch's gradient scalers rely on the same.
        # It divides gradients by grad_scale, which clips their norm without another pass over them.
        optimizer.found_inf = good.logical_not().float()  # type: ignore[attr-defined]
        optimizer.grad_scale = (norm / self.cfg.grad_clip_norm).clamp(min=1.0)  # type: ignore[attr-defined]
        optimizer.step()
        optimizer.zero_grad()
        return good, norm

    def _observe(self, dynamics: Tensor | None, reward: Tensor | None, task: Tensor, good: Tensor) -> dict[str, Tensor]:
        cfg, metrics = self.cfg, dict[str, Tensor]()
        limits = (cfg.moe_entropy_target, cfg.moe_beta, cfg.moe_tau_min, cfg.moe_tau_max)
        for name, block, p in (("dyn", self.model.dynamics, dynamics), ("rew", self.model.reward_net, reward)):
            if isinstance(block, MoE) and p is not None:
                found = block.observe(p.detach(), task, good, *limits)
                metrics |= {f"moe/{name}/{key}": value for key, value in found.items()}
        return metrics

    def _count(self, good: Tensor, finite: Tensor) -> None:
        bad = good.logical_not().float()
        self.updates += 1
        self.skipped += bad
        self.bad_in_a_row.add_(bad).mul_(bad)
        self.bad_terms.copy_(torch.where(good, self.bad_terms, finite.logical_not()))

    def bad_term(self) -> str | None:
        """The first term that was not finite in the last update left out, by name. Waits for the device."""
        found = self.bad_terms.cpu().numpy()
        return TERMS[int(found.argmax())] if found.any() else None

    def precision(self) -> torch.autocast:
        """What networks of this agent are asked in."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.cfg.precision == "bf16")

    def dead_experts(self) -> list[str]:
        """Experts that have hardly been used for long, as "expert 2 of dyn". Waits for the device."""
        blocks = {"dyn": self.model.dynamics, "rew": self.model.reward_net}
        return [
            f"expert {k} of {name}" for name, block in blocks.items() if isinstance(block, MoE) for k in block.dead()
        ]

    # --- keeping

    def clean_memory(self) -> None:
        """Empty the gates' histories, which only plots read: training goes on as if nothing had happened."""
        for block in self.model.modules():
            if isinstance(block, MoE):
                block.forget()
        cpu.return_memory()

    def plot_expert_gating(self, moe_block: nn.Module, save_path: Path | str) -> None:
        """Draw how much each expert of a block has been used over the last updates; the numbers go beside it as CSV."""
        from prismatic.analysis.plots import plot_gating

        if not isinstance(moe_block, MoE):
            raise DataError("this block has no experts: the agent was made with use_moe=false")
        plot_gating(moe_block.recent(), Path(save_path), [task.name for task in self.tasks])

    def state_dict(self) -> dict[str, Any]:
        """Everything that shapes the agent's future, but for the `PlanState`s that its callers own."""
        return {
            "tasks": [dataclasses.asdict(task) for task in self.tasks],
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "pi_optimizer": self.pi_optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "scale": self.scale,
            "updates": self.updates,
            "skipped": self.skipped,
            "bad_in_a_row": self.bad_in_a_row,
            "bad_terms": self.bad_terms,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave. DataError where tasks or shapes are another agent's."""
        ours, theirs = ([_dims(t) for t in tasks] for tasks in (self.state_dict()["tasks"], state["tasks"]))
        if ours != theirs:
            raise DataError(f"the checkpoint is of other tasks: it has {'; '.join(theirs)}, this run {'; '.join(ours)}")
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as error:
            raise DataError(f"the checkpoint is of another model: {' '.join(str(error).split())[:300]}") from None
        self.optimizer.load_state_dict(state["optimizer"])
        self.pi_optimizer.load_state_dict(state["pi_optimizer"])
        set_torch_state(self.generator, state["generator"])
        self.updates = int(state["updates"])
        for name in ("scale", "skipped", "bad_in_a_row", "bad_terms"):
            getattr(self, name).copy_(state[name])


class PlanningPolicy:
    """An agent on one task, without exploration. Env e of all that it is ever asked for draws from stream e."""

    def __init__(self, agent: Agent, task: int, seed: int, path: tuple[str | int, ...], width: int | None) -> None:
        self.agent, self.task, self.seed, self.path, self.width = agent, task, seed, path, width
        self.first_env = 0

    def initial_state(self, num_envs: int) -> tuple[PlanState, bool]:
        """Planning memory, and whether the episodes are yet to begin."""
        memory = self.agent.new_plan(num_envs, self.seed, *self.path, first_env=self.first_env)
        self.first_env += num_envs
        return memory, True

    def act(self, obs: Array, state: tuple[PlanState, bool]) -> tuple[Array, tuple[PlanState, bool]]:
        """Actions (N, A) for observations (N, D)."""
        memory, first = state
        count = len(obs)
        action = self.agent.act(obs, np.full(count, first), np.full(count, self.task), memory, eval_mode=True)
        return action[:, : self.width], (memory, False)


def pad(x: Tensor, width: int) -> Tensor:
    """x (..., n) -> (..., width), zeros behind."""
    return x if x.shape[-1] == width else F.pad(x, (0, width - x.shape[-1]))


def _pool(gates: list[Gate]) -> tuple[Tensor | None, Tensor]:
    """The gates of a block's passes in one update as (H, B, K), and their mean overlap."""
    if not gates:
        return None, torch.zeros(())
    stacked = gates[0].p if len(gates) == 1 and gates[0].p.ndim == 3 else torch.stack([g.p for g in gates])
    return stacked, torch.stack([g.overlap for g in gates]).mean()


def _dims(task: Mapping[str, Any]) -> str:
    return f"{task['name']} (observations {task['obs_dim']}, actions {task['action_dim']})"
