"""The world model of TD-MPC2 (Hansen et al. 2024, arXiv:2310.16828), its dynamics and reward with experts or without.

    z = model.encode(obs, task)             latent state
    z' = model.next(z, action, task)        the next one
    r = model.reward(z, action, task)       logits of a two-hot code
    q = model.q(z, action, task, heads)     likewise, of each critic
    a = model.pi(z, task, noise).action     policy prior

Any leading axes do; `task` (...) int64 broadcasts against them and is only read where there are several tasks, whose
observations and actions are padded to the widest. What lies in the padding never matters.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from prismatic.config import TaskSpec, TrainConfig
from prismatic.layers import Linear, NormedLinear, StackedLinear, StackedNormedLinear, mish, simnorm
from prismatic.losses import NUM_BINS, bin_values, discount, gaussian_log_prob, tanh_log_det, two_hot_inverse
from prismatic.moe import Gate, MoE

LOG_STD_MIN, LOG_STD_MAX = -10.0, 2.0
OBS_LIMIT, MIN_OBS_STD = 10.0, 0.01  # of standardised observations; of what they are divided by


class MLP(nn.Module):
    """Hidden layers of Mish(LayerNorm(linear)), then a head."""

    def __init__(self, sizes: Sequence[int], head: nn.Module, generator: torch.Generator | None) -> None:
        super().__init__()
        layers = [NormedLinear(i, o, mish, generator) for i, o in itertools.pairwise(sizes)]
        self.hidden, self.head = nn.Sequential(*layers), head

    def forward(self, x: Tensor, gates: list[Gate] | None = None) -> Tensor:
        """(..., sizes[0]) -> (..., out). There are no gates to report."""
        out: Tensor = self.head(self.hidden(x))
        return out


class Critics(nn.Module):
    """Stacked Q-functions: (..., width) -> (h, ..., 101) logits, of the heads asked for alone."""

    def __init__(self, num_q: int, width: int, hidden: int, generator: torch.Generator | None) -> None:
        super().__init__()
        self.first = StackedNormedLinear(num_q, width, hidden, generator)
        self.second = StackedNormedLinear(num_q, hidden, hidden, generator)
        self.head = StackedLinear(num_q, hidden, NUM_BINS, generator, zero=True)

    def forward(
        self, x: Tensor, heads: Tensor | None = None, detach: bool = False, dropped: Tensor | None = None
    ) -> Tensor:
        if heads is not None and len(heads) == len(self.head.weight):
            heads = None  # all of them: mean and minimum do not ask for an order, and nothing is copied
        rows = x.reshape(-1, x.shape[-1])
        rows = self.first(rows, heads, detach, dropped)
        out: Tensor = self.head(self.second(rows, heads, detach), heads, detach)
        return out.view(len(out), *x.shape[:-1], NUM_BINS)


class PolicySample(NamedTuple):
    """A draw from the policy prior, each (..., A)."""

    action: Tensor  # tanh(u)
    mean: Tensor  # tanh of the Gaussian's mean: the greedy action
    u: Tensor  # before the tanh
    log_std: Tensor
    noise: Tensor  # (u - mean of u) / std


class WorldModel(nn.Module):
    """Encoder, dynamics, reward, termination, policy prior, critics and their slowly moving targets.

    Weights are drawn from `generator`, never from a global one.
    """

    bins: Tensor
    obs_mask: Tensor
    obs_mean: Tensor
    obs_std: Tensor
    action_mask: Tensor
    action_dims: Tensor
    discounts: Tensor
    can_end: Tensor

    def __init__(self, cfg: TrainConfig, tasks: Sequence[TaskSpec], generator: torch.Generator | None = None) -> None:
        super().__init__()
        size, g = cfg.size, generator
        self.cfg, self.tasks, self.latent_dim = cfg, tuple(tasks), size.latent_dim
        self.obs_dim, self.action_dim = (max(getattr(t, k) for t in tasks) for k in ("obs_dim", "action_dim"))
        self.episodic = any(t.episodic for t in tasks) if cfg.episodic == "auto" else cfg.episodic == "true"
        task_dim = size.task_dim if len(tasks) > 1 else 0
        self.task_emb = nn.Parameter(torch.empty(len(tasks), task_dim).uniform_(-0.02, 0.02, generator=g))
        if not task_dim:
            self.task_emb = None  # type: ignore[assignment]
        state, pair, m = size.latent_dim + task_dim, size.latent_dim + self.action_dim + task_dim, size.mlp_dim
        widths = [self.obs_dim + task_dim, *[size.enc_dim] * max(size.enc_layers - 1, 1)]
        self.encoder = MLP(widths, NormedLinear(widths[-1], size.latent_dim, simnorm, g), g)
        self.dynamics = _trunk(cfg, len(tasks), pair, NormedLinear(m, size.latent_dim, simnorm, g), g)
        self.reward_net = _trunk(cfg, len(tasks), pair, Linear(m, NUM_BINS, g, zero=True), g)
        self.termination_net = MLP((state, m, m), Linear(m, 1, g), g) if self.episodic else None
        self.policy_net = MLP((state, m, m), Linear(m, 2 * self.action_dim, g), g)
        self.critics = Critics(size.num_q, pair, m, g)
        self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)
        self._add_facts(tasks)

    def _add_facts(self, tasks: Sequence[TaskSpec]) -> None:
        """Constants of the tasks, as buffers: they move with the model, and checkpoints need not hold them."""
        cfg = self.cfg
        masks = {
            key: torch.stack([(torch.arange(width) < getattr(t, key)).float() for t in tasks])
            for key, width in (("obs_dim", self.obs_dim), ("action_dim", self.action_dim))
        }
        facts = {
            "bins": bin_values(),
            "obs_mask": masks["obs_dim"],  # (T, O)
            "action_mask": masks["action_dim"],  # (T, A)
            "action_dims": masks["action_dim"].sum(1),  # (T,)
            "discounts": torch.tensor([discount(t.episode_length, cfg.discount_min, cfg.discount_max) for t in tasks]),
            "can_end": torch.tensor([float(t.episodic or cfg.episodic == "true") for t in tasks]),  # (T,)
        }
        for name, value in facts.items():
            self.register_buffer(name, value, persistent=False)
        self.register_buffer("obs_mean", torch.zeros(len(tasks), self.obs_dim), persistent=cfg.obs_norm)
        self.register_buffer("obs_std", torch.ones(len(tasks), self.obs_dim), persistent=cfg.obs_norm)
        self.pads_obs = len({t.obs_dim for t in tasks}) > 1
        self.pads_actions = len({t.action_dim for t in tasks}) > 1

    # Old names of the two blocks, for `plot_expert_gating(moe_block=agent.model._dynamics)`.
    @property
    def _dynamics(self) -> nn.Module:
        return self.dynamics

    @property
    def _reward(self) -> nn.Module:
        return self.reward_net

    def model_parameters(self) -> list[tuple[list[nn.Parameter], float]]:
        """(parameters, share of the learning rate) of all that the model loss trains: neither policy nor targets."""
        encoder = list(self.encoder.parameters())
        taken = {*encoder, *self.policy_net.parameters()}
        rest = [p for p in self.parameters() if p.requires_grad and p not in taken]
        return [(encoder, self.cfg.enc_lr_scale), (rest, 1.0)]

    @property
    def num_learnable(self) -> int:
        """Numbers that training changes. The target critics are copies, not learnt."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def _join(self, task: Tensor, *parts: Tensor) -> Tensor:
        """The parts (..., *) side by side, with the embedding of the task behind them."""
        if self.task_emb is None:
            return parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        return torch.cat((*parts, self.task_emb[task].expand(*parts[0].shape[:-1], -1)), -1)

    def mask_action(self, action: Tensor, task: Tensor) -> Tensor:
        """action (..., A) with 0 where the task has no such dimension."""
        return action * self.action_mask[task] if self.pads_actions else action

    def encode(self, obs: Tensor, task: Tensor) -> Tensor:
        """obs (..., O) -> z (..., D)."""
        if self.cfg.obs_norm:
            obs = ((obs - self.obs_mean[task]) / self.obs_std[task]).clamp(-OBS_LIMIT, OBS_LIMIT)
        out: Tensor = self.encoder(self._join(task, obs * self.obs_mask[task] if self.pads_obs else obs))
        return out

    def next(self, z: Tensor, action: Tensor, task: Tensor, gates: list[Gate] | None = None) -> Tensor:
        """z (..., D), action (..., A) -> the next z (..., D)."""
        out: Tensor = self.dynamics(self._join(task, z, action), gates)
        return out

    def reward(self, z: Tensor, action: Tensor, task: Tensor, gates: list[Gate] | None = None) -> Tensor:
        """z (..., D), action (..., A) -> (..., 101) logits of the reward's code."""
        out: Tensor = self.reward_net(self._join(task, z, action), gates)
        return out

    def terminated(self, z: Tensor, task: Tensor) -> Tensor:
        """z (..., D), the state that was reached -> (...) logit that the episode ended there."""
        assert self.termination_net is not None, "no task of this model is episodic"
        out: Tensor = self.termination_net(self._join(task, z)).squeeze(-1)
        return out

    def pi(self, z: Tensor, task: Tensor, noise: Tensor) -> PolicySample:
        """The policy prior's draw for noise (..., A) ~ N(0, 1): z (..., D) -> (..., A) each."""
        mean, raw = self.policy_net(self._join(task, z)).float().chunk(2, -1)
        log_std = LOG_STD_MIN + 0.5 * (LOG_STD_MAX - LOG_STD_MIN) * (raw.tanh() + 1)
        mean, log_std, noise = (self.mask_action(x, task) for x in (mean, log_std, noise))
        u = mean + noise * log_std.exp()
        return PolicySample(u.tanh(), mean.tanh(), u, log_std, noise)

    def policy_entropy(self, sample: PolicySample, task: Tensor) -> Tensor:
        """A * (-log density of the draw) (...), A the task's action dimensions; before the tanh, or after it.

        TD-MPC2's "scaled entropy" equals the former: its tanh correction cancels.
        """
        mask = self.action_mask[task] if self.pads_actions else None
        log_prob = gaussian_log_prob(sample.noise, sample.log_std, mask)
        if self.cfg.entropy == "squashed":
            log_prob = log_prob - tanh_log_det(sample.u, mask)
        return -self.action_dims[task] * log_prob

    def q(
        self,
        z: Tensor,
        action: Tensor,
        task: Tensor,
        heads: Tensor | None = None,
        *,
        target: bool = False,
        detach: bool = False,
        dropped: Tensor | None = None,
    ) -> Tensor:
        """z (..., D), action (..., A) -> (h, ..., 101) logits of the critics' codes.

        Args: heads (h,) int64, None for all; target: of the target critics; detach: gradients reach z and action, not
            the critics; dropped: dropout of the first layer, see `StackedNormedLinear`.
        """
        critics = self.target_critics if target else self.critics
        out: Tensor = critics(self._join(task, z, action), heads, detach, dropped)
        return out

    def value(self, logits: Tensor) -> Tensor:
        """The number that a code's logits (..., 101) stand for: (...), float32 under any autocast."""
        with torch.autocast(logits.device.type, enabled=False):
            return two_hot_inverse(logits, self.bins)


def _trunk(cfg: TrainConfig, num_tasks: int, width: int, head: nn.Module, g: torch.Generator | None) -> nn.Module:
    """Two hidden layers under a head, or a mixture that costs the same."""
    m, experts = cfg.size.mlp_dim, cfg.n_experts
    if not cfg.use_moe:
        return MLP((width, m, m), head, g)
    dims = (width, cfg.moe_gate_dim, cfg.moe_expert_dim or max(64, m // experts), m)
    return MoE(
        dims, experts, head, orthogonal=cfg.orthogonal, top_k=cfg.moe_top_k, tau=cfg.moe_tau_init,
        num_tasks=num_tasks, generator=g,
    )  # fmt: skip
