"""Bodies by joint name, as one vector that resumes, and what is no body."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box

from rlcore.errors import EnvironmentProblem, UsageError
from taskinfer.cli import main
from taskinfer.envs.bodies import BODIES, Bodies, SubGoal, make_body
from taskinfer.envs.planar import PlanarBody
from taskinfer.tasks import State

SICK = """
import numpy as np
from gymnasium.spaces import Box
from taskinfer.tasks import State

class Slider:
    '''x' = x + 0.1 a. Observes its velocity and a clock, so that an absolute position cannot leak.'''
    observation_dim, dt = 2, 0.1
    action_space = Box(-2.0, 2.0, (1,), np.float32)
    def __init__(self, sick_from=10**9, sick_until=10**9, length=10**9, noise=False):
        self.sick_from, self.sick_until, self.length, self.noise = sick_from, sick_until, length, noise
        self.total = 0
    def reset(self, seed):
        self.rng = np.random.default_rng(None if self.noise else seed)
        self.x, self.v, self.t = self.rng.uniform(-0.01, 0.01), 0.0, 0
        return self.obs()
    def step(self, action):
        assert np.abs(action).max() <= 2.0
        self.v = float(action[0]) + 0.1 * self.rng.standard_normal()
        self.x, self.t, self.total = self.x + 0.1 * self.v, self.t + 1, self.total + 1
        if self.sick_from <= self.total < self.sick_until:
            self.x = float("nan")
        return self.obs()
    def obs(self):
        return np.array([self.v, 0.01 * self.t], np.float32)
    def simple_state(self):
        zero = np.zeros(())
        return State(np.asarray(self.x), np.asarray(self.v), zero, zero, zero, zero)
    def healthy(self):
        return self.t < self.length
    def render(self):
        return np.zeros((4, 4, 3), np.uint8)
    def close(self):
        pass

def slider(): return Slider()
def falls(): return Slider(length=7)
def sick(): return Slider(sick_from=30)
def sick_once(): return Slider(sick_from=30, sick_until=31)
def noisy(): return Slider(noise=True)
class Half:
    observation_dim = 3
def half(): return Half()
def broken(): raise ValueError("no licence")
"""


@pytest.fixture
def sliders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Bodies of the module `slider_bodies`, which needs no simulator."""
    (tmp_path / "slider_bodies.py").write_text(SICK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("slider_bodies", None)
    return tmp_path


def test_the_cheetah_is_read_by_joint_name_not_by_index():
    """D11: a body whose observation has another order must not be read by the cheetah's indices."""
    for name, indices in (("cheetah", (8, 9, 10)), ("Hopper-v5", (5, 6, 7)), ("Walker2d-v5", (8, 9, 10))):
        body = make_body(name)
        assert isinstance(body, PlanarBody)
        body.reset(3)
        rng, space = np.random.default_rng(0), body.action_space
        for _ in range(5):
            obs, before = body.step(rng.uniform(space.low, space.high)), None
        state = body.simple_state()
        np.testing.assert_allclose([state.vx, state.vz, state.omega], obs[list(indices)], rtol=1e-6)
        np.testing.assert_allclose([state.z, state.pitch], obs[:2], rtol=1e-6)
        before = float(state.x)
        body.step(np.zeros(space.shape, np.float32))
        after = body.simple_state()
        assert abs((after.x - before) / body.dt - 0.5 * (state.vx + after.vx)) < 0.2
        body.close()


def test_the_observation_holds_no_absolute_x():
    body: Any = make_body("cheetah")
    body.reset(0)
    moved = body.env.data.qpos.copy()
    moved[0] += 7.0
    obs = body.env._get_obs()
    body.env.set_state(moved, body.env.data.qvel.copy())
    np.testing.assert_array_equal(body.env._get_obs(), obs)
    assert abs(body.simple_state().x - 7.0) < 0.2
    assert body.observation_dim == 17


def test_another_joint_name_is_refused_with_those_there_are():
    with pytest.raises(UsageError, match=r"no joint 'spine' to read x from \(it has rootx, rootz, rooty"):
        PlanarBody("HalfCheetah-v5", {"x": "spine", "z": "rootz", "pitch": "rooty"})


def test_no_renderer_unless_asked_for():
    body: Any = make_body("cheetah")
    assert body.env.render_mode is None
    assert body.env.mujoco_renderer.viewer is None
    body.close()


DRAW = """
from taskinfer.envs.bodies import Bodies
from rlcore.errors import EnvironmentProblem
try:
    bodies = Bodies("cheetah", 1, seed=0, horizon=5, render=True)
    bodies.reset()
    picture = bodies.render()[0]
    print(picture.shape, picture.dtype, picture.std() > 1)
    bodies.close()
except EnvironmentProblem as error:
    print(error)
"""


@pytest.mark.parametrize("backend", ["egl", "osmesa"])
def test_a_picture_or_one_line_that_says_what_to_do(backend: str, tmp_path: Path):
    environ = os.environ | {"MUJOCO_GL": backend}  # MuJoCo reads it when it is imported
    done = subprocess.run([sys.executable, "-c", DRAW], env=environ, capture_output=True, text=True, cwd=tmp_path)
    drawn = "(480, 480, 3) uint8 True\n"
    assert done.stdout == drawn or "set MUJOCO_GL=egl (or osmesa)" in done.stdout, done.stderr


def test_a_vector_of_bodies_resumes_in_the_middle_of_episodes():
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (45, 3, 6)).astype(np.float32)
    one = Bodies("cheetah", 3, seed=5, horizon=20)
    one.reset()
    for action in actions[:27]:
        one.step(action)
    saved = one.state_dict()
    other = Bodies("cheetah", 3, seed=5, horizon=20)
    other.load_state_dict(saved)
    np.testing.assert_array_equal(other.obs, one.obs)
    np.testing.assert_array_equal(other.state_dict()["actions"], saved["actions"])  # it can be saved again at once
    for action in actions[27:]:
        a, b = one.step(action), other.step(action)
        for left, right in zip(a[:-1], b[:-1]):
            np.testing.assert_array_equal(np.array(left), np.array(right))
    assert one.episode.tolist() == [2, 2, 2]


def test_the_time_limit_truncates_and_the_true_last_observation_is_kept(sliders: Path):
    bodies = Bodies("slider_bodies:slider", 2, seed=0, horizon=3)
    bodies.reset()
    steps = [bodies.step(np.full((2, 1), 0.5, np.float32)) for _ in range(3)]
    assert [step.truncated.all() for step in steps] == [False, False, True]
    assert not any(step.terminated.any() for step in steps)
    np.testing.assert_allclose(steps[2].final_obs[:, 1], 0.03)
    np.testing.assert_allclose(steps[2].obs[:, 1], 0.0)
    assert (np.abs(bodies.state.x) < 0.011).all()  # the state is that of the new episode
    assert (steps[2].after.x > 0.2).all()  # 3 steps of a = 0.5 * 2 m/s: actions are mapped to the body's range


def test_a_fall_is_a_true_end(sliders: Path):
    bodies = Bodies("slider_bodies:falls", 1, seed=0, horizon=7)
    bodies.reset()
    steps = [bodies.step(np.zeros((1, 1), np.float32)) for _ in range(7)]
    assert [bool(step.terminated[0]) for step in steps] == [False] * 6 + [True]
    assert not steps[-1].truncated.any()  # never both


def test_a_cheetah_on_its_back_has_fallen_where_that_is_asked_for():
    """It never falls by itself; training says from which pitch on it has."""
    lies, goes_on = (Bodies("cheetah", 2, seed=1, horizon=50, tip=tip) for tip in (2.0, 0.0))
    for bodies in (lies, goes_on):
        bodies.reset()
        bodies.bodies[1].env.data.joint("rooty").qpos[0] = -3.0
    action = np.zeros((2, 6), np.float32)
    fell = lies.step(action)
    assert fell.terminated.tolist() == [False, True]
    assert abs(lies.state.pitch[1]) < 0.5  # the next episode has begun, upright
    assert fell.after.pitch[1] == pytest.approx(-3.0, abs=0.3)
    assert not goes_on.step(action).terminated.any()


def test_a_state_that_is_not_finite_ends_the_episode_and_never_leaves(sliders: Path):
    bodies = Bodies("slider_bodies:sick_once", 2, seed=0, horizon=100)
    bodies.reset()
    steps = [bodies.step(np.ones((2, 1), np.float32)) for _ in range(40)]
    assert [i for i, step in enumerate(steps) if step.broken.any()] == [29]
    sick = steps[29]
    assert sick.truncated.all()
    assert not sick.terminated.any()
    assert "body 1 (slider_bodies:sick_once, episode 0, reset seed " in sick.where[1]
    np.testing.assert_array_equal(sick.after.x, sick.before.x)
    np.testing.assert_array_equal(sick.final_obs, steps[28].obs)
    assert all(np.isfinite(np.stack(step.after)).all() and np.isfinite(step.obs).all() for step in steps)
    assert bodies.episode.tolist() == [1, 1]


def test_mujoco_giving_up_is_seen_though_it_hides_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """MuJoCo puts a body whose acceleration explodes back to its start, and goes on as if nothing had been."""
    monkeypatch.chdir(tmp_path)  # it writes MUJOCO_LOG.TXT
    bodies = Bodies("cheetah", 2, seed=0, horizon=100)
    bodies.reset()
    body: Any = bodies.bodies[1]
    body.env.data.qvel[0] = 1e30
    step = bodies.step(np.zeros((2, 6), np.float32))
    assert step.broken.tolist() == [False, True]
    assert np.isfinite(step.obs).all()
    assert not bodies.step(np.zeros((2, 6), np.float32)).broken.any()


def test_subgoals_change_frames_only_where_they_are_goals():
    x = np.array([2.0, -1.0])
    both = SubGoal(np.array([0, 1]), np.array([1.5, 1.5]))
    moved = both.absolute(x)
    assert moved.value.tolist() == [3.5, 1.5]
    assert moved.relative(x).value.tolist() == [1.5, 1.5]
    assert moved.absolute(x) is moved
    assert SubGoal.of("velocity", [1.0, 2.0]).group.tolist() == [1, 1]
    with pytest.raises(UsageError, match="did you mean velocity"):
        SubGoal.of("velocit", 1.0)


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("cheeta", UsageError, "did you mean cheetah"),
        ("Ant-v5", UsageError, "has no joint 'rootx' to read x from (it has root, hip_1"),
        ("CartPole-v1", UsageError, "its action_space is Discrete(2), a body needs a Box"),
        ("Pendulum-v1", UsageError, "is no MuJoCo environment"),
        ("slider_bodies:broken", EnvironmentProblem, "cannot be built: ValueError: no licence"),
        ("slider_bodies:nothing", EnvironmentProblem, "nothing"),
        ("no_such_module:body", EnvironmentProblem, "No module named 'no_such_module'"),
    ],
)
def test_what_is_no_body_is_named(name: str, error: type[Exception], text: str, sliders: Path):
    with pytest.raises(error) as caught:
        make_body(name)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("cheetah", 0, "17 observations, 6 actions in [-1, 1], 0.05 s a step"),
        ("slider_bodies:slider", 0, "200 random steps are finite"),
        ("slider_bodies:falls", 0, "it fell after 7 random steps"),
        ("slider_bodies:sick", 5, "step 30 gave numbers that are not finite"),
        ("slider_bodies:noisy", 5, "the same seed and actions end elsewhere"),
        ("slider_bodies:half", 5, "has no action_space, dt, reset, step, simple_state, healthy, render, close"),
        ("Ant-v5", 5, "has no joint 'rootx'"),
    ],
)
def test_body_check_says_what_is_missing(
    name: str, code: int, text: str, sliders: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["body", "check", name]) == code
    assert text in capsys.readouterr().out


def test_every_named_body_can_be_made():
    for name in BODIES:
        body = make_body(name)
        assert isinstance(body.action_space, Box)
        assert isinstance(body.simple_state(), State)
        body.close()
