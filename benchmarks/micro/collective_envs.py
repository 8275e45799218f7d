"""collective's Meta-World beside gym.make("Meta-World/MT1"): collecting with the scripted expert, and start-up.

A turn is 500 steps of each task, in episodes with the same goals on both sides; the unit is a step: observation,
scripted action, physics, reward, success, and its share of the resets. Episodes end as those of `collective record` do,
10 steps after the first success or after 200 steps; and, for comparison, after 500 steps: then most steps are those of
an expert that is done and goes on pressing, which are mujoco's alone. Before the clock starts, 500 steps are compared,
bit for bit. The peer is what the public interface gives, its warnings about large actions silenced. Start-up is ours
alone: a fresh process imports everything and opens the ten tasks of MT10, scenes and goals in the cache; its bar is CPU
seconds, so that row's "peer" is the bar.
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

STEPS = 500  # of each task in a turn
RECORDED, WHOLE = (200, 10), (500, 500)  # longest episode; steps after the first success
TASKS = ("reach-v3", "push-v3", "pick-place-v3", "door-open-v3", "window-open-v3", "peg-insert-side-v3")
START_UP = 2.0  # CPU seconds for MT10, imports included
OPENING = "from collective import envs; from collective.config import MT10; envs.make(MT10, seed=0).reset()"


def main(argv: Sequence[str] | None = None) -> int:
    packages = ("collective", "metaworld", "mujoco", "gymnasium", "numpy", "scipy")
    return run("collective_envs", "collective: environments", measure, packages, argv)


def measure(repetitions: int) -> Iterator[Row]:
    warnings.simplefilter("ignore")
    for task in TASKS:
        same_numbers(task)
    rows: list[tuple[str, Sequence[str], tuple[int, int], float | None]] = [
        *((f"collecting: {task}", [task], RECORDED, 2.0) for task in TASKS),
        ("collecting: MT10, mean of its tasks", MT10, RECORDED, 2.0),
        ("episodes of 500 steps: window-open-v3", ["window-open-v3"], WHOLE, None),
        ("episodes of 500 steps: MT10, mean of its tasks", MT10, WHOLE, None),
    ]
    for name, tasks, ends, bar in rows:
        yield compare(
            name, (f"TaskVec of {len(tasks)}", ours_side(tasks, ends)), ("gym.make, scripted policy", Gym(tasks, ends)),
            bar=bar, unit="CPU time a step, scripted action included", repetitions=repetitions,
        )  # fmt: skip
    yield compare(
        "start-up: MT10, scenes and goals cached", ("python -c 'envs.make(MT10).reset()'", opening),
        (f"the bar: {START_UP} CPU seconds", lambda _repetition: START_UP), bar=1, unit="CPU time a start",
        repetitions=repetitions,
    )  # fmt: skip


def ours_side(tasks: Sequence[str], ends: tuple[int, int]) -> Side:
    """The k-th episode of a task has goal k."""
    horizon, after = ends
    vec = envs.make(tasks, seed=0, goals="cycle", horizon=horizon)
    vec.reset()
    since = [-1] * len(tasks)  # steps since the first success

    def side(_repetition: int) -> float:
        nonlocal since
        begin = time.process_time()
        for _ in range(STEPS):
            last = [past + 1 == after for past in since]
            actions = envs.script_actions(tasks, vec.task_index, vec.current_obs)
            moved = vec.step(actions, stop=np.array(last) if any(last) else None)
            solved, ended = moved.info["success"].tolist(), moved.truncated.tolist()
            since = [
                -1 if end else past + 1 if past >= 0 else int(success) - 1
                for past, success, end in zip(since, solved, ended)
            ]
        return (time.process_time() - begin) / STEPS / len(tasks)

    return side


class Gym:
    """The same, with an env and a policy a task, stepped in turns as ours are."""

    def __init__(self, tasks: Sequence[str], ends: tuple[int, int]) -> None:
        self.envs = [GymTask(task, ends) for task in tasks]

    def __call__(self, _repetition: int) -> float:
        begin = time.process_time()
        for _ in range(STEPS):
            for env in self.envs:
                env.step()
        return (time.process_time() - begin) / STEPS / len(self.envs)


class GymTask:
    def __init__(self, task: str, ends: tuple[int, int]) -> None:
        from metaworld.policies import ENV_POLICY_MAP

        self.env, self.goals = open_gym(task)
        self.policy, self.ends, self.episode = ENV_POLICY_MAP[task](), ends, 0
        self.begin()

    def begin(self) -> None:
        self.env.unwrapped.set_task(self.goals[self.episode % 50])
        self.obs, self.t, self.since = self.env.reset()[0], 0, -1
        self.episode += 1

    def step(self) -> None:
        self.since += self.since >= 0
        self.t += 1
        self.obs, *_, info = self.env.step(np.clip(self.policy.get_action(self.obs), -1, 1))
        horizon, after = self.ends
        if self.t == horizon or self.since == after:
            self.begin()
        elif self.since < 0 and info["success"]:
            self.since = 0


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
