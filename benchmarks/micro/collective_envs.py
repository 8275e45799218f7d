"""collective's Meta-World beside gym.make("Meta-World/MT1"): collecting with the scripted expert, and start-up.

A turn is one episode of 500 steps, reset included, with the same goal on both sides; the unit is a step: observation,
scripted action, physics, reward, success. Before the clock starts, one episode's observations, rewards and successes
are compared, bit for bit. The peer is what the public interface gives, its warnings about large actions silenced.
Start-up is ours alone: a fresh process imports everything and opens the ten tasks of MT10 with goals in the cache; its
bar is CPU seconds, so that row's "peer" is the bar.
"""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.micro.timing import Row, Side, compare, run
from collective import envs
from collective.config import MT10
from collective.envs.goals import goals_of
from collective.envs.lean import lean_env

STEPS = 500
TASKS = ("reach-v3", "push-v3", "pick-place-v3", "door-open-v3", "window-open-v3", "peg-insert-side-v3")
START_UP = 2.0  # CPU seconds for MT10, imports included
OPENING = "from collective import envs; from collective.config import MT10; envs.make(MT10, seed=0).reset()"


def main(argv: Sequence[str] | None = None) -> int:
    packages = ("collective", "metaworld", "mujoco", "gymnasium", "numpy", "scipy")
    return run("collective_envs", "collective: environments", measure, packages, argv)


def measure(repetitions: int) -> Iterator[Row]:
    warnings.simplefilter("ignore")
    unit = "CPU time a step, scripted action included"
    for task in TASKS:
        same_numbers(task)
        peer = gym_side([task])
        yield compare(
            f"collecting: {task}", ("TaskVec, 1 env", ours_side([task])), ("gym.make, its scripted policy", peer),
            bar=2, unit=unit, repetitions=repetitions,
        )  # fmt: skip
    yield compare(
        "collecting: MT10, mean of its tasks", ("TaskVec, 10 envs", ours_side(MT10)),
        ("gym.make, its scripted policies", gym_side(MT10)), bar=2, unit=unit, repetitions=repetitions,
    )  # fmt: skip
    yield compare(
        "start-up: MT10, goals cached", ("python -c 'envs.make(MT10).reset()'", opening),
        (f"the bar: {START_UP} CPU seconds", lambda _repetition: START_UP), bar=1, unit="CPU time a start",
        repetitions=repetitions,
    )  # fmt: skip


def ours_side(tasks: Sequence[str]) -> Side:
    """Turn k is an episode with goal k of every task."""
    vec = envs.make(tasks, seed=0, goals="cycle", horizon=STEPS)
    vec.reset()

    def side(_repetition: int) -> float:
        begin = time.process_time()
        for _ in range(STEPS):
            vec.step(envs.script_actions(tasks, vec.task_index, vec.current_obs))
        return (time.process_time() - begin) / STEPS / len(tasks)

    return side


def gym_side(tasks: Sequence[str]) -> Side:
    """The same, with an env and a policy a task, stepped in turns as ours are."""
    from metaworld.policies import ENV_POLICY_MAP

    opened = [(open_gym(task), ENV_POLICY_MAP[task]()) for task in tasks]

    def side(repetition: int) -> float:
        begin, seen = time.process_time(), []
        for (env, goals), _ in opened:
            env.unwrapped.set_task(goals[repetition])
            seen.append(env.reset()[0])
        for _ in range(STEPS):
            for i, ((env, _), policy) in enumerate(opened):
                seen[i], *_ = env.step(np.clip(policy.get_action(seen[i]), -1, 1))
        return (time.process_time() - begin) / STEPS / len(tasks)

    return side


def open_gym(task: str) -> tuple[Any, Any]:
    """gym's env, which leaves the choice of the goal to us, and its 50 goals."""
    import gymnasium
    import metaworld  # noqa: F401 - registers

    env = gymnasium.make("Meta-World/MT1", env_name=task, seed=0)
    env.get_wrapper_attr("toggle_sample_tasks_on_reset")(False)
    return env, env.get_wrapper_attr("tasks")


def same_numbers(task: str) -> None:
    """An episode with the last goal, the same actions on both sides."""
    from metaworld.policies import ENV_POLICY_MAP

    (env, tasks), policy, ours = open_gym(task), ENV_POLICY_MAP[task](), lean_env(task)
    env.unwrapped.set_task(tasks[-1])
    obs = env.reset()[0]
    found = ours.begin(goals_of(task, 0)[-1])
    for _ in range(STEPS):
        assert np.array_equal(obs, found), task
        action = np.clip(policy.get_action(obs), -1, 1)
        obs, reward, *_, info = env.step(action)
        found, same, told = ours.advance(action)
        assert (reward, info["success"]) == (same, told["success"]), task


def opening(_repetition: int) -> float:
    """CPU seconds, user and system, of a process that opens MT10."""
    program = f"{OPENING}; import os; print(sum(os.times()[:2]))"
    return float(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    raise SystemExit(main())
