"""The toy's agent: a soft actor-critic on the state and on what is known of the task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlblocks.sac import SAC
from rlcore.seeding import derive, numpy_generator, numpy_state, set_numpy_state
from taskinfer.config import ToyConfig
from taskinfer.context import Episodes, symlog
from taskinfer.inference import Belief, Inference
from taskinfer.tasks import Family

Array = np.ndarray[Any, Any]


class Agent:
    """SAC on [symlog(s), code], where the code is what the arm knows of the task.

    inferred: mean and standard deviation of the belief; its critics are told the truth besides, unless
    `cfg.informed_critics` is off. oracle: which family, and the spec in the family's place. none: nothing.
    The policy's loss never reaches the encoder.

    Args: obs_dim, action_dim: of the toy. families: of the tasks.
    """

    def __init__(
        self, cfg: ToyConfig, obs_dim: int, action_dim: int, families: tuple[Family, ...], seed: int,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.cfg, self.device = cfg, device
        self.inference = Inference(cfg.inference, obs_dim, action_dim, families, derive(seed, "inference"), device)
        self.families = np.array(self.inference.families)
        truth = 2 * len(families)
        code = {"inferred": 2 * cfg.inference.latent_dim, "oracle": truth, "none": 0}[cfg.arm]
        private = truth if cfg.arm == "inferred" and cfg.informed_critics else 0
        self.sac = SAC(
            cfg.policy, obs_dim + code + private, action_dim, seeds=[derive(seed, "policy")], device=device,
            private=private,
        )  # fmt: skip
        self.rows = numpy_generator(seed, "policy rows")
        self.updates = 0  # of policy and encoder together

    def code(self, belief: Belief | None, family: Tensor, spec: Tensor) -> Tensor:
        """What the policy is told (..., C), of beliefs (..., L), or of families and specs (...).

        Only the arm that infers needs beliefs.
        """
        if self.cfg.arm == "inferred":
            assert belief is not None
            return belief.params()
        if self.cfg.arm == "none":
            return torch.zeros(*family.shape, 0, device=self.device)
        return self.truth(family, spec)

    def truth(self, family: Tensor, spec: Tensor) -> Tensor:
        """(..., 2 C): which family, and symlog of the spec in its place."""
        known = torch.as_tensor(self.families, device=self.device)
        of = (family[..., None] == known).float()
        return torch.cat((of, of * symlog(spec)[..., None]), -1)

    def act(self, obs: Array, code: Tensor, deterministic: bool | Array) -> Array:
        """Actions (n, da) in [-1, 1] for observations (n, ds) and codes (n, C).

        deterministic: of all, or of each (n,) bool.
        """
        if not isinstance(deterministic, bool):
            greedy, sampled = self.act(obs, code, True), self.act(obs, code, False)
            return np.where(deterministic[:, None], greedy, sampled)
        joined = torch.cat((symlog(torch.as_tensor(obs, device=self.device)), code), -1)
        return self.sac.act(joined.cpu().numpy(), deterministic)

    def experience(self, episodes: Episodes) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Inputs (B, H + 1, D), actions, rewards and lengths of episodes, encoded once for many updates.

        What only critics see comes last in the inputs.
        """
        belief = self.inference.encode(episodes) if self.cfg.arm == "inferred" else None
        shape = episodes.obs.shape[:2]
        task = episodes.family[:, None].expand(shape), episodes.spec[:, None].expand(shape)
        parts = [symlog(episodes.obs), self.code(belief, *task)]
        if self.sac.seen < self.sac.obs_dim:
            parts.append(self.truth(*task))
        return torch.cat(parts, -1), episodes.action, episodes.reward, episodes.length

    def learn_policy(self, experience: tuple[Tensor, Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
        """One update on uniform transitions. The next input holds the next belief; a time limit is no termination."""
        inputs, action, reward, length = experience
        batch = self.cfg.policy_batch
        episode = torch.from_numpy(self.rows.integers(len(length), size=batch)).to(self.device)
        share = torch.from_numpy(self.rows.random(batch)).to(self.device)
        t = (share * length[episode]).long()
        self.updates += 1
        paid = symlog(reward[episode, t]) if self.cfg.symlog_reward else reward[episode, t]
        return self.sac.update(
            {
                "obs": inputs[episode, t], "next_obs": inputs[episode, t + 1], "action": action[episode, t],
                "reward": paid, "discount": torch.full((batch,), self.cfg.gamma, device=self.device),
            }
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """Everything that shapes the future."""
        return {
            "arm": self.cfg.arm, "inference": self.inference.state_dict(), "sac": self.sac.state_dict(),
            "rows": numpy_state(self.rows), "updates": self.updates,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.inference.load_state_dict(state["inference"])
        self.sac.load_state_dict(state["sac"])
        set_numpy_state(self.rows, state["rows"])
        self.updates = int(state["updates"])


class Aimless:
    """Moves before there is a policy: a mean that is drawn anew every `hold` steps, and a little noise.

    Independent noise would only shiver around the start, where every task pays the same.
    """

    def __init__(self, num: int, action_dim: int, rng: np.random.Generator, hold: int = 25) -> None:
        self.shape, self.rng, self.hold, self.t = (num, action_dim), rng, hold, 0
        self.mean = np.zeros(self.shape, np.float32)

    def act(self) -> Array:
        """Actions (n, da) in [-1, 1]. At the mean of half the draws the point stands or creeps."""
        if self.t % self.hold == 0:
            wide = self.rng.uniform(-1.0, 1.0, self.shape)
            self.mean = np.where(self.rng.random(self.shape) < 0.5, wide, 0.2 * wide).astype(np.float32)
        self.t += 1
        noise = 0.1 * self.rng.standard_normal(self.shape, np.float32)
        return np.clip(self.mean + noise, -1.0, 1.0)
