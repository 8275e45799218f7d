"""Scores do not depend on how episodes are grouped; statistics agree with scipy, hand numbers and known coverage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rlcore.errors import UsageError
from rlcore.evaluate import EvalResult, bootstrap_ci, evaluate, iqm
from rlcore.seeding import episode_seed
from rlcore.vecenv import VecStep, make_vec


class Scripted:
    """Env i: reward i + 1 a step, ends after 2 + i % 3 steps, succeeds where i is even; then rewards 1000 a step."""

    def __init__(self, num_envs, first_env, tells=True):
        self.index, self.num_envs, self.tells = first_env + np.arange(num_envs), num_envs, tells
        self.closed = False

    def reset(self):
        self.t = 0
        return self._obs()

    def step(self, action):
        np.testing.assert_array_equal(action, self.index)
        self.t += 1
        over, length = self.t > (last := 2 + self.index % 3), self.t == last
        ended = length & (self.index % 2 == 0)
        reward = np.where(over, 1000, self.index + 1).astype(np.float32)
        info = {"success": ended} if self.tells else {}
        return VecStep(self._obs(), reward, ended, length & ~ended, self._obs(), info)

    def close(self):
        self.closed = True

    def _obs(self):
        return np.stack([self.index, np.full(self.num_envs, self.t)], 1).astype(np.float32)


class Echo:
    """Acts with the env's number; its state counts the steps since the start, never reset."""

    def initial_state(self, num_envs):
        return np.zeros(num_envs)

    def act(self, obs, state):
        np.testing.assert_array_equal(obs[:, 1], state)
        return obs[:, 0].astype(int), state + 1


@pytest.mark.parametrize("max_envs", [1, 2, 3, 7, 100])
def test_every_episode_counts_once(max_envs):
    made = []
    result = evaluate(Echo(), lambda n, first: made.append(Scripted(n, first)) or made[-1], 7, max_envs)
    np.testing.assert_array_equal(result.lengths, [2, 3, 4, 2, 3, 4, 2])
    np.testing.assert_array_equal(result.returns, [2, 6, 12, 8, 15, 24, 14])
    np.testing.assert_array_equal(result.successes, [True, False, True, False, True, False, True])
    assert all(envs.closed for envs in made)
    assert max(envs.num_envs for envs in made) <= max_envs


def test_a_row_has_the_agreed_keys():
    row = evaluate(Echo(), lambda n, first: Scripted(n, first, tells=False), 3).as_row()
    assert row == {
        "return_mean": pytest.approx(20 / 3),
        "return_std": pytest.approx(np.std([2, 6, 12])),
        "return_min": 2,
        "return_max": 12,
        "return_median": 6,
        "length_mean": 3,
        "episodes": 3,
    }
    assert EvalResult(np.ones(2), np.ones(2), np.array([True, False])).as_row()["success_rate"] == 0.5


def test_envs_are_closed_when_the_policy_fails():
    class Broken(Echo):
        def act(self, obs, state):
            raise ZeroDivisionError

    envs = Scripted(2, 0)
    with pytest.raises(ZeroDivisionError):
        evaluate(Broken(), lambda n, first: envs, 2)
    assert envs.closed
    with pytest.raises(UsageError, match="0 episodes"):
        evaluate(Echo(), Scripted, 0)


class Upright:
    """Pushes CartPole under its falling pole."""

    def initial_state(self, num_envs):
        return None

    def act(self, obs, state):
        return (obs[:, 2] + 0.3 * obs[:, 3] > 0).astype(int), state


def test_cartpole_scores_are_those_of_one_env_after_another():
    import gymnasium

    def envs(n, first):
        return make_vec("CartPole-v1", n, seed=3, first_env=first, max_episode_steps=150)

    result = evaluate(Upright(), envs, 6, max_envs=4)
    env, expected = gymnasium.make("CartPole-v1", max_episode_steps=150), []
    for i in range(6):
        obs, done, total = env.reset(seed=episode_seed(3, i, 0))[0], False, 0
        while not done:
            obs, reward, terminated, truncated, _ = env.step(int(Upright().act(obs[None], None)[0][0]))
            total, done = total + reward, terminated or truncated
        expected.append(total)
    np.testing.assert_array_equal(result.returns, expected)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60))
def test_iqm_is_scipys_trimmed_mean(values):
    np.testing.assert_allclose(iqm(np.array(values)), stats.trim_mean(values, 0.25), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_iqm_along_an_axis(axis):
    table = np.random.default_rng(0).normal(size=(5, 8, 9))
    np.testing.assert_allclose(iqm(table, axis), stats.trim_mean(table, 0.25, axis))


def test_iqm_by_hand():
    assert iqm(np.array([100.0, 1, 2, -100])) == 1.5
    assert iqm(np.array([[100.0, 1], [2, -100]])) == 1.5  # runs x tasks are pooled
    assert iqm(np.array([3.0, 4, 8])) == 5  # too few to cut


def test_bootstrap_by_hand():
    assert bootstrap_ci(np.array([5.0, 5, 5])) == (5, 5)
    low, high = bootstrap_ci(np.array([0.0, 1]), np.mean, resamples=20_000)
    assert (low, high) == (0, 1)  # means 0, 1/2, 1 with chances 1/4, 1/2, 1/4
    low, high = bootstrap_ci(np.array([0.0, 1]), np.mean, level=0.4, resamples=20_000)
    assert (low, high) == (0.5, 0.5)


def test_tasks_are_resampled_each_on_its_own():
    """Between-task spread must not widen the interval: each task keeps as many runs as it has."""
    scores = np.tile([0.0, 100.0], (6, 1))
    assert bootstrap_ci(scores, np.mean) == (50, 50)
    opposed = np.array([[0.0, 1], [1, 0]])  # drawn jointly, every row has mean 1/2
    assert bootstrap_ci(opposed, np.mean) == (0, 1)


def test_bootstrap_covers_the_truth():
    """40 runs of a Gaussian: a 90 % interval of the mean must hold the truth in about 90 % of 300 experiments."""
    rng = np.random.default_rng(0)
    held = 0
    for k in range(300):
        low, high = bootstrap_ci(rng.normal(3, 2, 40), np.mean, level=0.9, resamples=300, seed=k)
        held += low <= 3 <= high
    assert 0.83 < held / 300 < 0.95, held


def test_bootstrap_repeats_and_agrees_with_scipy():
    scores = np.random.default_rng(1).gamma(2, 3, 25)
    assert bootstrap_ci(scores) == bootstrap_ci(scores)
    theirs = stats.bootstrap((scores,), np.mean, method="percentile", n_resamples=20_000, rng=0).confidence_interval
    np.testing.assert_allclose(bootstrap_ci(scores, np.mean, resamples=20_000), theirs, atol=0.06)
