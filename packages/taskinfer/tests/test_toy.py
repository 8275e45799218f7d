"""The toy's closed form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlcore.errors import UsageError
from taskinfer import tasks as t
from taskinfer.envs import toy
from taskinfer.envs.toy import Dynamics, VectorToy
from taskinfer.tasks import Family, Task, Tasks


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_one_step_by_hand():
    assert [float(v[0]) for v in toy.drive(f32(2), f32(-3), f32(0.4))] == pytest.approx([2.2, 2.0])
    finer = toy.drive(f32(2), f32(-3), f32(0.4), Dynamics(dt=0.05))
    assert [float(v[0]) for v in finer] == pytest.approx([1.975, -0.5])


@given(st.floats(-50, 50, width=32), st.floats(-5, 5, width=32), st.floats(-1, 1, width=32))
def test_the_speed_it_had_does_not_matter(x, v, a):
    """D27: the general formula is x + 0.5 a, 5 a with the default numbers."""
    general, closed = toy.drive(f32(x), f32(v), f32(a)), toy.one_step(f32(x), f32(a))
    np.testing.assert_allclose(general[0], closed[0], atol=1e-5)
    np.testing.assert_allclose(closed, [f32(x + 0.5 * a), f32(5 * a)], atol=1e-5)


def test_one_step_is_refused_where_it_would_be_wrong():
    with pytest.raises(UsageError, match="no function"):
        toy.one_step(f32(0), f32(1), Dynamics(dt=0.05))


def line(specs: list[tuple[Family, float]], seed: int = 0, **options) -> VectorToy:
    return VectorToy("toy1d", Tasks.of([Task(f, w) for f, w in specs]), seed, **options)


def test_optimal_returns():
    """A goal at distance g costs sum_i (g - i / 2) / g; a speed is reached in one step; who stands still gets -200."""
    goals = [1.0, 2.0, 25.0]
    env = line([(Family.goal_forward, g) for g in goals] + [(Family.velocity_backward, -2.0)])
    obs, total, still = env.reset(), np.zeros(4), np.zeros(4)
    obs = obs * 0
    env._state[:] = 0
    for _ in range(200):
        scripted = np.append(np.clip((np.array(goals) - obs[:3, 0]) / 0.5, -1, 1), -0.4)
        obs, reward, done, _ = env.step(scripted[:, None].astype(np.float32))
        total += reward
    assert done.all()
    np.testing.assert_allclose(total, [-0.5, -1.5, -24.5, 0.0], atol=0.01)
    env.reset()
    env._state[:] = 0
    for _ in range(200):
        still += env.step(np.zeros((4, 1), np.float32))[1]
    np.testing.assert_allclose(still, -200.0, atol=1e-3)


def scalar_multi(s: list[float], a: list[float]) -> list[float]:
    """The multi toy as its formulas read, one point at a time."""
    cut = lambda v, m: max(-m, min(m, v))  # noqa: E731
    x, z, th, vx, vz, om = s
    vx = cut(vx + 0.1 * (50 * a[0] - 10 * vx), 5)
    om = cut(om + 0.1 * (50 * a[1] - 50 / (4 * np.pi) * om), 4 * np.pi)
    th = cut(th + 0.1 * om, np.pi / 2)
    fz = 0.0 if z > 0.3 or vz > 0 else (3 / 0.1 + 9.81 * 0.1) * abs(a[2])
    vz = cut(vz + 0.1 * (fz - 9.81), 3)
    z = z + 0.1 * vz
    vz = 0.0 if z < 0 and vz < 0 else vz
    return [x + 0.1 * vx, cut(max(z, 0), 4), th, vx, vz, om]


def test_the_multi_toy_is_its_formulas_one_by_one():
    rng = np.random.default_rng(0)
    s = rng.uniform([-9, 0, -1.5, -5, -3, -12], [9, 4, 1.5, 5, 3, 12], (300, 6)).astype(np.float32)
    s[:100, 1] *= 0.1  # near the ground, where it can push
    a = rng.uniform(-1, 1, (300, 3)).astype(np.float32)
    wanted = [scalar_multi([*map(float, p)], [*map(float, q)]) for p, q in zip(s, a)]
    np.testing.assert_allclose(toy.advance("toy1d-multi", s.T, a.T).T, wanted, atol=2e-5)


def test_it_can_jump_and_lands():
    env = VectorToy("toy1d-multi", Tasks.of([Task(Family.jump, 2.0)]), 0)
    env.reset()
    heights = []
    for i in range(60):
        env.step(f32(0, 0, 1.0 if i == 0 else 0.0)[None])
        heights.append(float(env.simple_state().z[0]))
    assert max(heights) > 0.2
    assert heights[-1] == 0.0
    assert float(env.simple_state().vz[0]) == 0.0


def test_the_plane_is_two_lines():
    env = VectorToy("toy2d", Tasks.of([Task(Family.goal_up, 3.0)] * 2), 0)
    env.reset()
    env._state[:] = 0
    obs, reward, _, _ = env.step(np.array([[1.0, -1.0], [0.0, 1.0]], np.float32))
    np.testing.assert_allclose(obs, [[0.5, -0.5, 5, -5], [0, 0.5, 0, 5]], atol=1e-6)
    np.testing.assert_allclose(reward, [-(0.5**2 + 3.5**2) / 9, -(2.5**2) / 9], atol=1e-5)


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_the_seed_decides_all(noise: float):
    specs = [(Family.goal_forward, 2.0), (Family.velocity_forward, 1.0)]
    one, two, other = (line(specs, s, noise_std=noise) for s in (3, 3, 4))
    for _ in range(2):
        a, b, c = one.reset(), two.reset(), other.reset()
        assert np.array_equal(a, b)
        assert not np.array_equal(a, c)
    action = np.ones((2, 1), np.float32)
    assert np.array_equal(one.step(action)[0], two.step(action)[0])


def test_starts_do_not_depend_on_the_number_of_points():
    few, many = (line([(Family.goal_forward, 2.0)] * n, 5) for n in (3, 7))
    assert np.array_equal(few.reset(), many.reset()[:3])
    big = line([(Family.goal_forward, 2.0)] * 4000)
    obs = big.reset()
    assert np.abs(obs[:, 0]).max() <= 0.01
    assert obs[:, 1].std() == pytest.approx(0.1, rel=0.1)


def test_noise_is_seen_and_not_felt():
    quiet, loud = (line([(Family.goal_forward, 2.0)] * 500, noise_std=s) for s in (0.0, 0.1))
    quiet.reset(), loud.reset()
    for _ in range(5):
        a, r, *_ = quiet.step(np.full((500, 1), 0.3, np.float32))
        b, q, *_ = loud.step(np.full((500, 1), 0.3, np.float32))
    assert np.array_equal(r, q)
    assert (b - a).std() == pytest.approx(0.1, rel=0.1)


def test_an_episode_goes_on_from_its_state():
    env, twin = (line([(Family.goal_forward, 2.0)] * 3, 1, noise_std=0.1) for _ in range(2))
    env.reset()
    env.step(np.ones((3, 1), np.float32))
    twin.load_state_dict(env.state_dict())
    for _ in range(3):
        assert np.array_equal(env.step(np.ones((3, 1), np.float32))[0], twin.step(np.ones((3, 1), np.float32))[0])
    assert np.array_equal(env.reset(), twin.reset())


def test_what_is_returned_stays_as_it_was():
    env = line([(Family.goal_forward, 2.0)])
    obs = env.reset()
    before = obs.copy()
    later, reward, _, _ = env.step(f32(1)[None])
    kept = later.copy(), reward.copy()
    env.step(f32(1)[None])
    assert np.array_equal(obs, before)
    assert np.array_equal(later, kept[0])
    assert np.array_equal(reward, kept[1])


def test_actions_are_cut_and_tasks_can_switch():
    env = line([(Family.goal_forward, 2.0)])
    env.reset()
    env._state[:] = 0
    obs, reward, _, _ = env.step(f32(7)[None])
    assert obs[0] == pytest.approx([0.5, 5.0])
    assert reward[0] == pytest.approx(-0.75)
    env.set_tasks(Tasks.of([Task(Family.velocity_forward, 2.5)]))
    assert env.step(f32(0.5)[None])[1][0] == pytest.approx(0.0, abs=1e-6)


def test_bad_use_is_refused():
    with pytest.raises(UsageError, match="did you mean toy1d"):
        VectorToy("toy1", Tasks.of([Task(Family.goal_forward, 2.0)]), 0)
    with pytest.raises(UsageError, match="no vz, which jump"):
        line([(Family.jump, 2.0)])
    env = line([(Family.goal_forward, 2.0)], horizon=1)
    with pytest.raises(UsageError, match="reset"):
        env.step(f32(0)[None])
    env.reset()
    env.step(f32(0)[None])
    with pytest.raises(UsageError, match="reset"):
        env.step(f32(0)[None])


def test_what_is_observed_goes_there_and_back():
    obs = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    assert np.array_equal(toy.obs_of("toy1d-multi", toy.state_of("toy1d-multi", obs)), obs)
    assert np.array_equal(toy.obs_of("toy1d", toy.state_of("toy1d-multi", obs)), obs[:, [0, 3]])
    assert t.quantity(Family.goal_left) == ("x", "y")
