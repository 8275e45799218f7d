"""Tasks by name: Meta-World's 50 and three toys, as one vector env; scripted experts. Loads no torch.

Observations (39,): hand xyz, gripper opening, two objects (xyz, quaternion; zeros where there is none), the same 18
numbers of the step before, goal xyz. Actions (4,) in [-1, 1]: shift of the hand, gripper effort. Reward 0 .. 10.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from collective.envs.single import GOALS, Array, Goals, Plan, scripted
from collective.envs.vec import TaskVec

__all__ = ["GOALS", "TaskVec", "make", "script_actions", "scripted"]


def make(
    tasks: Sequence[str], *, seed: int, copies: int = 1, first_env: int = 0, goals: Goals = "random",
    goal_seed: int = 0, horizon: int = 500, workers: int = 0, reward_version: str = "v2", render: bool = False,
    goal_hidden: bool = False,
) -> TaskVec:  # fmt: skip
    """`copies` envs of each task, numbered from `first_env` in the seeding rule.

    Args:
        seed: with (first_env + i, k) it decides episode k of env i, whatever the number of processes.
        goals: of the task's 50: "random" each episode; "cycle" through them, shared out among the task's copies; or
            "fixed", the first one.
        goal_seed: of the 50 goals, as in metaworld.MT1(task, seed).
        horizon: steps, then an episode is truncated. workers: processes; 0 steps here.
        reward_version: Meta-World's "v1" or "v2". goal_hidden: show zeros for the goal.

    Raises: UsageError for an unknown task or option, EnvironmentProblem where the simulator is missing.
    """
    plan = Plan(
        tuple(tasks), copies, seed, first_env, goals, goal_seed, horizon, reward_version, render, goal_hidden
    )  # fmt: skip
    return TaskVec(plan, workers)


def script_actions(tasks: Sequence[str], task_index: Array, obs: Array) -> Array:
    """(N, 4) float32: the scripted action for each row of obs (N, 39); row i is of tasks[task_index[i]]."""
    experts = {int(k): scripted(tasks[k]) for k in np.unique(task_index)}
    return np.array([experts[int(k)](row) for k, row in zip(task_index, obs)], np.float32).reshape(-1, 4)
