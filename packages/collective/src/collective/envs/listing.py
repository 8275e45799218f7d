"""Lists of single-task Meta-World envs, one task each, as code written for mtenv and mtrl asks for them.

An env id is a task's name. Each id is given one of the task's 50 goals by chance, which its env, and copies of that,
keep for life; the map from ids to goals is returned and can be passed in again. Goals are seen, unless `goal_hidden`.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from collective.config import MT10, MT25, MT50, task_name
from collective.envs.metaworld import needed
from rlcore.errors import UsageError

Array = np.ndarray[Any, Any]
BENCHMARKS: dict[str, tuple[str, ...]] = {"MT1": (), "MT10": MT10, "MT25": MT25, "MT50": MT50}
MakeEnv = Callable[[], gymnasium.Env[Array, Array]]
HORIZON = 500


class OneGoal(gymnasium.Env[Array, Array]):
    """One task with one goal, in Meta-World's own numbers: observations (39,) float64, its info.

    `task` is a metaworld.types.Task. An episode is truncated after 500 steps; actions are cut to [-1, 1].
    """

    def __init__(self, task: Any, reward_version: str = "v2") -> None:
        needed(task.env_name)
        from collective.envs.lean import lean_env

        data = pickle.loads(task.data)
        self.task, self.goal = task, np.asarray(data["rand_vec"])
        self.raw = lean_env(task.env_name, reward_version, bool(data["partially_observable"]))
        self.observation_space = Box(self.raw._low, self.raw._high, dtype=np.float64)
        self.action_space = Box(-1.0, 1.0, (4,), np.float32)
        self.t = HORIZON

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Begin anew: always alike."""
        super().reset(seed=seed)
        self.t = 0
        return self.raw.begin(self.goal), {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """One step; info is Meta-World's, "success" and "unscaled_reward" among it."""
        if self.t >= HORIZON:
            raise gymnasium.error.ResetNeeded(f"{self.task.env_name}: reset after {HORIZON} steps")
        self.t += 1
        action = np.minimum(np.maximum(np.asarray(action, np.float32), -1.0), 1.0)
        obs, reward, info = self.raw.advance(action)
        return obs, float(reward), False, self.t == HORIZON, info


class RewardNormalizer:
    """Rewards divided by the square root of a running variance.

    m <- (1 - c) m + c r; v <- (1 - c) v + c (r - m)^2, with the new m; r' = scale r / (sqrt(v) + 1e-8). m starts at 0,
    v at 1; one update a reward.
    """

    def __init__(self, c: float = 0.001, scale: float = 1.0) -> None:
        self.c, self.scale, self.mean, self.variance = c, scale, 0.0, 1.0

    def __call__(self, reward: float) -> float:
        c = self.c
        self.mean = (1 - c) * self.mean + c * reward
        self.variance = (1 - c) * self.variance + c * (reward - self.mean) ** 2
        return float(self.scale * reward / (self.variance**0.5 + 1e-8))

    def state_dict(self) -> dict[str, float]:
        return {"mean": self.mean, "variance": self.variance}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self.mean, self.variance = float(state["mean"]), float(state["variance"])


class NormalizedReward(gymnasium.Wrapper[Array, Array, Array, Array]):
    """An env whose rewards are normalised; the raw one is info["unscaled_reward"]. `normalizer` is to be saved."""

    def __init__(self, env: gymnasium.Env[Array, Array], c: float = 0.001, scale: float = 1.0) -> None:
        super().__init__(env)
        self.normalizer = RewardNormalizer(c, scale)

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        return obs, self.normalizer(float(reward)), terminated, truncated, {**info, "unscaled_reward": float(reward)}


def get_list_of_envs(*args: Any, **options: Any) -> tuple[list[gymnasium.Env[Array, Array]], dict[str, Any]]:
    """The envs that `get_list_of_func_to_make_envs`, of the same arguments, has the constructors of; and the map."""
    makers, tasks = get_list_of_func_to_make_envs(*args, **options)
    return [make() for make in makers], tasks


def get_list_of_func_to_make_envs(
    benchmark: Any, benchmark_name: str, env_id_to_task_map: Mapping[str, Any] | None = None,
    should_perform_reward_normalization: bool = True, task_name: str = "pick-place-v3", num_copies_per_env: int = 1, *,
    seed: int | None = None, goal_seed: int = 0, goal_hidden: bool = False, reward_version: str = "v2",
) -> tuple[list[MakeEnv], dict[str, Any]]:  # fmt: skip
    """Constructors of a benchmark's envs, each id's copies one after the other, and the map from ids to tasks.

    Args:
        benchmark: a metaworld benchmark, whose train_tasks are chosen from; None: the goals of metaworld.MT1(task,
            goal_seed). benchmark_name: "MT1" (which is the one task `task_name`), "MT10", "MT25" or "MT50".
        env_id_to_task_map: used as it is; None: one task an id by chance, decided by `seed` (None: another each time).
        should_perform_reward_normalization: see `RewardNormalizer`; each copy has its own.
        goal_hidden: show zeros for the goal, as the old MT1, which was an ML1, did; of a map given, its tasks say.

    Raises: ValueError for an unknown benchmark, UsageError for an unknown task, one missing from the map, or no copies.
    """
    if benchmark_name not in BENCHMARKS:
        raise ValueError(f"unknown benchmark {benchmark_name!r}: expected one of {', '.join(BENCHMARKS)}")
    if num_copies_per_env < 1:
        raise UsageError(f"num_copies_per_env must be at least 1, got {num_copies_per_env}")
    ids = _ids(benchmark, benchmark_name, task_name)
    if env_id_to_task_map is None:
        chosen = _choose(ids, benchmark, seed, goal_seed, goal_hidden)
    else:
        chosen = dict(env_id_to_task_map)
        if missing := [name for name in ids if name not in chosen]:
            raise UsageError(f"env_id_to_task_map has no task for {', '.join(missing)}")
    make = functools.partial(_open, reward_version=reward_version, normalize=should_perform_reward_normalization)
    return [functools.partial(make, chosen[name]) for name in ids for _ in range(num_copies_per_env)], chosen


def _ids(benchmark: Any, benchmark_name: str, name: str) -> Sequence[str]:
    if benchmark is not None:
        return list(benchmark.train_classes)
    return BENCHMARKS[benchmark_name] or [task_name(name)]


def _choose(ids: Sequence[str], benchmark: Any, seed: int | None, goal_seed: int, goal_hidden: bool) -> dict[str, Any]:
    """A metaworld.types.Task for each id."""
    needed(ids[0])
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    from metaworld.types import Task

    from collective.envs.goals import goals_of

    rng, chosen = np.random.default_rng(seed), {}
    for name in ids:
        if benchmark is None:
            goal = rng.choice(goals_of(name, goal_seed))
        else:
            tasks = [task for task in benchmark.train_tasks if task.env_name == name]
            goal = pickle.loads(tasks[rng.integers(len(tasks))].data)["rand_vec"]
        data = {"rand_vec": goal, "env_cls": ALL_V3_ENVIRONMENTS[name], "partially_observable": goal_hidden}
        chosen[name] = Task(name, pickle.dumps(data))
    return chosen


def _open(task: Any, *, reward_version: str, normalize: bool) -> gymnasium.Env[Array, Array]:
    env = OneGoal(task, reward_version)
    return NormalizedReward(env) if normalize else env
