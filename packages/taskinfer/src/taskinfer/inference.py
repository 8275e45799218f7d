"""Task inference: beliefs from what was seen, of whole episodes at once or step by step, and how it is learnt."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rlcore.errors import DataError, UsageError
from rlcore.nets import polyak_
from rlcore.seeding import derive, set_torch_state, torch_generator
from taskinfer import context, losses
from taskinfer.config import InferenceConfig
from taskinfer.context import Episodes
from taskinfer.data import Batch, EpisodeRing, uniform
from taskinfer.model import Posterior, RecurrentGRU, RecurrentSet, TaskModel
from taskinfer.priors import Prior, PriorFit
from taskinfer.tasks import Family


class Belief(NamedTuple):
    """What is believed of the task: q(z | context) = N(mean, diag exp(log_var)), and which family it may be."""

    mean: Tensor  # (..., L)
    log_var: Tensor  # (..., L)
    family_logits: Tensor  # (..., C), classes in the order of `Inference.families`
    count: Tensor  # type: ignore[assignment]  # (...) int64, transitions seen

    @property
    def std(self) -> Tensor:
        """(..., L)"""
        return (0.5 * self.log_var).exp()

    def params(self) -> Tensor:
        """(..., 2 L): mean and standard deviation, what a policy is given."""
        return torch.cat((self.mean, self.std), -1)


class Stream:
    """The beliefs of `num` agents in the making, each in a slot of its own. Made by `Inference.stream`."""

    def __init__(self, memory: Tensor, reward: Tensor, belief: Belief) -> None:
        self.memory, self.reward, self.belief = memory, reward, belief  # reward: (num,) of the last step


class Inference:
    """The inference model and its learning. The encoder is shown (s, r, s') and never an action.

    Args:
        obs_dim (ds), action_dim (da): of the toy. families: those that its head tells apart; their order is by id.
        seed: decides the first weights and the noise of updates.
    """

    def __init__(
        self, cfg: InferenceConfig, obs_dim: int, action_dim: int, families: Sequence[Family], seed: int,
        device: str | torch.device = "cpu",
    ) -> None:  # fmt: skip
        self.cfg, self.obs_dim, self.action_dim = cfg, obs_dim, action_dim
        self.device, self.families = torch.device(device), tuple(sorted(set(families)))
        if not self.families:
            raise UsageError("inference: at least one family of tasks is needed")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "inference weights"))
            self.model = TaskModel(cfg, obs_dim, action_dim, len(self.families)).to(self.device)
        self.slow = copy.deepcopy(self.model).requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=cfg.lr, fused=True)
        self.noise = torch_generator(seed, "inference noise", device=str(self.device))
        self.prior = Prior(cfg, derive(seed, "prior"), self.device)
        self.updates = 0
        self.skipped = torch.zeros((), device=self.device)  # updates whose loss was not finite
        self._class_of = torch.full((max(Family) + 1,), -1, device=self.device)
        self._class_of[list(self.families)] = torch.arange(len(self.families), device=self.device)

    # --- beliefs ------------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def encode(self, episodes: Episodes, slow: bool = True) -> Belief:
        """Beliefs (B, H + 1, ...) before every step of the episodes and after the last, in one pass.

        After an episode's end its last belief stays. slow: by the slow encoder, which acts, not the learning one.
        """
        model = self.slow if slow else self.model
        raw = model.encoder.episodes(context.all_features(episodes, self.cfg))
        time = torch.arange(raw.shape[1], device=raw.device).minimum(episodes.length[:, None])  # (B, H + 1)
        raw = raw.gather(1, time[..., None].expand_as(raw))
        return self._belief(model, raw, time)

    def _belief(self, model: TaskModel, raw: Tensor, count: Tensor) -> Belief:
        mean, log_var, *_ = model.posterior(raw)
        return Belief(mean, log_var, model.families(mean), count)

    @torch.no_grad()
    def stream(self, num: int) -> Stream:
        """Beliefs of `num` agents that have seen nothing: the same for all."""
        count = torch.zeros(num, dtype=torch.int64, device=self.device)
        memory = self.slow.encoder.start(num)
        belief = self._belief(self.slow, self.slow.encoder.read(memory, count), count)
        return Stream(memory, torch.zeros(num, device=self.device), belief)

    @torch.no_grad()
    def update(self, stream: Stream, s: Any, r: Any, s2: Any, alive: Any = None) -> Belief:
        """Show each agent one transition: s, s2 (n, ds), r (n,); the new beliefs (n, ...), also in `stream`.

        alive: (n,) bool. Whoever is not keeps its memory and its belief; nobody ever changes slots, so that what ends
        early cannot get into what goes on. Arrays or tensors.
        """
        model, old = self.slow, stream.belief
        s, r, s2 = (torch.as_tensor(v, dtype=torch.float32, device=self.device) for v in (s, r, s2))
        assert s.shape == s2.shape == (len(old.count), self.obs_dim), (s.shape, s2.shape, self.obs_dim)
        assert r.shape == old.count.shape, (r.shape, old.count.shape)
        before = torch.where(old.count > 0, stream.reward, r)
        memory, raw = model.encoder.step(stream.memory, context.feature(s, r, s2, before, self.cfg), old.count)
        belief = self._belief(model, raw, old.count + 1)
        if alive is not None:
            keep = torch.as_tensor(alive, device=self.device)
            memory = torch.where(keep.view(-1, *[1] * (memory.ndim - 1)), memory, stream.memory)
            r = torch.where(keep, r, stream.reward)
            belief = Belief(*(torch.where(keep.view(-1, *[1] * (n.ndim - 1)), n, o) for n, o in zip(belief, old)))
        stream.memory, stream.reward, stream.belief = memory, r, belief
        return belief

    def family_ids(self, belief: Belief) -> Tensor:
        """(...,) ids of the likeliest families."""
        return torch.tensor(self.families, device=self.device)[belief.family_logits.argmax(-1)]

    # --- learning -----------------------------------------------------------------------------------------------------
    def learn(self, batch: Batch) -> dict[str, Tensor]:
        """One gradient step. Waits for no device; an update whose loss is not finite is skipped and counted."""
        noise = torch.randn(len(batch.known), self.cfg.latent_dim, generator=self.noise, device=self.device)
        loss, metrics = self.loss(batch, noise)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        bad = (~torch.isfinite(loss.detach())).float()
        # Fused Adam leaves everything as it is where found_inf is 1: torch's gradient scalers rely on the same.
        self.optimizer.found_inf = bad  # type: ignore[attr-defined]
        self.optimizer.step()
        self.skipped += bad
        self.updates += 1
        polyak_(self.slow.parameters(), self.model.parameters(), 1.0 - self.cfg.ema)
        return {name: torch.where(bad > 0, 0.0, value.detach()) for name, value in metrics.items()}

    def loss(self, batch: Batch, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its parts, each (): mean over contexts. noise (N, L): standard normal, for z."""
        cfg, model = self.cfg, self.model
        posterior = model.posterior(self._raw(batch))
        z = posterior.mean + (0.5 * posterior.log_var).exp() * noise
        state, reward = model.decode(batch.state, batch.action, z)
        family = self._class_of[batch.family]
        parts = {
            "loss_state": F.mse_loss(state, batch.next_state), "loss_reward": F.mse_loss(reward, batch.reward),
            "loss_task": F.cross_entropy(model.families(z), family),
        }  # fmt: skip
        total = (parts["loss_state"] + parts["loss_reward"]) / 3.0 + cfg.task_weight * parts["loss_task"]
        if cfg.prior == "gmm":
            extra, more = self._gmm_terms(posterior, z, family)
        else:
            divergence = self.prior.kl(posterior.mean, posterior.log_var, z).mean()
            extra, more = cfg.kl_weight * divergence, {"kl": divergence}
        return total + extra, {**parts, **more, "loss": total + extra}

    def _raw(self, batch: Batch) -> Tensor:
        """The learning encoder's outputs (N, O)."""
        encoder = self.model.encoder
        if isinstance(encoder, RecurrentGRU | RecurrentSet):
            return encoder.at(batch.features, batch.known.view(len(batch.features), -1)).flatten(0, 1)
        return encoder.windows(batch.features, batch.known)

    def _gmm_terms(self, posterior: Posterior, z: Tensor, family: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What TIGR's finite mixture is pulled by, weighted, and its parts."""
        logits, means, log_vars = posterior.class_logits, posterior.class_means, posterior.class_log_vars
        assert logits is not None
        assert means is not None
        assert log_vars is not None
        cfg = self.cfg
        divergence = losses.kl_to_standard(means, log_vars).sum(1).mean()
        apart = losses.separation(means, (0.5 * log_vars).exp())
        classes = F.cross_entropy(logits, family)
        total = cfg.kl_weight * divergence + cfg.sparsity_weight * z.abs().sum(-1).mean()
        total = total + cfg.separation_weight * apart + cfg.class_weight * classes
        return total, {"kl": divergence, "separation": apart, "loss_class": classes}

    def latents(self, ring: EpisodeRing, num: int = 4096) -> tuple[Tensor, Tensor]:
        """About `num` latent means (N, L) at random times of random episodes of the whole ring; their family ids (N,).

        By the learning encoder, for the prior.
        """
        episodes = ring.sample(max(1, min(num // 16, 256)))
        belief = self.encode(episodes, slow=False)
        time = (uniform(ring, len(episodes.length), 16) * episodes.length[:, None]).long() + 1
        mean = belief.mean.gather(1, time[..., None].expand(-1, -1, self.cfg.latent_dim))
        return mean.flatten(0, 1), episodes.family.repeat_interleave(16)

    def fit_prior(self, ring: EpisodeRing) -> PriorFit:
        """Fit the prior to latents from the whole ring. Once an epoch: updates in between leave it as it is."""
        return self.prior.fit(self.latents(ring)[0])

    # --- saving -------------------------------------------------------------------------------------------------------
    def facts(self) -> dict[str, Any]:
        """What a checkpoint must agree on."""
        return {"families": [int(f) for f in self.families], "obs_dim": self.obs_dim, "action_dim": self.action_dim}

    def state_dict(self) -> dict[str, Any]:
        """Everything that shapes the future."""
        return {
            "facts": self.facts(), "model": self.model.state_dict(), "slow": self.slow.state_dict(),
            "optimizer": self.optimizer.state_dict(), "noise": self.noise.get_state(),
            "prior": self.prior.state_dict(), "updates": self.updates, "skipped": self.skipped,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave. DataError where families or sizes are others."""
        for name, here in self.facts().items():
            if (there := state["facts"][name]) != here:
                raise DataError(f"inference: {name} is {here} here and {there} in the checkpoint")
        self.model.load_state_dict(state["model"])
        self.slow.load_state_dict(state["slow"])
        self.optimizer.load_state_dict(state["optimizer"])
        set_torch_state(self.noise, state["noise"])
        self.prior.load_state_dict(state["prior"])
        self.updates, self.skipped = int(state["updates"]), state["skipped"].to(self.device)


def family_accuracy(inference: Inference, belief: Belief, family: Any) -> float:
    """Share of agents (n,) whose likeliest family is theirs."""
    guessed = inference.family_ids(belief).cpu().numpy()
    return float(np.mean(guessed == np.asarray(family)))
