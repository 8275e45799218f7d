"""One episode of every point of a toy, and what it was worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from taskinfer import tasks as task_rules
from taskinfer.agent import Agent
from taskinfer.envs.toy import VectorToy, obs_of
from taskinfer.inference import Belief, Stream
from taskinfer.tasks import Family, Tasks

Array = np.ndarray[Any, Any]
LOOKS = (5, 20, 40)  # steps after which the believed family is asked for


@dataclass(frozen=True)
class Rollout:
    """n episodes of H steps."""

    tasks: Tasks
    obs: Array  # (n, H + 1, ds)
    action: Array  # (n, H, da)
    reward: Array  # (n, H)
    error: Array  # (n, H) of the task, where the point truly is, in the task's unit
    family: Array  # (n, H + 1) ids of the families believed in; zeros where nothing was believed
    place: Array | None = None  # (n, H, ds) observations after each step without their noise; None without noise

    def fields(self) -> dict[str, Array]:
        """As `EpisodeRing.add` takes them; task ids are the tasks' places."""
        n, h = self.reward.shape
        return {
            "obs": self.obs, "action": self.action, "reward": self.reward, "length": np.full(n, h),
            "family": self.tasks.family, "spec": self.tasks.spec, "task_id": np.arange(n),
        }  # fmt: skip


def roll(
    env: VectorToy, agent: Agent | None, *, deterministic: bool | Array = False,
    aimless: Callable[[], Array] | None = None,
) -> Rollout:  # fmt: skip
    """Play one episode of each point: by the agent, or by `aimless` movement, which believes nothing.

    deterministic: all points, or each (n,) bool.
    """
    n, h = env.num_envs, env.horizon
    obs = np.zeros((n, h + 1, env.obs_dim), np.float32)
    action, reward = np.zeros((n, h, env.action_dim), np.float32), np.zeros((n, h), np.float32)
    family, error = np.zeros((n, h + 1), np.int64), np.zeros((n, h), np.float32)
    place = np.zeros_like(obs[:, 1:]) if env.noise_std else None
    obs[:, 0] = env.reset()
    believing = agent is not None and agent.cfg.arm == "inferred"
    stream = agent.inference.stream(n) if agent is not None else None
    truth = (torch.as_tensor(env.tasks.family), torch.as_tensor(env.tasks.spec))
    code = None
    for t in range(h):
        if aimless is not None:
            action[:, t] = aimless()
        else:
            assert agent is not None
            assert stream is not None
            if believing or code is None:
                code = agent.code(stream.belief, *(v.to(agent.device) for v in truth))
            action[:, t] = agent.act(obs[:, t], code, deterministic)
        obs[:, t + 1], reward[:, t], _, _ = env.step(action[:, t])
        error[:, t] = task_rules.error(env.tasks, env.simple_state())
        if place is not None:
            place[:, t] = obs_of(env.kind, env.simple_state())
        if believing and aimless is None:
            assert agent is not None
            assert stream is not None
            family[:, t + 1] = _believe(agent, stream, obs[:, t], reward[:, t], obs[:, t + 1])
    return Rollout(env.tasks, obs, action, reward, error, family, place)


def _believe(agent: Agent, stream: Stream, s: Array, r: Array, s2: Array) -> Array:
    belief: Belief = agent.inference.update(stream, s, r, s2)
    return agent.inference.family_ids(belief).cpu().numpy()


def score(rollout: Rollout, prefix: str, believed: bool) -> dict[str, float]:
    """Numbers of an "eval" row: returns, successes, by family too, and how often the family was known."""
    tasks, returns = rollout.tasks, rollout.reward.sum(1)
    reached = task_rules.success(tasks, rollout.error.T.copy())  # a copy: means over a view round differently
    row = {
        f"{prefix}_return": float(returns.mean()), f"{prefix}_return_median": float(np.median(returns)),
        f"{prefix}_success": float(reached.mean()),
    }  # fmt: skip
    for f in np.unique(tasks.family):
        row[f"{prefix}_return_{Family(int(f)).name}"] = float(returns[tasks.family == f].mean())
    for t in LOOKS if believed else ():
        if t < rollout.family.shape[1]:
            row[f"{prefix}_family_acc_{t}"] = float((rollout.family[:, t] == tasks.family).mean())
    return row
