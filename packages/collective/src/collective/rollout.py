"""Policies in envs: one loop for evaluations, films and data, so that nothing is seen a step late in one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from collective.envs import TaskVec, script_actions
from collective.windows import Rolling

Array = np.ndarray[Any, Any]


MAX_ENVS = 100  # at once: an env of Meta-World takes about 20 MiB


def copies_of(episodes: int, tasks: int, wanted: int = 10, most: int = MAX_ENVS) -> int:
    """Envs of each task that play `episodes` episodes in equal parts: at most `wanted`, and `most` in all if it can be.

    A divisor of the number, so that each of a task's goals is met as often as any other.
    """
    limit = max(1, min(wanted, episodes, most // tasks))
    return next(count for count in range(limit, 0, -1) if episodes % count == 0)


class Acting(Protocol):
    """Who acts. `rolling` holds the episodes so far, `task` (N,) the env's numbers of the tasks."""

    def act(self, obs: Array, rolling: Rolling, task: Array) -> Array: ...  # (N, 39) -> (N, 4) in [-1, 1]


@dataclass(frozen=True)
class Scripted:
    """The scripted experts of `tasks`."""

    tasks: tuple[str, ...]

    def act(self, obs: Array, rolling: Rolling, task: Array) -> Array:
        return script_actions(self.tasks, task, obs)


@dataclass
class Chance:
    """Uniform random actions."""

    rng: np.random.Generator

    def act(self, obs: Array, rolling: Rolling, task: Array) -> Array:
        return self.rng.uniform(-1.0, 1.0, (len(obs), 4)).astype(np.float32)


@dataclass(frozen=True)
class Played:
    """E episodes."""

    task: Array  # (E,) into the envs' tasks
    goal: Array  # (E,)
    returns: Array  # (E,)
    lengths: Array  # (E,) steps
    success: Array  # (E,) bool, at any step
    final: Array  # (E,) bool, at the last step
    first: Array  # (E,) step of the first success, counted from 1; 0 where there was none


def play(
    policy: Acting, envs: TaskVec, episodes: int, *, stop_after_success: int | None = None,
    show: Callable[[int, str], None] = lambda done, remark: None, watch: Callable[[], None] = lambda: None,
) -> Played:  # fmt: skip
    """`episodes` episodes of each env; what an env does after them is not heard.

    stop_after_success: end an episode so many steps after its first success. watch: called before each step.
    """
    n = envs.num_envs
    rolling, rows = Rolling(n), list[tuple[int, int, float, int, bool, bool, int]]()
    total, length, first, played = np.zeros(n), np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)
    obs = envs.reset()
    rolling.begin(obs)
    while (played < episodes).any():
        watch()
        goal = envs.goal_id.copy()
        action = policy.act(obs, rolling, envs.task_index)
        since = length - first  # steps since the first success
        stop = None if stop_after_success is None else (first > 0) & (since + 1 >= stop_after_success)
        moved = envs.step(action, stop=stop)
        ended = moved.terminated | moved.truncated
        rolling.advance(action, moved.reward, moved.obs, ended)
        total, length = total + moved.reward, length + 1
        success = moved.info["success"]
        first = np.where((first == 0) & success, length, first)
        for i in np.flatnonzero(ended):
            if played[i] < episodes:
                at = int(first[i])
                row = (int(envs.task_index[i]), int(goal[i]), float(total[i]), int(length[i]), at > 0)
                rows.append((*row, bool(success[i]), at))
        played += ended
        total[ended], length[ended], first[ended] = 0.0, 0, 0
        if ended.any():
            show(len(rows), f"{np.mean([row[4] for row in rows]):.0%} succeed")
        obs = moved.obs
    columns = [np.array(column) for column in zip(*rows)]
    return Played(*columns)


def wilson(successes: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % interval of a success rate (Wilson 1927): never empty, not even where all succeed."""
    rate, square = successes / count, z * z / count
    middle = (rate + square / 2) / (1 + square)
    half = z * np.sqrt(rate * (1 - rate) / count + square / (4 * count)) / (1 + square)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def scores(played: Played, tasks: tuple[str, ...], whole: bool = True) -> dict[str, dict[str, Any]]:
    """What each task came to. Not `whole`: episodes ended with their success, so there is no last step to speak of."""
    found = {}
    for t, task in enumerate(tasks):
        own = played.task == t
        low, high = wilson(int(played.success[own].sum()), int(own.sum()))
        times = played.first[own & played.success]
        found[task] = {
            "episodes": int(own.sum()), "success": float(played.success[own].mean()), "low": low, "high": high,
            "success_final": float(played.final[own].mean()) if whole else None,
            "return_mean": float(played.returns[own].mean()) if whole else None,
            "steps_to_success": float(np.median(times)) if len(times) else None,
        }  # fmt: skip
    return found
