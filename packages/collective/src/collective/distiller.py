"""Distillation: several policies fitted to the same labelled rows, each told the task in its own way.

Rows are drawn so that each task counts the same, however much data it has, and a batch is one gather of packed rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from collective.agent import Collective, told
from collective.config import ACTION_DIM
from collective.config_distill import DistillConfig
from collective.data import Array, Dataset
from collective.losses import LOG_STD_SCRIPTED, critic_label, distil_kl, distil_loss
from collective.windows import compress
from rlblocks.sac import LOG_STD_MAPS, Adam
from rlcore.nets import polyak_
from rlcore.seeding import numpy_state, set_numpy_state

LOSSES = {"distil": distil_loss, "kl": distil_kl}
TAU = 0.01  # share of the critics that goes into their targets, every second update
FLOOR = 0.02  # of the step size, at the end of the cosine


@dataclass(frozen=True)
class Rows:
    """Labelled rows sorted by task. starts, counts (T,): where a task's rows are."""

    data: Dataset
    codes: Array | None  # (N, D) of the encoder; None where no policy is told them
    order: Array  # (N,) rows of `data`
    starts: Array
    counts: Array

    @classmethod
    def of(cls, data: Dataset, codes: Array | None, tasks: Sequence[str]) -> Rows:
        """Sorted; `tasks` are the policies', each of which must have rows."""
        number = np.array([tasks.index(task) for task in data.tasks])[data.task_of_rows]
        counts = np.bincount(number, minlength=len(tasks))
        return cls(data, codes, np.argsort(number, kind="stable"), np.cumsum(counts) - counts, counts)

    def codes_of(self, policy: Collective, rows: Array) -> Array:
        """(B, C) what `policy` is told in those rows of `data`."""
        if policy.encoder is not None:
            assert self.codes is not None
            return self.codes[rows]
        number = policy.numbers(self.data.tasks)[self.data.task_of_rows[rows]]
        return told(policy.code, number, len(policy.tasks))

    def inputs_of(self, policy: Collective, rows: Array) -> Array:
        """(B, C + 21) standardised."""
        return policy.standardised(self.codes_of(policy, rows), compress(self.data.obs[rows]))


@dataclass(frozen=True)
class Steps:
    """Rows with what came after them, sorted by task: what critics learn from.

    The last row of a trajectory counts only where an expert gave its value.
    """

    rows: Rows
    kept: Array  # (M,) rows of the data
    after: Array  # (M,) what came after them
    known: Array  # (M,) bool: an expert gave its value
    starts: Array  # (T,) where a task's rows are
    counts: Array

    @classmethod
    def of(cls, rows: Rows) -> Steps:
        """Those of labelled rows."""
        data, order = rows.data, rows.order
        last = np.zeros(len(data.obs), bool)
        last[data.offsets[1:] - 1] = True
        known = np.isfinite(data.q_target)
        usable = (~last | known)[order]
        number = np.repeat(np.arange(len(rows.counts)), rows.counts)[usable]
        counts = np.bincount(number, minlength=len(rows.counts))
        kept = order[usable]
        after = np.where(last[kept], kept, kept + 1)
        return cls(rows, kept, after, known[kept], np.cumsum(counts) - counts, counts)

    def typical(self, gamma: float) -> float:
        """About what a step is worth: the mean of the known values, and of mean reward / (1 - gamma) for the others."""
        data = self.rows.data
        guess = float(data.reward[self.kept].mean()) / max(1.0 - gamma, 1e-3)
        return float(np.where(self.known, data.q_target[self.kept], guess).mean())

    def pack(self, policy: Collective) -> Array:
        """(M, 2 (C + 21) + 11): input, action, next input, expert's next action, reward, q*, whether q* is known."""
        data, kept = self.rows.data, self.kept
        numbers = np.stack((data.reward[kept], np.nan_to_num(data.q_target[kept]), self.known), 1).astype(np.float32)
        before, later = (self.rows.inputs_of(policy, chosen) for chosen in (kept, self.after))
        return np.concatenate((before, data.action[kept], later, data.expert_mean[self.after], numbers), 1)


def constants(codes: Array, states: Array) -> tuple[Array, Array]:
    """shift, scale (C + 21,) that standardise [code, state]; what hardly ever changes is only shifted."""
    raw = np.concatenate((codes, states), -1)
    scale = raw.std(0, dtype=np.float64)  # summed in float32, a column that never changes seems to
    return raw.mean(0, dtype=np.float64).astype(np.float32), np.where(scale > 1e-4, scale, 1.0).astype(np.float32)


def begin_wide(policy: Collective) -> None:
    """Let a new policy's log-std begin at that of a script's label, in every state.

    It would begin near -9, where a divergence is divided by exp(-18): Adam never forgets gradients that large.
    """
    cfg, (weight, bias) = policy.cfg, policy.sac.actor.layers(policy.sac.actor.parameters.detach())[-1]
    middle = 2.0 * (LOG_STD_SCRIPTED - cfg.log_std_min) / (cfg.log_std_max - cfg.log_std_min) - 1.0
    weight[..., ACTION_DIM:].mul_(0.01)
    bias[..., ACTION_DIM:].fill_(math.atanh(middle))


class Distiller:
    """The updates of all policies.

    Args:
        policies: by arm; all with the same tasks. rng: draws rows and which codes are dropped.
    """

    def __init__(self, cfg: DistillConfig, policies: Mapping[str, Collective], rng: np.random.Generator) -> None:
        self.cfg, self.policies, self.rng = cfg, dict(policies), rng
        self.tasks = next(iter(policies.values())).tasks
        self.device = next(iter(policies.values())).sac.device
        self.actor_adam = {arm: Adam([(p.sac.actor.parameters, cfg.lr)]) for arm, p in policies.items()}
        self.critic_adam = {arm: Adam([(p.sac.critic.parameters, cfg.lr)]) for arm, p in policies.items()}
        self.updates, self.critics_begun = 0, False
        if cfg.loss == "kl":
            for policy in policies.values():
                begin_wide(policy)
        self.packs: dict[str, Tensor] = {}
        self.critic_packs: dict[str, Tensor] = {}

    def use(self, rows: Rows) -> None:
        """Learn from these rows from now on."""
        self.rows = rows
        data, order = rows.data, rows.order
        labels = np.concatenate((data.expert_mean, data.expert_log_std), 1)[order]
        self.packs, self.critic_packs, self.mean_codes = {}, {}, {}
        for arm, policy in self.policies.items():
            x = rows.inputs_of(policy, order)
            self.packs[arm] = torch.from_numpy(np.concatenate((x, labels), 1)).to(self.device)
            spans = [slice(a, a + n) for a, n in zip(rows.starts, rows.counts)]
            self.mean_codes[arm] = torch.from_numpy(
                np.stack([x[span, : policy.code_dim].mean(0) for span in spans])
            ).to(self.device)

    def draw(self, starts: Array, counts: Array) -> tuple[Tensor, Tensor]:
        """(B,) rows of a pack, each task alike, and (B,) their tasks."""
        task = self.rng.integers(len(counts), size=self.cfg.batch_size)
        row = starts[task] + (self.rng.random(len(task)) * counts[task]).astype(np.int64)
        return torch.from_numpy(row).to(self.device), torch.from_numpy(task).to(self.device)

    def actor_update(self) -> dict[str, Tensor]:
        """One step of every policy towards the labels. Returns a loss an arm, detached."""
        cfg = self.cfg
        row, task = self.draw(self.rows.starts, self.rows.counts)
        dropped = torch.from_numpy(self.rng.random(len(row)) < cfg.code_dropout).to(self.device)
        done = self.updates / max(cfg.updates, 1)
        lr = cfg.lr * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))
        self.updates += 1
        found = {}
        for arm, policy in self.policies.items():
            x, expert_mean, expert_log_std = (
                self.packs[arm].index_select(0, row).split((policy.code_dim + 21, 4, 4), dim=1)
            )
            if policy.code == "cls":
                code = torch.where(dropped[:, None], self.mean_codes[arm][task], x[:, : policy.code_dim])
                x = torch.cat((code, x[:, policy.code_dim :]), 1)
            mean, raw = policy.sac.actor(x[None])[0].chunk(2, -1)
            sac = policy.cfg
            log_std = LOG_STD_MAPS[sac.log_std_map](raw, sac.log_std_min, sac.log_std_max)
            loss = LOSSES[cfg.loss](mean, log_std, expert_mean, expert_log_std)
            adam = self.actor_adam[arm]
            adam.lrs = [lr if cfg.schedule == "cosine" else cfg.lr]
            adam.step(loss)
            found[f"loss_{arm}"] = loss.detach()
        return found

    def critic_update(self) -> dict[str, Tensor]:
        """One step of every policy's critics towards q*, or where no expert has values towards r + gamma Q(s', a*)."""
        if not self.critic_packs:
            self._prepare_critics()
        row, _ = self.draw(self.critic_starts, self.critic_counts)
        self.updates += 1
        found = {}
        for arm, policy in self.policies.items():
            sac, loss = policy.sac, self.critic_loss(policy, self.critic_packs[arm].index_select(0, row))
            self.critic_adam[arm].step(loss)
            if self.updates % 2 == 0:
                polyak_([sac.target.parameters], [sac.critic.parameters], TAU)
            found[f"critic_loss_{arm}"] = loss.detach()
        return found

    def critic_loss(self, policy: Collective, rows: Tensor) -> Tensor:
        """(): mean squared error of both critics on rows of a pack of `Steps`."""
        width, sac = policy.code_dim + 21, policy.sac
        x, action, later, label, reward, q, known = rows.split((width, 4, width, 4, 1, 1, 1), dim=1)
        with torch.no_grad():
            next_value = sac.q(sac.target, later[None], label[None])[0].min(0).values
            fitted = critic_label(reward[:, 0], torch.full_like(next_value, self.cfg.gamma), next_value)
            target = torch.where(known[:, 0] > 0, q[:, 0], fitted)
        return (sac.q(sac.critic, x[None], action[None])[0] - target).square().mean()

    def _prepare_critics(self) -> None:
        """Packs of rows with what came after them; critics that begin do so near the data's values."""
        steps = Steps.of(self.rows)
        self.critic_starts, self.critic_counts = steps.starts, steps.counts
        first = steps.typical(self.cfg.gamma)
        for arm, policy in self.policies.items():
            self.critic_packs[arm] = torch.from_numpy(steps.pack(policy)).to(self.device)
            if not self.critics_begun:
                # Hundreds; from 0, most updates would go into getting there.
                for net in (policy.sac.critic, policy.sac.target):
                    net.layers(net.parameters.detach())[-1][1].add_(first)
        self.critics_begun = True

    @torch.inference_mode()
    def errors(self, held_out: Rows) -> dict[str, float]:
        """Mean squared error of the actions on held-out rows, an arm, each task alike."""
        found = {}
        for arm, policy in self.policies.items():
            mean = policy.act(held_out.inputs_of(policy, held_out.order))
            error = np.square(mean - held_out.data.expert_mean[held_out.order]).mean(1)
            spans = [slice(a, a + n) for a, n in zip(held_out.starts, held_out.counts) if n]
            found[f"val_action_mse_{arm}"] = float(np.mean([error[span].mean() for span in spans]))
        return found

    @torch.inference_mode()
    def critic_errors(self, held_out: Rows) -> dict[str, float]:
        """The critics' loss on held-out rows, an arm, each task alike."""
        steps, found = Steps.of(held_out), {}
        for arm, policy in self.policies.items():
            pack = torch.from_numpy(steps.pack(policy)).to(self.device)
            parts = [pack[a : a + n] for a, n in zip(steps.starts, steps.counts) if n]
            found[f"val_critic_mse_{arm}"] = float(np.mean([float(self.critic_loss(policy, part)) for part in parts]))
        return found

    def state_dict(self) -> dict[str, Any]:
        """Optimisers, draws and counters; the policies save themselves."""
        return {
            "actor_adam": {arm: adam.state for arm, adam in self.actor_adam.items()},
            "critic_adam": {arm: adam.state for arm, adam in self.critic_adam.items()},
            "rng": numpy_state(self.rng), "updates": self.updates,
            "critics_begun": self.critics_begun,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name in ("actor_adam", "critic_adam"):
            for arm, adam in getattr(self, name).items():
                for key, tensors in adam.state.items():
                    for tensor, value in zip(tensors, state[name][arm][key]):
                        tensor.copy_(value)
        set_numpy_state(self.rng, state["rng"])
        self.updates, self.critics_begun = int(state["updates"]), bool(state["critics_begun"])
