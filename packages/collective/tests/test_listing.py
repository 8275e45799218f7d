"""Lists of envs as older multi-task code asks for them, and the reward normaliser."""

from __future__ import annotations

import importlib.util
import pickle
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest

from collective.config import MT10
from collective.envs import listing
from collective.envs.listing import RewardNormalizer, get_list_of_envs, get_list_of_func_to_make_envs
from rlcore.errors import EnvironmentProblem, UsageError

needs_metaworld = pytest.mark.skipif(importlib.util.find_spec("metaworld") is None, reason="no metaworld")
Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLLECTIVE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def test_the_normaliser_by_hand():
    """First r = 10: m = 0.01, v = 0.999 + 0.001 * 9.99^2 = 1.0988001, r' = 10 / sqrt(v) = 9.5399; once a reward."""
    one = RewardNormalizer()
    assert one(10.0) == pytest.approx(9.5399, abs=1e-4)
    assert one.state_dict() == pytest.approx({"mean": 0.01, "variance": 1.0988001})
    other = RewardNormalizer(scale=2.0)
    other.load_state_dict(one.state_dict())
    assert other(3.0) == pytest.approx(2 * one(3.0))
    assert other.state_dict() == one.state_dict()
    assert one.mean == pytest.approx(0.999 * 0.01 + 0.001 * 3)
    assert one.variance == pytest.approx(0.999 * 1.0988001 + 0.001 * (3 - one.mean) ** 2)


@needs_metaworld
def test_one_env_a_task_with_a_goal_by_chance(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(listing.BENCHMARKS, "MT10", MT10[:3])  # ten scenes take their time
    makers, tasks = get_list_of_func_to_make_envs(None, "MT10", seed=4)
    again = get_list_of_func_to_make_envs(None, "MT10", seed=4)[1]
    assert len(makers) == 3
    assert list(tasks) == list(MT10[:3])
    assert tasks == again
    assert all(name == task.env_name for name, task in tasks.items())
    other = get_list_of_func_to_make_envs(None, "MT10", seed=5)[1]
    assert sum(tasks[name] != other[name] for name in tasks) >= 2
    makers, same = get_list_of_func_to_make_envs(None, "MT10", other, num_copies_per_env=2)
    assert same == other
    assert len(makers) == 6
    env = pickle.loads(pickle.dumps(makers[3]))()  # the second copy of push
    goal = pickle.loads(other["push-v3"].data)["rand_vec"]
    np.testing.assert_array_equal(env.reset()[0][36:39], [*goal[3:5], env.unwrapped.raw._target_pos[2]])


@needs_metaworld
def test_an_env_is_gymnasiums_and_keeps_the_raw_reward():
    (env, twin), tasks = get_list_of_envs(None, "MT1", task_name="push-v3", num_copies_per_env=2, seed=0)
    (plain,), _ = get_list_of_envs(None, "MT1", tasks, False, "push-v3")
    assert isinstance(env, gymnasium.Env)
    first = env.reset(seed=1)[0]
    np.testing.assert_array_equal(first, twin.reset()[0])
    np.testing.assert_array_equal(first, plain.reset()[0])
    normalise = RewardNormalizer()
    for t in range(1, 501):
        action = env.action_space.sample() * 1.5
        obs, reward, terminated, truncated, info = env.step(action)
        same, raw, *_ = plain.step(action)
        assert env.observation_space.contains(obs)
        np.testing.assert_array_equal(obs, same)
        assert info["unscaled_reward"] == raw
        assert reward == normalise(raw)
        assert not terminated
        assert truncated == (t == 500)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(action)
    np.testing.assert_array_equal(env.reset()[0], first)
    _, reward, *_, info = twin.step(action)  # a copy has its own normaliser
    assert reward == RewardNormalizer()(info["unscaled_reward"])


@needs_metaworld
def test_equal_to_meta_world_and_its_tasks_can_be_given():
    import metaworld
    from upstream import Upstream

    mine = metaworld.MT1("door-open-v3", seed=3)
    (env,), tasks = get_list_of_envs(mine, "MT1", seed=0, should_perform_reward_normalization=False)
    theirs = Upstream("door-open-v3")
    obs = theirs.begin(pickle.loads(tasks["door-open-v3"].data)["rand_vec"])
    np.testing.assert_array_equal(env.reset()[0], obs)
    for _ in range(30):
        action = theirs.expert(obs)
        obs, reward, _, _, info = theirs.env.step(action)
        same, earned, _, _, told = env.step(action)
        np.testing.assert_array_equal(same, obs)
        assert (earned, told) == (reward, info)
    (hidden,), _ = get_list_of_envs(mine, "MT1", seed=0, goal_hidden=True)
    assert not hidden.reset()[0][36:].any()


@needs_metaworld
def test_in_gymnasiums_vectors():
    makers, _ = get_list_of_func_to_make_envs(None, "MT1", task_name="reach-v3", num_copies_per_env=2, seed=0)
    vec = gymnasium.vector.SyncVectorEnv(makers)
    obs, _ = vec.reset()
    assert obs.shape == (2, 39)
    vec.step(vec.action_space.sample())
    vec.close()


def test_refusals(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match="MT1, MT10, MT25, MT50"):
        get_list_of_envs(None, "MT5")
    with pytest.raises(UsageError, match="door-open-v3"):
        get_list_of_envs(None, "MT1", task_name="door-opn-v3")
    with pytest.raises(UsageError, match="num_copies_per_env"):
        get_list_of_envs(None, "MT1", num_copies_per_env=0)
    with pytest.raises(UsageError, match="no task for push-v3"):
        get_list_of_envs(None, "MT1", {"reach-v3": None}, task_name="push-v3")
    monkeypatch.setitem(sys.modules, "metaworld", None)
    with pytest.raises(EnvironmentProblem, match="pip install"):
        get_list_of_envs(None, "MT1")
