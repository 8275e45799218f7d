"""Meta-World as it is installed, beside which collective's adapter is checked."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class Upstream:
    """One task's own class and its own expert."""

    def __init__(self, task: str, reward_version: str = "v2", goal_hidden: bool = False) -> None:
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS
        from metaworld.policies import ENV_POLICY_MAP

        self.task, self.goal_hidden, self.cls = task, goal_hidden, ALL_V3_ENVIRONMENTS[task]
        self.env = self.cls(reward_function_version=reward_version)
        self.policy = ENV_POLICY_MAP[task]()

    def begin(self, goal: Array) -> Array:
        from metaworld.types import Task

        data = {"env_cls": self.cls, "rand_vec": goal, "partially_observable": self.goal_hidden}
        self.env.set_task(Task(self.task, pickle.dumps(data)))
        return np.asarray(self.env.reset()[0])

    def expert(self, obs: Array) -> Array:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "Constant(s) may be too high"
            return np.clip(self.policy.get_action(obs), -1, 1)


def compared(task: str, goals: Array, steps: int, reward_version: str = "v2", goal_hidden: bool = False) -> int:
    """Step both with the same actions, every other episode with noise. All must be equal; returns successes."""
    from collective.envs.lean import lean_env

    theirs, ours = Upstream(task, reward_version, goal_hidden), lean_env(task, reward_version, goal_hidden)
    rng, successes = np.random.default_rng(0), 0
    for k, goal in enumerate(goals):
        obs = theirs.begin(goal)
        np.testing.assert_array_equal(ours.begin(goal), obs, err_msg=f"{task}, first observation")
        for t in range(steps):
            action = theirs.expert(obs)
            if k % 2:
                action = np.clip(action + 0.6 * rng.normal(size=4), -1, 1).astype(np.float32)
            obs, reward, _, _, info = theirs.env.step(action)
            same, earned, told = ours.advance(action)
            np.testing.assert_array_equal(same, obs, err_msg=f"{task}, step {t}")
            assert (earned, told) == (reward, info), (task, t)
            successes += bool(info["success"])
    return successes
