"""Native environments: Gymnasium's own numbers, one contract for all, and memory tasks that chance cannot solve."""

import itertools
import math
import subprocess
import sys
from collections import defaultdict
from fractions import Fraction

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from mpn.envs import NATIVE, make
from mpn.envs.gym import MemoryEnv, delayed_match, register
from mpn.envs.memory import delayed_match as delayed_match_film
from mpn.envs.memory import t_maze, temporal_order
from rlcore.errors import DataError, EnvironmentProblem, UsageError
from rlcore.seeding import episode_seed
from rlcore.vecenv import make_vec

MEMORY = [env_id for env_id in NATIVE if "CartPole" not in env_id]
FILMS = [t_maze(), t_maze(1), delayed_match_film(), delayed_match_film(2, 1), temporal_order(), temporal_order(2)]


def copied(step):
    return [a.copy() for a in step[:5]] + [{k: v.copy() for k, v in step.info.items()}]


def assert_same(a, b):
    done = np.asarray(a[2]) | a[3]
    for x, y in zip(a[:4], b[:4]):
        np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(a[4][done], b[4][done])
    for key in a[5]:
        np.testing.assert_array_equal(a[5][key], b[5][key])


# CartPole


def steady(obs):
    """Pushing to the side the pole falls to keeps it up: cart 0 near the middle, cart 1 leaning until it runs off."""
    centre = np.where(np.arange(len(obs)) == 1, -0.05, 0.02 * obs[:, 0] + 0.05 * obs[:, 1])
    return (obs[:, 2] + 0.5 * obs[:, 3] + centre > 0).astype(np.int64)


def test_cartpole_is_gymnasium_bit_for_bit():
    seed, n, truncations, runaways = 7, 4, 0, 0
    native, rng = make("CartPole-v1", n, seed=seed), np.random.default_rng(0)
    peers, episode = [gymnasium.make("CartPole-v1") for _ in range(n)], [0] * n
    obs = native.reset()
    np.testing.assert_array_equal(obs, [e.reset(seed=episode_seed(seed, i, 0))[0] for i, e in enumerate(peers)])
    for _ in range(1100):
        action = np.where(np.arange(n) < 2, steady(obs), rng.integers(2, size=n))
        obs, reward, terminated, truncated, final_obs, info = native.step(action)
        assert not info
        for i, env in enumerate(peers):
            want, r, term, trunc, _ = env.step(int(action[i]))
            assert (reward[i], terminated[i], truncated[i]) == (r, term, trunc and not term)
            truncations += int(truncated[i])
            if term or trunc:
                np.testing.assert_array_equal(final_obs[i], want)
                runaways += abs(want[0]) > 2.4
                episode[i] += 1
                want, _ = env.reset(seed=episode_seed(seed, i, episode[i]))
            np.testing.assert_array_equal(obs[i], want)
    assert truncations >= 2
    assert runaways >= 2
    assert min(episode[2:]) > 20


def test_cartpole_equals_the_general_vector_env():
    native, general = (build("CartPole-v1", 3, seed=5, first_env=2) for build in (make, make_vec))
    np.testing.assert_array_equal(native.reset(), general.reset())
    rng = np.random.default_rng(1)
    for _ in range(150):
        action = rng.integers(2, size=3)
        assert_same(copied(native.step(action)), copied(general.step(action)))


def test_masked_cartpole_shows_position_and_scaled_angle():
    full, masked = make("CartPole-v1", 3, seed=0), make("mpn/CartPoleMasked-v0", 3, seed=0)
    full.reset()
    masked.reset()
    rng = np.random.default_rng(1)
    for _ in range(60):
        action = rng.integers(2, size=3)
        a, b = full.step(action), masked.step(action)
        np.testing.assert_allclose(b.obs, a.obs[:, [0, 2]] * [1.0, 5.0], rtol=1e-6)
        np.testing.assert_array_equal(a.terminated, b.terminated)
    assert masked.single_observation_space.shape == (2,)


# The contract, for every native environment


@pytest.mark.parametrize("env_id", NATIVE)
@settings(max_examples=15)
@given(data=st.data())
def test_contract(env_id, data):
    seed, first = data.draw(st.integers(0, 2**31)), data.draw(st.integers(0, 50))
    n, limit = data.draw(st.integers(1, 4)), data.draw(st.sampled_from([None, 3]))
    envs = make(env_id, n, seed=seed, first_env=first, max_episode_steps=limit)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    episode, elapsed = np.zeros(n, int), np.zeros(n, int)
    alone = make(env_id, 1, seed=0)

    def first_obs(i):
        return alone.start(0, episode_seed(seed, first + i, int(episode[i])))[0]

    obs = envs.reset()
    before = obs.copy()
    for i in range(n):
        np.testing.assert_array_equal(obs[i], first_obs(i))
    for _ in range(30):
        step = envs.step(rng.integers(envs.single_action_space.n, size=n))
        np.testing.assert_array_equal(obs, before)  # the observation acted on outlives one step
        assert step.obs is envs.current_obs
        assert step.obs.dtype == step.reward.dtype == step.final_obs.dtype == np.float32
        assert step.terminated.dtype == step.truncated.dtype == bool
        assert all(envs.single_observation_space.contains(o) for o in step.obs)
        assert not (step.terminated & step.truncated).any()
        elapsed += 1
        np.testing.assert_array_equal(step.truncated, (elapsed >= envs.limit) & ~step.terminated)
        for i in np.flatnonzero(step.terminated | step.truncated):
            episode[i] += 1
            elapsed[i] = 0
            np.testing.assert_array_equal(step.obs[i], first_obs(i))
        obs, before = step.obs, step.obs.copy()


@pytest.mark.parametrize("env_id", NATIVE)
def test_an_env_is_the_same_in_any_batch(env_id):
    whole, part, other = (make(env_id, n, seed=s, first_env=f) for n, s, f in ((5, 3, 0), (2, 3, 3), (5, 4, 0)))
    w, p, o = whole.reset(), part.reset(), other.reset()
    rng, differs = np.random.default_rng(0), False
    for _ in range(60):
        np.testing.assert_array_equal(w[3:], p)
        differs |= not np.array_equal(w, o)
        action = rng.integers(whole.single_action_space.n, size=5)
        w, p, o = whole.step(action).obs, part.step(action[3:]).obs, other.step(action).obs
    assert differs


@pytest.mark.parametrize("env_id", NATIVE)
def test_restored_in_mid_episode_it_continues_bit_for_bit(env_id):
    rng = np.random.default_rng(0)
    for steps in (0, 1, 4, 23):
        envs = make(env_id, 3, seed=1)
        envs.reset()
        for _ in range(steps):
            envs.sample()
            envs.step(rng.integers(envs.single_action_space.n, size=3))
        saved = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in envs.state_dict().items()}
        again = make(env_id, 3, seed=1)
        again.load_state_dict(saved)
        np.testing.assert_array_equal(again.current_obs, envs.current_obs)
        for _ in range(40):
            action, action2 = envs.sample(), again.sample()
            np.testing.assert_array_equal(action, action2)
            assert_same(copied(envs.step(action)), copied(again.step(action)))
        with pytest.raises(DataError, match="3 envs, this run has 2"):
            make(env_id, 2, seed=1).load_state_dict(saved)


# Memory tasks


@pytest.mark.parametrize("film", FILMS)
def test_no_policy_without_memory_beats_chance(film):
    """Count every episode: for each last frame and action, the mean reward of the decision; at most 0, exactly."""
    rewards = defaultdict(list)
    for draws in itertools.product(*map(range, film.draws)):
        frames, answer = film.show(*draws)
        for action in range(film.num_actions):
            rewards[frames[-1].tobytes(), action].append(Fraction(1 if action == answer else -1))
    means = {key: sum(values) / len(values) for key, values in rewards.items()}
    assert max(means.values()) == 0  # and mixing actions or frames only averages these
    if film.num_actions == 2:
        assert set(means.values()) == {0}


@pytest.mark.parametrize("film", FILMS)
def test_the_film_tells_the_answer(film):
    """Different answers never follow from the same film: a memory can be right every time."""
    answers = {}
    for draws in itertools.product(*map(range, film.draws)):
        frames, answer = film.show(*draws)
        assert answers.setdefault(frames.tobytes(), answer) == answer
        assert frames.shape[0] <= film.longest
        assert frames.shape[1] == film.width


def test_frames_by_hand():
    frames, answer = t_maze(3).show(1)
    assert frames.tolist() == [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert answer == 1
    frames, answer = delayed_match_film(3, 2).show(2, 1, 0, 0)  # sample 2, delay 1 + 1, different: item 0
    assert frames.tolist() == [[0, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 1, 0], [1, 0, 0, 0, 1]]
    assert answer == 2
    assert delayed_match_film(3, 2).show(2, 0, 1, 0)[1] == 1
    frames, answer = temporal_order(3).show(2, 0)  # channel 1 at step 2, channel 2 at step 0
    assert frames.tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0], [0, 0, 1]]
    assert answer == 1
    assert {len(delayed_match_film().show(0, extra, 0, 0)[0]) - 2 for extra in range(4)} == {3, 4, 5, 6}
    tests = [delayed_match_film().show(2, 0, 0, other)[0][-1, :4].argmax() for other in range(3)]
    assert sorted(tests) == [0, 1, 3]  # a test item that differs is any of the others


@pytest.mark.parametrize("env_id", MEMORY)
def test_right_answers_pay_and_succeed_and_wrong_ones_cost(env_id):
    for right in (True, False):
        envs = make(env_id, 4, seed=0)
        envs.reset()
        ends = 0
        for _ in range(60):
            last = envs.elapsed + 1 == envs.task.steps
            wrong = (1 if envs.single_action_space.n == 2 else 3) - envs.task.answer
            answer = envs.task.answer if right else wrong
            step = envs.step(np.where(last, answer, 0))
            np.testing.assert_array_equal(step.terminated, last)
            np.testing.assert_array_equal(step.reward, np.where(last, 1.0 if right else -1.0, 0.0))
            np.testing.assert_array_equal(step.info["success"], last & right)
            assert not step.final_obs[last].any()
            ends += last.sum()
        assert ends >= 20


def test_delayed_match_wants_the_hold():
    envs = make("mpn/DelayedMatch-v0", 8, seed=0)
    envs.reset()
    for _ in range(40):
        last = envs.elapsed + 1 == envs.task.steps
        step = envs.step(np.zeros(8, int))
        np.testing.assert_array_equal(step.reward, np.where(last, -1.0, 0.0))  # holding at the test is wrong
    assert envs.step(np.full(8, 1)).reward[envs.elapsed > 0] == pytest.approx(-0.1)


@pytest.mark.parametrize("env_id", MEMORY)
def test_every_episode_is_equally_likely(env_id):
    envs = make(env_id, 1, seed=0)
    film, counts = envs.task.film, defaultdict(int)
    total = math.prod(film.draws)
    films = defaultdict(int)
    for draws in itertools.product(*map(range, film.draws)):
        films[film.show(*draws)[0].tobytes()] += 1
    trials = 60 * total
    for k in range(trials):
        envs.start(0, episode_seed(0, 0, k))
        counts[envs.task.frames[0, : envs.task.steps[0]].tobytes()] += 1
    assert counts.keys() == films.keys()
    chi2 = sum((counts[f] - 60 * w) ** 2 / (60 * w) for f, w in films.items())
    assert chi2 < len(films) + 5 * math.sqrt(2 * len(films))


# Names, options and refusals


def test_options_after_the_colon_or_as_arguments():
    for envs in (make("mpn/TMaze-v0:length=3", 2, seed=0), make("mpn/TMaze-v0", 2, seed=0, length=3)):
        assert envs.limit == 4
    assert make("mpn/DelayedMatch-v0:items=5,delay=2", 1, seed=0).single_observation_space.shape == (7,)
    assert make("mpn/TemporalOrder-v0:window=9", 1, seed=0).limit == 11
    assert make("CartPole-v1", 1, seed=0, max_episode_steps=20).limit == 20
    for bad in ("mpn/TMaze-v0:size=3", "mpn/TMaze-v0:length", "mpn/TMaze-v0:length=x", "mpn/TMaze-v0:length=0"):
        with pytest.raises(UsageError, match="length"):
            make(bad, 1, seed=0)
    with pytest.raises(UsageError, match=r"mpn/TMaze-v0"):
        make("mpn/TMase-v0", 1, seed=0)


TOYS = """
import gymnasium, numpy as np
from gymnasium.spaces import Box, Dict, Discrete

class Toy(gymnasium.Env):
    def __init__(self, obs, act):
        self.observation_space, self.action_space = obs, act
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}
    def step(self, action):
        return self.observation_space.sample(), 1.0, False, False, {}

def table(): return Toy(Box(0, 1, (2, 3), np.float32), Discrete(2))
def mixed(): return Toy(Dict(a=Box(0, 1, (2,), np.float32), b=Discrete(3)), Discrete(2))
def image(): return Toy(Box(0, 255, (64, 64, 3), np.uint8), Discrete(2))
def steer(): return Toy(Box(0, 1, (2,), np.float32), Box(-1, 1, (2,), np.float32))
def ram(): return Toy(Box(0, 255, (4,), np.uint8), Discrete(2))
"""


@pytest.fixture
def toys(tmp_path, monkeypatch):
    (tmp_path / "mpn_test_toys.py").write_text(TOYS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "mpn_test_toys:"


@pytest.mark.parametrize(("name", "width"), [("table", 6), ("mixed", 5), ("ram", 4)])
def test_small_observations_are_flattened(toys, name, width):
    envs = make(toys + name, 3, seed=0)
    assert envs.single_observation_space.shape == (width,)
    assert envs.reset().shape == (3, width)
    step = envs.step(np.zeros(3, int))
    assert step.obs.shape == step.final_obs.shape == (3, width)
    assert step.obs.dtype == np.float32
    again = make(toys + name, 3, seed=0)
    again.load_state_dict(envs.state_dict())
    np.testing.assert_array_equal(again.current_obs, envs.current_obs)


@pytest.mark.parametrize("name", ["image", "steer"])
def test_images_and_continuous_actions_are_refused(toys, name):
    with pytest.raises(EnvironmentProblem, match="Discrete actions and 1-D observations only"):
        make(toys + name, 1, seed=0)


# As ordinary Gymnasium environments


@pytest.mark.parametrize("env_id", [env_id for env_id in NATIVE if env_id.startswith("mpn/")])
def test_gymnasium_env_plays_the_same_episodes(env_id):
    envs, env = make(env_id, 1, seed=3), MemoryEnv(env_id)
    obs, rng = envs.reset(), np.random.default_rng(0)
    for episode in range(4):
        single, info = env.reset(seed=episode_seed(3, 0, episode))
        assert info == {}
        ended = False
        while not ended:
            np.testing.assert_array_equal(single, obs[0])
            action = int(rng.integers(env.action_space.n))
            single, *rest, info = env.step(action)
            step = envs.step(np.array([action]))
            obs, ended = step.obs, step.terminated[0] or step.truncated[0]
            assert rest == [step.reward[0], step.terminated[0], step.truncated[0]]
        np.testing.assert_array_equal(single, step.final_obs[0])
        assert info == ({"success": step.info["success"][0]} if step.info else {})


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_gymnasium_registration_is_asked_for():
    code = "import gymnasium, mpn.envs.gym; print([n for n in gymnasium.registry if n.startswith('mpn/')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
    try:
        register()
        register()
        env = gymnasium.make("mpn/TMaze-v0", length=4)
        check_env(env.unwrapped, skip_render_check=True)
        assert env.unwrapped.vec.limit == 5
        assert delayed_match(delay=2).observation_space.shape == (6,)
        make_vec("mpn.envs.gym:temporal_order", 2, seed=0).reset()
    finally:
        for name in [n for n in gymnasium.registry if n.startswith("mpn/")]:
            del gymnasium.registry[name]
