"""Skills in N envs: which one each env is in the middle of, and the transition it becomes when it is over.

A transition is (state at the decision, skill, reward of exactly its steps, state at the next decision, terminated,
steps). A skill is over after H steps or with its episode; a time limit is no termination.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlcore.buffer import Field, ReplayBuffer
from rlcore.vecenv import VecStep

Array = np.ndarray[Any, Any]
Transitions = dict[str, Array]


class Rollout:
    """Where N envs are in their skills.

    Args:
        horizon: H, env steps of a skill.
        gamma: discounts the rewards within a skill by env steps; 1 adds them up.
        proposals: width of `proposal`, (N, proposals): what is stored beside the state at the decision, set by the
            owner before `begin`.
    """

    def __init__(
        self, num_envs: int, obs_dim: int, skill_dim: int, horizon: int, gamma: float = 1.0, proposals: int = 0
    ) -> None:
        self.num_envs, self.horizon, self.gamma = num_envs, horizon, gamma
        self.obs = np.zeros((num_envs, obs_dim), np.float32)  # at the decision
        self.z = np.zeros((num_envs, skill_dim), np.float32)
        self.proposal = np.zeros((num_envs, proposals), np.float32)
        self.reward = np.zeros(num_envs)  # of the steps so far
        self.steps = np.zeros(num_envs, np.int64)
        self.over = np.ones(num_envs, bool)  # a skill is asked for

    def asking(self) -> Array:
        """(n,) numbers of the envs that need a skill before the next step."""
        return np.flatnonzero(self.over)

    def begin(self, envs: Array, obs: Array, z: Array) -> None:
        """Start skills z (n, Z) in those envs (n,), whose observations (n, S) these are."""
        assert self.over[envs].all(), envs
        self.obs[envs], self.z[envs] = obs, z
        self.reward[envs], self.steps[envs], self.over[envs] = 0.0, 0, False

    def advance(self, step: VecStep) -> Transitions | None:
        """Count one step of all envs. Returns the transitions of the skills that it ended, if any: "env" (n,) and
        obs, next_obs (n, S), z (n, Z), proposal (n, P), reward (n,) float32, terminated, done (n,) bool and steps (n,).
        """
        assert not self.over.any(), "a skill is missing"
        self.reward += self.gamma**self.steps * step.reward
        self.steps += 1
        done = step.terminated | step.truncated
        np.logical_or(done, self.steps == self.horizon, out=self.over)
        envs = np.flatnonzero(self.over)
        if not envs.size:
            return None
        next_obs = np.where(done[envs, None], step.final_obs[envs], step.obs[envs])
        return {
            "env": envs, "obs": self.obs[envs], "next_obs": next_obs, "z": self.z[envs],
            "proposal": self.proposal[envs], "reward": self.reward[envs].astype(np.float32),
            "terminated": step.terminated[envs].copy(), "steps": self.steps[envs], "done": done[envs],
        }  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """Everything that shapes the future."""
        return {name: getattr(self, name).copy() for name in ("obs", "z", "proposal", "reward", "steps", "over")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        for name, value in state.items():
            getattr(self, name)[...] = np.asarray(value)


def discount_of(terminated: Tensor, steps: Tensor, gamma: float, horizon: int) -> Tensor:
    """gamma^(steps / H) (1 - terminated), (B,): gamma for a whole skill. H = 1 gives gamma^steps, semi-Markov."""
    return gamma ** (steps.float() / horizon) * (~terminated).float()


class Experience:
    """Transitions of skills, the newest `capacity` of them.

    Args:
        gamma, horizon: of `discount_of`.
        guided: what the prior says is stored beside each state: it never changes, and each row is drawn many times.
        rng: draws the batches; its state is saved with the data.
    """

    def __init__(
        self, capacity: int, obs_dim: int, skill_dim: int, *, gamma: float, horizon: int, guided: bool,
        rng: np.random.Generator, device: str | torch.device = "cpu",
    ) -> None:  # fmt: skip
        self.gamma, self.horizon = gamma, horizon
        wide, one = Field((obs_dim,)), Field()
        fields = {"obs": wide, "next_obs": wide, "z": Field((skill_dim,)), "reward": one, "steps": one}
        fields |= {"terminated": Field((), "bool")}
        if guided:
            fields |= {name: Field((2 * skill_dim,)) for name in ("proposal", "next_proposal")}
        self.buffer = ReplayBuffer(fields, capacity, device=device, rng=rng)

    def __len__(self) -> int:
        return len(self.buffer)

    def add(self, rows: Transitions) -> None:
        """Store n transitions as `Rollout.advance` gives them; where guided, "next_proposal" (n, 2Z) beside them."""
        values = {name: rows[name] for name in self.buffer.fields if name != "steps"}
        values["steps"] = rows["steps"].astype(np.float32)
        for i in range(len(rows["env"])):
            self.buffer.add(**{name: value[i : i + 1] for name, value in values.items()})

    def sample(self, batch: int) -> dict[str, Tensor]:
        """`batch` transitions, uniformly, with their discount; valid until the next call."""
        rows = self.buffer.sample(batch)
        rows["discount"] = discount_of(rows.pop("terminated"), rows.pop("steps"), self.gamma, self.horizon)
        return rows

    def kept(self) -> dict[str, Array]:
        """Copies of obs (n, S) and z (n, Z) of all that is kept, in no order of time."""
        where = np.arange(len(self.buffer))
        rows = self.buffer.windows(where, np.zeros_like(where), 1)
        return {name: rows[name][0].cpu().numpy().copy() for name in ("obs", "z")}

    def save(self, folder: Path) -> dict[str, Any]:
        """Append what is new to files in `folder`; returns the cursor for `load`."""
        return self.buffer.save(folder)

    def load(self, folder: Path, cursor: Mapping[str, Any]) -> None:
        """Put back what `save` described. DataError where files are damaged or belong to another configuration."""
        self.buffer.load(folder, cursor)

    def prune(self, folder: Path, keep: Iterable[Mapping[str, Any]]) -> None:
        """Delete the files that no cursor in `keep` needs."""
        self.buffer.prune(folder, keep)


class Components:
    """The mixture's component of a skill, as `mixture.predict` gives it, without fitting its terms anew each time."""

    def __init__(self, mixture: Any) -> None:
        self.mixture, self.number = mixture, mixture.num_components
        self._weights = mixture.bound.log_weights(mixture.stats).T

    def of(self, z: Array) -> Array:
        """(n,) int64 for skills (n, Z)."""
        points = torch.as_tensor(z).to(self.mixture.shift) - self.mixture.shift
        return np.asarray((self.mixture.bound.features(points) @ self._weights).argmax(1).cpu())


class Usage:
    """How often each of K components was chosen, and which followed which within an episode."""

    def __init__(self, components: Components, num_envs: int) -> None:
        self.components, k = components, components.number
        self.counts = np.zeros(k, np.int64)
        self.recent = np.zeros(k, np.int64)  # counts since the last `row`
        self.transitions = np.zeros((k, k), np.int64)  # [from, to]
        self.last = np.full(num_envs, -1)  # component of each env's last skill; -1: its episode has just begun

    def saw(self, envs: Array, z: Array) -> Array:
        """Count the skills z (n, Z) that begin in those envs (n,); returns their components (n,)."""
        now, before = self.components.of(z), self.last[envs]
        for counts in (self.counts, self.recent):
            np.add.at(counts, now, 1)
        np.add.at(self.transitions, (before[before >= 0], now[before >= 0]), 1)
        self.last[envs] = now
        return now

    def ended(self, envs: Array) -> None:
        """The episodes of those envs are over."""
        self.last[envs] = -1

    def row(self) -> dict[str, Any]:
        """Of the choices since the last row: the counts (K,), how many components make up 95 % of them, and their
        entropy in nats.
        """
        recent, self.recent = self.recent, np.zeros_like(self.recent)
        if not recent.any():
            return {}
        share = np.sort(recent)[::-1] / recent.sum()
        entropy = -(share[share > 0] * np.log(share[share > 0])).sum()
        used = int((share.cumsum() - share < 0.95)[share > 0].sum())
        return {"component_counts": recent.tolist(), "components_used": used, "component_entropy": float(entropy)}

    def state_dict(self) -> dict[str, Any]:
        """Everything that shapes the future."""
        return {name: getattr(self, name).copy() for name in ("counts", "recent", "transitions", "last")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        for name, value in state.items():
            getattr(self, name)[...] = np.asarray(value)
