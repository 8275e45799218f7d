"""Every backend keeps one contract. CartPole's own kinematics and the toy's arithmetic are the oracles."""

import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlcore import envs, vecworkers
from rlcore.checkpoint import portable
from rlcore.errors import EnvironmentProblem, QuintetWarning, UsageError
from rlcore.seeding import episode_seed
from rlcore.vecenv import EpisodeStats, VecStep, make_vec

TOY = "rlcore_toy_envs:"


@pytest.fixture(scope="module", autouse=True)
def toys():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        yield importlib.import_module("rlcore_toy_envs")


@pytest.fixture(params=["sync", "async", "envpool"])
def backend(request):
    if request.param == "envpool":
        pytest.importorskip("envpool", reason="optional extra fast-envs not installed")
    return request.param


@pytest.fixture
def opened():
    """make_vec, closed again at the end."""
    vecs = []
    yield lambda *args, **kwargs: vecs.append(make_vec(*args, **kwargs)) or vecs[-1]
    for vec in vecs:
        vec.close()


def roll(vec, steps, obs=None):
    """Random steps, copied: a list of (obs, action, VecStep)."""
    rows, obs = [], (vec.reset() if obs is None else obs).copy()
    for _ in range(steps):
        action = vec.sample()
        step = vec.step(action)
        info = {key: value.copy() for key, value in step.info.items()}
        step = VecStep(*(value.copy() for value in step[:5]), info)
        rows.append((obs, action, step))
        obs = step.obs
    return rows


def same(one, two):
    return all(
        np.array_equal(a.obs, b.obs) and np.array_equal(a.reward, b.reward) and np.array_equal(a.truncated, b.truncated)
        for (_, _, a), (_, _, b) in zip(one, two, strict=True)
    )


def test_no_transition_joins_two_episodes(backend, opened):
    """x' = x + 0.02 v is CartPole's own rule, and holds for no pair of states from two episodes."""
    vec = opened("CartPole-v1", 5, seed=11, backend=backend, max_episode_steps=12)
    ended, age = 0, np.zeros(5, int)
    for obs, _, step in roll(vec, 150):
        done = step.terminated | step.truncated
        after = np.where(done[:, None], step.final_obs, step.obs)
        np.testing.assert_allclose(after[:, 0], obs[:, 0] + 0.02 * obs[:, 1], atol=1e-6)
        age += 1
        fallen = (np.abs(after[:, 2]) > 12 * np.pi / 180) | (np.abs(after[:, 0]) > 2.4)
        fallen &= (age < 12) | (backend != "envpool")  # falling on the last step allowed, envpool tells the limit only
        np.testing.assert_array_equal(step.terminated, fallen)
        np.testing.assert_array_equal(step.truncated, (age == 12) & ~fallen)
        assert np.abs(step.obs[done]).max(initial=0) <= 0.05  # a first observation
        assert (step.reward == 1).all()
        age[done] = 0
        ended += done.sum()
        assert [x.dtype.name for x in step[:5]] == ["float32", "float32", "bool", "bool", "float32"]
    assert ended > 50


def check_toy(toys, vec, seed, first_env, steps):
    """Replay the toy's arithmetic from the seeding rule alone."""
    n = vec.num_envs
    episode, count, total = np.zeros((3, n), int)
    for obs, action, step in roll(vec, steps):
        for i in range(n):
            begun = episode_seed(seed, first_env + i, int(episode[i]))
            np.testing.assert_array_equal(obs[i], [begun % 65536, begun // 65536, count[i], total[i]])
            count[i] += 1
            total[i] += action[i]
            assert step.reward[i] == total[i]
            if count[i] < toys.length(begun):
                assert (step.terminated[i], step.truncated[i]) == (False, False)
                continue
            terminated, truncated = toys.ends(begun)
            assert (step.terminated[i], step.truncated[i]) == (terminated, truncated and not terminated)
            np.testing.assert_array_equal(step.final_obs[i], [begun % 65536, begun // 65536, count[i], total[i]])
            assert step.info["success"][i] == (begun % 2 == 0)
            episode[i], count[i], total[i] = episode[i] + 1, 0, 0


@settings(max_examples=40)
@given(seed=st.integers(0, 2**31), first_env=st.integers(0, 500), num_envs=st.integers(1, 4), steps=st.integers(1, 40))
def test_the_seed_rule_decides_every_episode(toys, seed, first_env, num_envs, steps):
    check_toy(toys, make_vec(TOY + "Toy", num_envs, seed=seed, first_env=first_env), seed, first_env, steps)


def test_the_seed_rule_in_worker_processes(toys, opened):
    check_toy(toys, opened(TOY + "Toy", 3, seed=5, first_env=7, backend="async"), 5, 7, 60)


def test_seeds_and_env_numbers(backend, opened):
    three, again = (opened("CartPole-v1", 3, seed=4, backend=backend) for _ in range(2))
    assert same(roll(three, 60), roll(again, 60))
    first = three.reset().copy()
    assert len(np.unique(first[:, 0])) == 3
    other = opened("CartPole-v1", 3, seed=5, backend=backend)
    assert not (other.reset() == opened("CartPole-v1", 3, seed=4, backend=backend).reset()).any()
    last = opened("CartPole-v1", 1, seed=4, first_env=2, backend=backend)
    fresh = opened("CartPole-v1", 3, seed=4, backend=backend)
    np.testing.assert_array_equal(last.reset()[0], fresh.reset()[2])


def test_sync_and_async_agree(opened):
    assert same(*(roll(opened("CartPole-v1", 3, seed=1, backend=b), 80) for b in ("sync", "async")))


@pytest.mark.parametrize("backend", ["sync", "async"])
@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", TOY + "Toy"])
def test_a_snapshot_continues_mid_episode(env_id, backend, opened):
    vec = opened(env_id, 3, seed=9, backend=backend, max_episode_steps=30)
    roll(vec, 41)
    state, obs = portable(vec.state_dict()), vec.current_obs.copy()
    expected = roll(vec, 60, obs)
    resumed = opened(env_id, 3, seed=9, backend=backend, max_episode_steps=30)
    resumed.load_state_dict(state)
    np.testing.assert_array_equal(resumed.current_obs, obs)
    assert same(roll(resumed, 60, resumed.current_obs), expected)


@pytest.mark.parametrize("backend", ["sync", "async"])
def test_episodes_too_long_to_replay_begin_afresh(backend, opened, monkeypatch):
    monkeypatch.setattr(envs, "MAX_REPLAY", 5)
    vec = opened(TOY + "Endless", 2, seed=0, backend=backend)
    roll(vec, 6)
    state = vec.state_dict()
    assert [actions for _, actions in state["snapshots"]] == [None, None]
    with pytest.warns(QuintetWarning, match="2 envs were past step"):
        vec.load_state_dict(state)
    seed = episode_seed(0, 1, 1)
    np.testing.assert_array_equal(vec.current_obs[1], [seed % 65536, seed // 65536, 0, 0])


def test_an_env_that_cannot_be_replayed_is_named(opened):
    vec = opened(TOY + "Noisy", 1, seed=0, first_env=6)
    roll(vec, 2)
    with pytest.warns(QuintetWarning, match="env 6 does not replay"):
        vec.load_state_dict(vec.state_dict())


def test_envpool_resumes_with_the_episodes_that_follow(opened):
    pytest.importorskip("envpool", reason="optional extra fast-envs not installed")
    vec = opened("CartPole-v1", 2, seed=3, backend="envpool", max_episode_steps=10)
    first = vec.reset().copy()
    roll(vec, 25, first)
    state = portable(vec.state_dict())
    starts = []
    for _ in range(2):
        resumed = opened("CartPole-v1", 2, seed=3, backend="envpool", max_episode_steps=10)
        with pytest.warns(QuintetWarning, match="fresh episode"):
            resumed.load_state_dict(state)
        starts.append(roll(resumed, 30, resumed.current_obs))
    assert same(*starts)
    assert not (starts[0][0][0] == first).any()


def test_the_previous_observation_outlives_one_step(backend, opened):
    vec = opened("CartPole-v1", 2, seed=0, backend=backend)
    obs = vec.reset()
    for _ in range(40):
        kept = obs.copy()
        after = vec.step(vec.sample()).obs
        np.testing.assert_array_equal(obs, kept)
        assert not (after == obs).all()
        assert vec.current_obs is after
        obs = after


def test_actions_may_be_overwritten_by_the_caller(opened):
    """The history keeps its own copy: a loop that reuses its action array still resumes."""
    vec, twin = (opened("Pendulum-v1", 2, seed=0) for _ in range(2))
    vec.reset()
    twin.reset()
    action = np.zeros((2, 1), np.float32)
    for value in (1.0, -2.0, 0.5):
        action.fill(value)
        vec.step(action)
        twin.step(np.full((2, 1), value))
    twin.load_state_dict(vec.state_dict())
    np.testing.assert_array_equal(twin.current_obs, vec.current_obs)


def test_custom_spaces(opened):
    vec = opened(TOY + "WithDict", 2, seed=0, max_episode_steps=3)
    np.testing.assert_array_equal(vec.reset()[1], [0, 0, 1, 0.25, 0.5])  # one-hot, then the Box
    assert vec.single_observation_space.shape == (5,)
    assert vec.sample().shape == (2, 2)
    assert [step.truncated.all() for *_, step in roll(vec, 4)] == [False, False, True, False]


def test_ids_that_do_not_open(monkeypatch):
    with pytest.raises(UsageError, match="did you mean CartPole-v1"):
        make_vec("CartPoll-v1", 1, seed=0)
    with pytest.raises(UsageError, match="module:factory"):
        make_vec("qqqq", 1, seed=0)
    with pytest.raises(UsageError, match="sync, async, envpool"):
        make_vec("CartPole-v1", 1, seed=0, backend="threads")
    with pytest.raises(EnvironmentProblem, match="a_simulator_that_is_not_there"):
        make_vec(TOY + "WithoutPackage", 1, seed=0)
    with pytest.raises(EnvironmentProblem, match="no_such_module"):
        make_vec("no_such_module:make", 1, seed=0)
    monkeypatch.setenv("MUJOCO_GL", "egl")
    with pytest.raises(EnvironmentProblem, match=r"eglQueryString'; no library for MUJOCO_GL=egl: .* or unset it"):
        make_vec(TOY + "WithoutRenderer", 1, seed=0)
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'rlcore\[fast-envs\]'"):
        make_vec("CartPole-v1", 1, seed=0, backend="envpool")


def test_a_module_in_the_current_folder_opens(tmp_path, monkeypatch, opened):
    (tmp_path / "my_task.py").write_text("import gymnasium\ndef make():\n    return gymnasium.make('CartPole-v1')\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    assert opened("my_task:make", 1, seed=0).reset().shape == (1, 4)


def children_gone(vec):
    return not any(worker.is_alive() for worker in vec.vec.processes)


@pytest.mark.parametrize("backend", ["sync", "async"])
def test_an_env_that_raises_is_named(backend, opened):
    vec = opened(TOY + "Fails", 3, seed=2, first_env=4, backend=backend)
    vec.reset()
    for action in ([0, 0, 0], [0, 0, 0]):
        vec.step(np.array(action))
    named = f"env 5, episode 0 .reset seed {episode_seed(2, 5, 0)}.*ZeroDivisionError: the floor is gone"
    with pytest.raises(EnvironmentProblem, match=named):
        vec.step(np.array([0, 6, 0]))
    vec.close()
    assert backend == "sync" or children_gone(vec)


def test_a_killed_worker_is_named(opened):
    vec = opened(TOY + "Toy", 3, seed=2, backend="async")
    roll(vec, 30)
    episode = vec.episode[1]
    os.kill(vec.vec.processes[1].pid, signal.SIGKILL)
    named = f"env 1, episode {episode} .reset seed {episode_seed(2, 1, int(episode))}.: its worker process died"
    with pytest.raises(EnvironmentProblem, match=named):
        roll(vec, 2, vec.current_obs)
    assert children_gone(vec)


def test_a_hanging_worker_is_named(opened, monkeypatch):
    monkeypatch.setattr(vecworkers, "HANG_SECONDS", 0.5)
    vec = opened(TOY + "Hangs", 3, seed=2, backend="async")
    vec.reset()
    with pytest.raises(EnvironmentProblem, match=r"env 2, episode 0 .*no answer .* in 0.5 s"):
        vec.step(np.array([0, 0, 6]))
    assert children_gone(vec)


def test_workers_leave_signals_to_the_trainer(opened):
    """Ctrl-C reaches the whole process group; the trainer must still be able to save the envs."""
    vec = opened("CartPole-v1", 2, seed=0, backend="async")
    roll(vec, 3)
    for worker in vec.vec.processes:
        os.kill(worker.pid, signal.SIGINT)
        os.kill(worker.pid, signal.SIGTERM)
    assert [len(actions) for _, actions in vec.state_dict()["snapshots"]] == [3, 3]


def test_a_program_that_forgets_to_close_ends():
    program = "from rlcore.vecenv import make_vec; v = make_vec('CartPole-v1', 2, seed=0, backend='async'); v.reset()"
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0


@given(st.lists(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=3, max_size=3), max_size=20))
def test_episode_stats_count_like_a_loop(table):
    stats, got = EpisodeStats(3), []
    for row in table:
        fresh = EpisodeStats(3)
        fresh.load_state_dict(stats.state_dict())  # a resume between any two steps changes nothing
        stats = fresh
        got += stats.update(np.array([r for r, _ in row], np.float32), np.array([d for _, d in row]))
    expected = []
    for t, row in enumerate(table):
        for i, (_, done) in enumerate(row):
            if done:
                begun = max([k + 1 for k in range(t) if table[k][i][1]], default=0)
                expected.append((sum(table[k][i][0] for k in range(begun, t + 1)), t + 1 - begun))
    assert got == expected
