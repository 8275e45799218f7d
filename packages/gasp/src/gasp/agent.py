"""The high-level agent: soft actor-critic in the space of skills, held near the skill prior by a divergence.

Pertsch et al. 2020, arXiv:2010.11944, algorithm 1. `B` rows of a batch, `E` critics, `S` observation dimensions, `Z`
skill dimensions. The policy is a Gaussian over a, the skill is z = squash(a); a divergence between policy and prior is
the same before and after that bijection, so it is taken before.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from gasp.config_rl import AgentConfig
from gasp.model import SkillModel
from rlblocks.gaussians import kl, tanh_gaussian
from rlblocks.sac import Adam, actor_loss, critic_loss, soft_td_target, temperature_loss
from rlblocks.stacked import Stacked
from rlcore.errors import UsageError
from rlcore.nets import polyak_
from rlcore.seeding import numpy_generator, numpy_state, set_numpy_state, set_torch_state, torch_generator

Array = np.ndarray[Any, Any]
How = Literal["policy", "mean", "prior", "uniform"]
KL_LIMIT = 100.0  # nats, as published
LEAST_RANGE = 3.0  # of the squashing: three standard deviations of a standard normal


class Squash(NamedTuple):
    """z = scale * tanh(a / width)."""

    scale: float
    width: float

    def __call__(self, a: Tensor) -> Tensor:
        return self.scale * torch.tanh(a / self.width)


def make_squash(cfg: AgentConfig, mixture: Any = None) -> Squash:
    """The squashing that the options ask for.

    Published: 2 tanh(a), which stretches what the prior proposes (slope 2) and reaches no skill beyond 2. By default
    c tanh(a / c), slope 1, with c = max(3, 1.25 max_kd (|mu_kd| + 2 sigma_kd)) over the components of the mixture.
    """
    if cfg.squash == "spirl":
        return Squash(2.0, 1.0)
    reach = LEAST_RANGE
    if cfg.squash_range is not None:
        reach = cfg.squash_range
    elif mixture is not None:
        reach = max(reach, 1.25 * float((mixture.means.abs() + 2.0 * mixture.variances.sqrt()).max()))
    return Squash(reach, reach)


class Choice(NamedTuple):
    """A skill drawn from the policy in each of some states."""

    z: Tensor  # (B, Z)
    cost: Tensor  # (B,) nats


class Agent:
    """Policy, critics, temperature, and their learning.

    Args:
        model: trained; it is never changed. The policy begins as a copy of its prior p(z | s), or, with the regulariser
            entropy, as a net of the same shape that knows nothing.
        squash: from what the policy draws to skills.
        seed: decides weights, exploration and the noise of updates.
    """

    def __init__(
        self, cfg: AgentConfig, model: SkillModel, squash: Squash, seed: int = 0, device: str | torch.device = "cpu"
    ) -> None:
        self.cfg, self.squash, self.guided = cfg, squash, cfg.regulariser == "prior"
        self.skill_dim, self.device = model.cfg.latent_dim, torch.device(device)
        self.model = copy.deepcopy(model).to(self.device).eval().requires_grad_(False)
        self.actor = copy.deepcopy(self.model)
        del self.actor.encoder, self.actor.decoder  # what is left is the prior
        self.actor.requires_grad_(True)
        weights = torch_generator(seed, "weights")
        if not self.guided:
            forget(self.actor, weights)
        sizes, each = [model.obs_dim + self.skill_dim, *cfg.critic_hidden, 1], [weights] * cfg.critics
        self.critic, self.target = (Stacked(sizes, each, device=self.device) for _ in range(2))
        polyak_([self.target.parameters], [self.critic.parameters], 1.0)
        entropy = -float(self.skill_dim) if cfg.target_entropy is None else cfg.target_entropy
        self.target_cost = cfg.divergence if self.guided else -entropy
        self.log_alpha = torch.tensor(math.log(cfg.alpha), device=self.device, requires_grad=True)
        self.critic_adam = Adam([(self.critic.parameters, cfg.critic_lr)])
        learnt: list[tuple[Tensor, float]] = [(p, cfg.actor_lr) for p in self.actor.parameters()]
        self.actor_adam = Adam([*learnt, *[(self.log_alpha, cfg.alpha_lr)] * cfg.learn_alpha])
        self.noise = torch_generator(seed, "updates", device=str(self.device))
        self.exploration = numpy_generator(seed, "exploration")
        self.updates = 0

    # --- acting -------------------------------------------------------------------------------------------------------
    @torch.inference_mode()
    def choose(self, obs: Array, how: How, rng: np.random.Generator | None = None) -> Array:
        """Skills (n, Z) for observations (n, S).

        policy: drawn from it. mean: its mean. prior: drawn from the prior. uniform: over all skills there are.
        rng: draws them; the agent's own where None.
        """
        rng, shape = rng or self.exploration, (len(obs), self.skill_dim)
        if how == "uniform":
            return np.asarray(rng.uniform(-self.squash.scale, self.squash.scale, shape), np.float32)
        net = self.model if how == "prior" else self.actor
        a, log_std = net.prior(torch.as_tensor(obs, device=self.device))
        if how != "mean":
            noise = torch.from_numpy(rng.standard_normal(shape, np.float32)).to(self.device)
            a = a + log_std.exp() * noise
        return np.asarray(self.squash(a).cpu())

    @torch.inference_mode()
    def proposal(self, obs: Array) -> Array:
        """What the prior says in states (n, S), to be stored with them: mean and log_std side by side (n, 2Z)."""
        return np.asarray(torch.cat(self.model.prior(torch.as_tensor(obs, device=self.device)), -1).cpu())

    @torch.inference_mode()
    def act(self, obs: Array, z: Array) -> Array:
        """The frozen decoder's actions (n, A) in [-1, 1] for observations (n, S) and skills (n, Z)."""
        action = self.model.decode(*(torch.as_tensor(x, device=self.device) for x in (obs, z)))
        return np.asarray(action.clamp_(-1.0, 1.0).cpu())

    # --- learning -----------------------------------------------------------------------------------------------------
    def draw(self, obs: Tensor, noise: Tensor, proposal: Tensor | None) -> Choice:
        """A skill of the policy in states (B, S) and what it costs: D(policy || prior), or log pi.

        The density is of tanh(a / width), in [-1, 1], so that a wanted entropy means the same whatever the scale.
        """
        mean, log_std = self.actor.prior(obs)
        if self.guided:
            assert proposal is not None
            cost = kl(mean, log_std, *proposal.chunk(2, -1)).clamp(-KL_LIMIT, KL_LIMIT)
            return Choice(self.squash(mean + log_std.exp() * noise), cost)
        unit, log_prob = tanh_gaussian(mean / self.squash.width, log_std - math.log(self.squash.width), noise)
        return Choice(self.squash.scale * unit, log_prob)

    def q(self, critic: Stacked, obs: Tensor, z: Tensor, frozen: bool = False) -> Tensor:
        """Values (E, B) of skills (B, Z) in states (B, S), which critics see as the skill model does: normalised."""
        return critic(torch.cat((self.model.normalized(obs), z), -1)[None], frozen).squeeze(-1)

    def update(self, batch: Mapping[str, Tensor], noise: Tensor | None = None) -> dict[str, Tensor]:
        """One step of critics, actor and temperature. Waits for no device.

        Args:
            batch: obs, next_obs (B, S), z (B, Z), reward, discount (B,); with the regulariser prior also proposal and
                next_proposal (B, 2Z), from `proposal`. discount is 0 where the task ended, not where time was up.
            noise: (2, B, Z) standard normal, for the skills in obs and in next_obs; drawn where None.
        Returns: metrics, () each, detached.
        """
        obs, next_obs, alpha = batch["obs"], batch["next_obs"], self.log_alpha.detach().exp()
        if noise is None:
            noise = torch.randn(2, len(obs), self.skill_dim, generator=self.noise, device=self.device)
        self.updates += 1
        with torch.no_grad():
            later = self.draw(next_obs, noise[1], batch.get("next_proposal"))
            next_q = self.q(self.target, next_obs, later.z)
            target = soft_td_target(batch["reward"], batch["discount"], next_q, later.cost, alpha)
        q = self.q(self.critic, obs, batch["z"])
        of_critics = critic_loss(q, target)
        self.critic_adam.step(of_critics)

        now = self.draw(obs, noise[0], batch.get("proposal"))
        of_actor = actor_loss(self.q(self.critic, obs, now.z, frozen=True), now.cost, alpha)
        loss = of_actor
        if self.cfg.learn_alpha:
            loss = loss + temperature_loss(self.log_alpha, now.cost, self.target_cost)
        self.actor_adam.step(loss)
        polyak_([self.target.parameters], [self.critic.parameters], self.cfg.tau)
        cost = "divergence" if self.guided else "neg_entropy"
        return {
            "critic_loss": of_critics.detach(), "actor_loss": of_actor.detach(), "q": q.detach().mean(),
            cost: now.cost.detach().mean(), "alpha": alpha,
        }  # fmt: skip

    # --- saving -------------------------------------------------------------------------------------------------------
    def tensors(self) -> dict[str, Tensor]:
        """What is learnt, without the optimisers: live, not copies."""
        nets = {f"actor.{name}": value for name, value in self.actor.state_dict().items()}
        return {
            **nets, "critic": self.critic.parameters.detach(), "target": self.target.parameters.detach(),
            "log_alpha": self.log_alpha.detach(),
        }  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """Everything that shapes the future."""
        return {
            "tensors": self.tensors(), "squash": list(self.squash), "actor_adam": self.actor_adam.state,
            "critic_adam": self.critic_adam.state, "noise": self.noise.get_state(),
            "exploration": numpy_state(self.exploration), "updates": self.updates,
        }  # fmt: skip

    def load_nets(self, state: Mapping[str, Any]) -> None:
        """Of what `state_dict` gave, put back what acting needs. UsageError where shapes or the squashing differ."""
        mine = self.tensors()
        if mine.keys() != state["tensors"].keys():
            raise UsageError("the saved agent has other nets than this skill run's prior")
        for name, tensor in mine.items():
            saved = state["tensors"][name]
            if tensor.shape != saved.shape:
                raise UsageError(f"the saved agent has {name} {tuple(saved.shape)}, this one {tuple(tensor.shape)}")
            tensor.copy_(saved)
        if not np.allclose(state["squash"], self.squash):
            raise UsageError(f"the saved agent squashes by {state['squash']}, this one by {list(self.squash)}")

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave. UsageError as `load_nets`."""
        self.load_nets(state)
        for optimizer in ("actor_adam", "critic_adam"):
            for name, tensors in getattr(self, optimizer).state.items():
                for tensor, value in zip(tensors, state[optimizer][name]):
                    tensor.copy_(value)
        set_torch_state(self.noise, state["noise"])
        set_numpy_state(self.exploration, state["exploration"])
        self.updates = int(state["updates"])


def forget(net: nn.Module, generator: torch.Generator) -> None:
    """Weights of linear layers by Xavier's rule, biases 0; norms as new (Glorot and Bengio 2010)."""
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight, generator=generator)
            if layer.bias is not None:  # none before a norm
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.LayerNorm | nn.BatchNorm1d):
            layer.reset_parameters()
