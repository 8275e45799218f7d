"""Who sets a body's sub-goals: the toy's policy, the same without its belief, chance, or the truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch

from taskinfer import tasks as task_rules
from taskinfer.agent import Agent
from taskinfer.envs.bodies import GROUP_NAMES, SubGoal
from taskinfer.envs.toy import advance, obs_of, state_of
from taskinfer.inference import Belief
from taskinfer.tasks import State, Tasks

Array = np.ndarray[Any, Any]
TOY_REACH = 0.5  # m that the toy's full action takes it
Limits = Mapping[str, float]  # largest size of a sub-goal, by group: m, m/s, rad, m/s


class HighLevel(Protocol):
    """Anything that sets sub-goals. Only an oracle may look at the truth."""

    def propose(self, state: State, belief: Belief, truth: Tasks) -> SubGoal:
        """Sub-goals of n bodies whose simple states (n,) and beliefs (n, ...) these are."""


class ToyPolicy:
    """What the toy's policy would do there, as a sub-goal: where its action leads, or at what speed.

    The likeliest group of families says which of them is meant. Probabilities of a group's families are added up.

    Args:
        kind: of the toy. limits: whatever is asked for stays within them; their keys are the groups that can be.
        reach: m that its full action asks the body to go.
        zeroed: the policy is told zeros in place of the belief; the group is still chosen by the belief.
        sample: its actions are drawn, not their means.
    """

    def __init__(
        self, agent: Agent, kind: str, limits: Limits, reach: float, zeroed: bool = False, sample: bool = False
    ) -> None:
        self.agent, self.kind, self.limits, self.reach = agent, kind, limits, reach
        self.zeroed, self.sample = zeroed, sample
        groups = [GROUP_NAMES.index(task_rules.kind(family)) for family in agent.inference.families]
        self._group = np.array(groups)  # (C,) group of each family
        self._share = np.eye(len(GROUP_NAMES))[self._group]  # (C, G)

    def propose(self, state: State, belief: Belief, truth: Tasks) -> SubGoal:
        obs = obs_of(self.kind, state)
        code = belief.params()
        if self.zeroed:
            code = torch.zeros_like(code)
        action = np.clip(self.agent.act(obs, code, deterministic=not self.sample), -1.0, 1.0)
        then = state_of(self.kind, advance(self.kind, obs.T, action.T).T)
        step = (then.x - obs[:, 0]) * (self.reach / TOY_REACH)
        means = {"goal": step, "velocity": then.vx, "stand": then.pitch, "jump": np.abs(then.vz)}
        probability = torch.softmax(belief.family_logits, -1).cpu().numpy()
        group: Array = (probability @ self._share).argmax(1)
        value = np.stack([means[name] for name in GROUP_NAMES])[group, np.arange(len(group))]
        return within(SubGoal(group, value.astype(np.float64)), self.limits)


class RandomGoals:
    """A group by equal chances and a size uniform up to its limit, drawn anew at each decision."""

    def __init__(self, limits: Limits, rng: np.random.Generator) -> None:
        self.limits, self.rng = limits, rng
        self._groups = np.array([GROUP_NAMES.index(name) for name in limits])
        self._high = np.array(list(limits.values()))
        self._low = np.where(self._groups == GROUP_NAMES.index("jump"), 0.0, -self._high)  # a size, without a sign

    def propose(self, state: State, belief: Belief, truth: Tasks) -> SubGoal:
        pick = self.rng.integers(len(self._groups), size=len(truth))
        return SubGoal(self._groups[pick], self.rng.uniform(self._low[pick], self._high[pick]))


class Oracle:
    """The true task as the sub-goal: the most that this low level can make of it."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits

    def propose(self, state: State, belief: Belief, truth: Tasks) -> SubGoal:
        group = np.array([GROUP_NAMES.index(task_rules.kind(family)) for family in truth.family])
        asked = SubGoal(group, truth.spec.astype(np.float64), "absolute").relative(state.x)
        return within(asked, {"goal": self.limits.get("goal", np.inf)})


def within(subgoal: SubGoal, limits: Limits) -> SubGoal:
    """The same, no larger than the limits; goals must be relative."""
    size = np.array([limits.get(name, np.inf) for name in GROUP_NAMES])[subgoal.group]
    return SubGoal(subgoal.group, np.clip(subgoal.value, -size, size), subgoal.frame)
