"""Tasks by name: Meta-World's 50 and three toys, as one vector env; scripted experts. Loads no torch.

Observations (39,): hand xyz, gripper opening, two objects (xyz, quaternion; zeros where there is none), the same 18
numbers of the step before, goal xyz. Actions (4,) in [-1, 1]: shift of the hand, gripper effort. Reward 0 .. 10.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np

from collective.config import task_name
from collective.envs.single import GOALS, Array, Goals, Plan, scripted, unclipped
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
    experts = _experts(tuple(tasks))
    actions = np.empty((len(obs), 4), np.float32)
    for i, (k, row) in enumerate(zip(task_index.tolist(), obs.astype(np.float64))):
        actions[i] = experts[k](row)
    np.minimum(np.maximum(actions, -1.0, out=actions), 1.0, out=actions)
    return actions


@functools.cache
def _experts(tasks: tuple[str, ...]) -> list[Callable[[Array], Array]]:
    return [unclipped(task_name(task)) for task in tasks]
