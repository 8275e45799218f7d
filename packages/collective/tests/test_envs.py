"""The vector of envs, on the toys: what it promises to learners, seeds, resuming, refusals; the toys by hand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest

from collective import envs
from collective.config import TOY_TASKS
from collective.envs import toy
from rlcore.errors import DataError, EnvironmentProblem, NumericalError, QuintetWarning, UsageError

Array = np.ndarray[Any, Any]


def rolled(vec: envs.TaskVec, steps: int) -> list[Array]:
    """Everything a learner sees in `steps` steps of random actions."""
    found = []
    for _ in range(steps):
        moved = vec.step(vec.sample())
        seen = moved.obs, moved.reward, moved.truncated, moved.info["success"], vec.goal_id
        found += [part.copy() for part in seen]
    return found


def assert_same(one: list[Array], other: list[Array]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other):
        np.testing.assert_array_equal(a, b)


def test_the_contract_of_a_vector():
    vec = envs.make(TOY_TASKS, seed=3, copies=2, horizon=7)
    first = vec.reset()
    assert first.shape == (6, 39)
    assert first.dtype == np.float32
    assert vec.num_envs == 6
    assert vec.task_index.tolist() == [0, 0, 1, 1, 2, 2]
    assert vec.single_action_space.shape == (4,)
    np.testing.assert_array_equal(first[:, :18], first[:, 18:36])
    for t in range(1, 22):
        before, shown = vec.current_obs, vec.current_obs.copy()
        moved = vec.step(vec.sample())
        np.testing.assert_array_equal(before, shown)  # whole for one more step
        assert moved.obs is vec.current_obs
        assert not moved.terminated.any()
        assert (moved.truncated == (t % 7 == 0)).all()
        assert ((moved.reward >= 0) & (moved.reward <= 10)).all()
        assert moved.info["success"].shape == (6,)
        after = moved.final_obs if moved.truncated.any() else moved.obs
        np.testing.assert_array_equal(after[:, 18:36], shown[:, :18])
        np.testing.assert_array_equal(after[:, 36:], shown[:, 36:])
        if moved.truncated.any():
            np.testing.assert_array_equal(moved.obs[:, :3], np.tile(toy.START.astype(np.float32), (6, 1)))
    vec.close()


def test_seed_env_and_episode_alone_decide_the_goal():
    def begun(first_env: int, episodes: int) -> Array:
        vec = envs.make(["toy-push"], seed=5, copies=4, first_env=first_env)
        found = []
        for _ in range(episodes):
            vec.reset()
            found.append(np.c_[vec.goal_id, vec.current_obs])
        return np.array(found)  # (episodes, 4, 40)

    one, shifted = begun(0, 3), begun(2, 3)
    np.testing.assert_array_equal(one[:, 2:], shifted[:, :2])
    assert len(np.unique(one[..., 0])) > 6
    again = envs.make(["toy-push"], seed=5, copies=4, horizon=1)  # the same episodes by autoreset
    again.reset()
    again.step(again.sample())
    np.testing.assert_array_equal(np.c_[again.goal_id, again.current_obs], one[1])


def test_goals_in_order_and_fixed():
    vec = envs.make(["toy-reach", "toy-lift"], seed=0, copies=2, first_env=48, goals="cycle", horizon=1)
    vec.reset()
    assert vec.goal_id.tolist() == [48, 23, 48, 23]  # the copies share the goals out
    vec.step(vec.sample())
    assert vec.goal_id.tolist() == [49, 24, 49, 24]
    vec = envs.make(["toy-reach"], seed=0, copies=2, goals="fixed", horizon=1)
    vec.reset()
    vec.step(vec.sample())
    assert vec.goal_id.tolist() == [0, 0]


def test_another_goal_seed_has_other_goals_and_hidden_ones_are_zero():
    one, other = (envs.make(["toy-reach"], seed=0, goal_seed=g).reset().copy() for g in (0, 1))
    assert (one[:, 36:] != other[:, 36:]).all()
    vec = envs.make(["toy-reach"], seed=0, goal_hidden=True)
    assert not vec.reset()[:, 36:].any()
    assert not vec.step(vec.sample()).obs[:, 36:].any()


def test_a_vector_goes_on_where_it_was_saved():
    vec = envs.make(TOY_TASKS, seed=1, copies=2, horizon=9)
    vec.reset()
    rolled(vec, 13)
    state = vec.state_dict()
    rest = rolled(vec, 12)
    other = envs.make(TOY_TASKS, seed=1, copies=2, horizon=9)
    other.load_state_dict(state)
    np.testing.assert_array_equal(other.current_obs, state["obs"])
    assert_same(rolled(other, 12), rest)
    fresh = envs.make(TOY_TASKS, seed=1, copies=2, horizon=9)
    fresh.load_state_dict(envs.make(TOY_TASKS, seed=1, copies=2, horizon=9).state_dict())  # saved before its reset
    assert (fresh.reset() == envs.make(TOY_TASKS, seed=1, copies=2).reset()).all()
    with pytest.raises(DataError, match="expected 3 of 9 steps"):
        envs.make(TOY_TASKS, seed=1, horizon=9).load_state_dict(state)


def test_experts_succeed_and_chance_does_not():
    vec = envs.make(TOY_TASKS, seed=0, copies=50, goals="cycle", horizon=46)
    vec.reset()
    solved, lucky = np.zeros((2, 150), bool)
    for _ in range(45):
        solved |= vec.step(envs.script_actions(TOY_TASKS, vec.task_index, vec.current_obs)).info["success"]
    assert solved.reshape(3, 50).mean(1).min() >= 0.98
    vec.reset()
    for _ in range(45):
        lucky |= vec.step(vec.sample()).info["success"]
    assert lucky.mean() < 0.05


def test_a_first_observation_does_not_tell_the_toys_apart():
    obs = envs.make(TOY_TASKS, seed=0, goals="fixed").reset()
    np.testing.assert_array_equal(obs[0], obs[1])
    np.testing.assert_array_equal(obs[0], obs[2])


def test_the_toy_by_hand():
    """A closing hand at the puck holds it after three steps and takes it along; an opening one drops it."""
    env = toy.Toy("toy-lift", np.array([[0.0, 0.6, 0.02, 0.1, 0.7, 0.22]]))
    obs = env.reset(0)
    assert obs[:11].tolist() == [0.0, 0.6, 0.2, 1.0, 0.0, 0.6, 0.02, 0.0, 0.0, 0.0, 1.0]
    for _ in range(9):
        obs, reward, _ = env.step(np.array([0, 0, -1, -1]))
    np.testing.assert_allclose(obs[:4], [0.0, 0.6, 0.02, 1.0], atol=1e-12)
    assert reward == pytest.approx(2.0)
    for expected in (0.75, 0.5, 0.25):
        obs, reward, _ = env.step(np.array([0, 0, 0, 1]))
        assert obs[3] == expected
    left = np.linalg.norm([0.1, 0.1, 0.2])
    assert reward == pytest.approx(2 + 1 + 5 / (1 + (left / 0.1) ** 2))
    obs, *_ = env.step(np.array([0.5, 9, 1, 1]))  # an action is cut to 1: 0.02 m
    np.testing.assert_allclose(obs[4:7], [0.01, 0.62, 0.04], atol=1e-12)
    np.testing.assert_allclose(obs[18:25], [0.0, 0.6, 0.02, 0.25, 0.0, 0.6, 0.02], atol=1e-12)
    env.step(np.array([0, 0, 1, 1]))
    obs, *_ = env.step(np.array([0, 0, 0, -1]))
    assert obs[4:7].tolist() == pytest.approx([0.01, 0.62, 0.02 if obs[3] > 0.5 else 0.06])
    obs, *_ = env.step(np.array([0, 0, 0, -1]))
    assert obs[6] == pytest.approx(0.02)


def test_refusals():
    with pytest.raises(UsageError, match="toy-reach"):
        envs.make(["toy-reech"], seed=0)
    with pytest.raises(UsageError, match="door-open-v3"):
        envs.make(["dor-open-v3"], seed=0)
    with pytest.raises(UsageError, match="push-v3"):
        envs.scripted("psh-v3")
    for options in ({"goals": "some"}, {"copies": 0}, {"horizon": 0}, {"reward_version": "v3"}, {"goal_seed": -1}):
        with pytest.raises(UsageError):
            envs.make(["toy-reach"], seed=0, **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        envs.make([], seed=0)
    vec = envs.make(["toy-reach", "toy-push"], seed=0)
    vec.reset()
    with pytest.raises(EnvironmentProblem, match="render=True"):
        vec.render(0)
    with pytest.raises(NumericalError, match="env 1"):
        vec.step(np.array([[0, 0, 0, 0], [0, np.nan, 0, 0]]))
    assert envs.make(["toy-reach"], seed=0, render=True).render(0).shape == (240, 360, 3)


@pytest.mark.parametrize("workers", [1, 2, 9])
def test_workers_change_nothing(workers: int):
    here = envs.make(TOY_TASKS, seed=4, copies=2, horizon=6)
    there = envs.make(TOY_TASKS, seed=4, copies=2, horizon=6, workers=workers, render=True)
    np.testing.assert_array_equal(here.reset(), there.reset())
    assert_same(rolled(here, 8), rolled(there, 8))
    state = here.state_dict()
    for key, value in there.state_dict().items():
        np.testing.assert_equal(value, state[key])
    other = envs.make(TOY_TASKS, seed=4, copies=2, horizon=6, workers=2)
    other.load_state_dict(state)
    assert_same(rolled(here, 8), rolled(other, 8))
    assert there.render(5).shape == (240, 360, 3)
    there.close()
    other.close()
    other.close()


def test_a_dead_worker_is_replaced_and_nothing_changes():
    here = envs.make(TOY_TASKS, seed=4, copies=2, horizon=6)
    there = envs.make(TOY_TASKS, seed=4, copies=2, horizon=6, workers=2, render=True)
    np.testing.assert_array_equal(here.reset(), there.reset())
    slots: Any = there.slots
    for steps, worker in ((8, 0), (1, 0), (3, 1)):
        assert_same(rolled(here, steps), rolled(there, steps))
        os.kill(slots.workers[worker].process.pid, signal.SIGKILL)
        with pytest.warns(QuintetWarning, match="exit code -9"):
            assert_same(rolled(here, 1), rolled(there, 1))
    os.kill(slots.workers[1].process.pid, signal.SIGKILL)
    with pytest.warns(QuintetWarning, match="replaced"):
        there.render(3)
    assert there.restarts == 4
    assert_same(rolled(here, 3), rolled(there, 3))
    there.close()


def test_a_worker_that_dies_each_time_is_named_with_its_env_and_episode(monkeypatch: pytest.MonkeyPatch):
    real = toy.Toy.step

    def fatal(self: toy.Toy, action: Array) -> Any:
        if self.task == "toy-push" and self.goal[0] == doomed:
            os._exit(7)
        return real(self, action)

    alike = envs.make(TOY_TASKS, seed=4, copies=2, horizon=6)
    alike.reset()
    while alike.board.episode[3] < 2:
        alike.step(alike.sample())
    doomed = alike.slots.envs[3].goal[0]  # of env 3's episode 2
    monkeypatch.setattr(toy.Toy, "step", fatal)
    there = envs.make(TOY_TASKS, seed=4, copies=2, horizon=6, workers=2)
    there.reset()
    rolled(there, 12)
    with (
        pytest.raises(EnvironmentProblem, match=r"env 3, episode 2 \(.*died \(exit code 7\), 4 times"),
        pytest.warns(QuintetWarning, match="env 3"),
    ):
        there.step(there.sample())
    there.close()


def test_what_a_worker_finds_wrong_is_said_here(monkeypatch: pytest.MonkeyPatch):
    def broken(self: toy.Toy, action: Array) -> Any:
        raise ValueError("no puck")

    monkeypatch.setattr(toy.Toy, "step", broken)
    for workers in (0, 2):
        vec = envs.make(TOY_TASKS, seed=4, first_env=5, workers=workers)
        vec.reset()
        with pytest.raises(EnvironmentProblem, match=r"env 5, episode 0 \(reset seed \d+\): ValueError: no puck"):
            vec.step(vec.sample())
        vec.close()


def test_workers_leave_signals_to_the_trainer_and_end_with_it():
    vec = envs.make(TOY_TASKS, seed=4, workers=2)
    processes = [worker.process for worker in vec.slots.workers]  # type: ignore[union-attr]
    for process in processes:
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            os.kill(process.pid, name)
    vec.reset()
    vec.step(vec.sample())
    assert all(process.is_alive() for process in processes)
    program = (
        "import os, sys; from collective import envs; v = envs.make(['toy-reach', 'toy-push'], seed=0, workers=2);"
        "print(*[w.process.pid for w in v.slots.workers], flush=True); os.kill(os.getpid(), 9)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    deadline = time.monotonic() + 20
    for pid in map(int, found.stdout.split()):
        while alive(pid):
            assert time.monotonic() < deadline, "a worker outlives its trainer"
            time.sleep(0.05)
    vec.close()
    assert not any(alive(process.pid) for process in processes if process.pid)


def alive(pid: int) -> bool:
    try:
        return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
