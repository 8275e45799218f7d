"""Fresh episodes of a task for looking at a model: planned with exploration, random, or some of each."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import numpy as np

from prismatic import envs
from prismatic.analysis.openloop import Array, Episode
from prismatic.config import TaskSpec
from prismatic.envs.tasks import TaskEnvs
from prismatic.run.saved import Saved
from rlcore.errors import EnvironmentProblem
from rlcore.seeding import derive

MAX_ENVS = 100  # at once
RANDOM = "random"
Act = Callable[[TaskEnvs, Array, bool], Array]  # envs, observations, at the start of the episodes -> actions


def shares(episodes: int, policy: str, agents: Sequence[str]) -> dict[str, int]:
    """Episodes of each collector. Several agents collect equally many, so their part is rounded up."""
    planned = {"agent": episodes, "random": 0, "mixed": episodes - episodes // 2}[policy]
    counts = {RANDOM: episodes - planned} | {name: -(-planned // len(agents)) for name in agents}
    return {name: count for name, count in counts.items() if count}


def collect(agents: dict[str, Saved], task: TaskSpec, counts: dict[str, int], seed_base: int) -> list[Episode]:
    """`counts` episodes of the task by each collector, from a stream of their own: neither training, whatever its seed,
    nor `prismatic eval` has met them. No two collectors meet the same start.

    Args: agents by collector's name; counts as from `shares`.
    """
    seed, found = derive(seed_base, "diagnosis"), list[Episode]()
    for name, count in counts.items():
        end = len(found) + count
        while (first := len(found)) < end:
            size = min(MAX_ENVS, end - first)
            act = _random if name == RANDOM else _planned(agents[name], task, seed, size, first)
            with contextlib.closing(envs.make([task], size, seed=seed, first_env=first)) as vec:
                found += play(vec, act, name)
    if not all(np.isfinite(episode.obs).all() and np.isfinite(episode.reward).all() for episode in found):
        raise EnvironmentProblem(f"{task.name} gave an observation or reward that is not finite: look at the env")
    return found


def play(vec: TaskEnvs, act: Act, collector: str) -> list[Episode]:
    """One episode of each env. An env whose episode has ended is stepped on, unheard, until the others are done."""
    seen: list[list[Array]] = [[row.copy()] for row in vec.reset()]
    actions: list[list[Array]] = [[] for _ in seen]
    rewards: list[list[float]] = [[] for _ in seen]
    running, first = np.ones(vec.num_envs, bool), True
    width = vec.tasks[0].action_dim
    while running.any():
        action = act(vec, vec.current_obs, first)
        moved, first = vec.step(action), False
        ended = moved.terminated | moved.truncated
        for env in np.flatnonzero(running).tolist():
            seen[env].append((moved.final_obs if ended[env] else moved.obs)[env].copy())
            actions[env].append(action[env, :width].astype(np.float32))
            rewards[env].append(float(moved.reward[env]))
        running &= ~ended
    columns = zip(seen, actions, rewards)
    return [Episode(np.stack(o), np.stack(a), np.array(r, np.float32), collector) for o, a, r in columns]


def _random(vec: TaskEnvs, obs: Array, first: bool) -> Array:
    return vec.sample()


def _planned(saved: Saved, task: TaskSpec, seed: int, size: int, first_env: int) -> Act:
    """The agent as it acts in training, in envs first_env .. first_env + size - 1."""
    index = [known.name for known in saved.tasks].index(task.name)
    plan = saved.agent.new_plan(size, seed, "planning", first_env=first_env)

    def act(vec: TaskEnvs, obs: Array, first: bool) -> Array:
        return saved.agent.act(obs, np.full(size, first), np.full(size, index), plan)

    return act
