"""The lean Meta-World beside the installed one, bit for bit, and its stand-ins beside what they stand for."""

from __future__ import annotations

import builtins
import importlib.util
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collective import envs
from collective.config import MT50
from rlcore.errors import EnvironmentProblem

needs_metaworld = pytest.mark.skipif(importlib.util.find_spec("metaworld") is None, reason="no metaworld")
Array = np.ndarray[Any, Any]

# One of each kind: what the observation holds, how contacts count, which reward helpers are used, what is drawn anew.
KINDS = (
    "reach-v3", "push-v3", "pick-place-v3", "door-open-v3", "peg-insert-side-v3", "window-open-v3", "hammer-v3",
    "stick-pull-v3", "sweep-into-v3", "coffee-pull-v3", "assembly-v3", "box-close-v3", "lever-pull-v3",
)  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Files of these tests alone: the first env of a task is cold, later ones are warm."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLLECTIVE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def goals(task: str, *which: int) -> Array:
    from collective.envs.goals import goals_of

    return goals_of(task, 0)[list(which)]


@needs_metaworld
@pytest.mark.parametrize("task", KINDS)
def test_equal_to_meta_world_step_by_step(task: str):
    from upstream import compared

    compared(task, goals(task, 3, 11, 3), steps=35)


@needs_metaworld
@pytest.mark.slow
@pytest.mark.parametrize("task", MT50)
def test_equal_on_every_task_and_solved(task: str):
    from upstream import compared

    assert compared(task, goals(task, 0, 17, 42), steps=400) > 0


@needs_metaworld
@pytest.mark.parametrize(("task", "version", "hidden"), [
    ("push-v3", "v1", False), ("door-open-v3", "v1", False), ("pick-place-v3", "v2", True),
])  # fmt: skip
def test_other_rewards_and_hidden_goals_are_equal_too(task: str, version: str, hidden: bool):
    from upstream import compared

    compared(task, goals(task, 5, 6), 40, version, hidden)


@needs_metaworld
def test_pictures_change_no_number():
    from collective.envs.lean import lean_env

    plain, seen = lean_env("door-open-v3"), lean_env("door-open-v3", pictures=True)
    assert plain.model.ngeom < seen.model.ngeom
    act, goal = envs.scripted("door-open-v3"), goals("door-open-v3", 8)[0]
    np.testing.assert_array_equal(obs := plain.begin(goal), seen.begin(goal))
    for _ in range(60):
        action = act(obs)
        (obs, reward, info), (same, *rest) = plain.advance(action), seen.advance(action)
        np.testing.assert_array_equal(obs, same)
        assert [reward, info] == rest


@needs_metaworld
def test_an_episode_does_not_depend_on_those_before():
    from collective.envs.lean import lean_env

    def lived(env: Any, goal: Array) -> list[Array]:
        return [env.begin(goal).copy(), *(env.advance(np.array([0.3, 0.2, -1, 1], np.float32))[0] for _ in range(30))]

    for task in ("box-close-v3", "basketball-v3"):
        env, (one, other) = lean_env(task), goals(task, 1, 2)
        first = lived(env, one)
        lived(env, other)
        np.testing.assert_array_equal(lived(env, one), first)


@needs_metaworld
@pytest.mark.parametrize("task", MT50)
def test_experts_act_as_meta_worlds_do(task: str):
    from metaworld.policies import ENV_POLICY_MAP

    rng = np.random.default_rng(0)
    obs = rng.uniform(-0.1, 0.9, (200, 39)).astype(np.float32)
    obs[100:, 4:7] = obs[100:, :3] + rng.normal(0, 0.03, (100, 3))  # near the object they act otherwise
    policy, act = ENV_POLICY_MAP[task](), envs.scripted(task)
    with pytest.warns(UserWarning, match="too high"):
        expected = [np.clip(policy.get_action(row.astype(np.float64)), -1, 1) for row in obs]
    np.testing.assert_array_equal([act(row) for row in obs], expected)
    np.testing.assert_array_equal(envs.script_actions([task], np.zeros(200, np.int64), obs), expected)


@needs_metaworld
def test_a_vector_of_real_tasks_is_one_whatever_steps_it():
    tasks = ("push-v3", "door-close-v3")
    here, there = (envs.make(tasks, seed=3, copies=2, horizon=25, workers=workers) for workers in (0, 2))
    np.testing.assert_array_equal(here.reset(), there.reset())
    for t in range(60):
        actions = envs.script_actions(tasks, here.task_index, here.current_obs)
        one, other = here.step(actions), there.step(actions)
        for a, b in zip(one[:4], other[:4]):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(one.info["success"], other.info["success"])
        if t == 40:
            state = pickle.loads(pickle.dumps(there.state_dict()))
            again = envs.make(tasks, seed=3, copies=2, horizon=25)
            again.load_state_dict(state)
        if t > 40:
            np.testing.assert_array_equal(again.step(actions).obs, one.obs)
    there.close()


@needs_metaworld
def test_a_simulator_that_breaks_down_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)  # mujoco writes a log where it stands
    vec = envs.make(["pick-place-v3"], seed=0, horizon=30)
    vec.reset()
    vec.step(vec.sample())
    before = vec.current_obs.copy()
    vec.slots.envs[0].env._raw.qvel[:] = np.nan  # type: ignore[union-attr]
    moved = vec.step(vec.sample())
    assert vec.unstable == 1
    assert moved.reward[0] == 0
    assert not moved.info["success"][0]
    np.testing.assert_array_equal(moved.obs, before)
    assert np.isfinite(vec.step(vec.sample()).obs).all()
    for count in (2, 3):  # again and again
        vec.slots.envs[0].env._raw.qvel[:] = np.nan  # type: ignore[union-attr]
        vec.step(vec.sample())
        assert vec.unstable == count
    other = envs.make(["pick-place-v3"], seed=0, horizon=30)
    state = vec.state_dict()
    state["obs"] = other.current_obs  # what broke it was no action: the replay must differ
    with pytest.warns(UserWarning, match="does not replay"):
        other.load_state_dict(state)
    assert other.unstable == 3


@needs_metaworld
def test_stand_ins_equal_what_they_stand_for():
    from metaworld.utils import reward_utils
    from scipy.spatial.transform import Rotation

    from collective.envs import standins

    rng = np.random.default_rng(0)
    for k in range(2_000):
        q = rng.normal(size=4) if k % 2 else np.eye(4)[k // 2 % 4] + 10.0 ** -rng.integers(1, 17) * rng.normal(size=4)
        matrix = Rotation.from_quat(q).as_matrix()
        ours = standins.Rotation.from_matrix(matrix).as_quat()
        np.testing.assert_array_equal(ours, Rotation.from_matrix(matrix).as_quat())
        x, low, width, margin = rng.normal(size=4) * 10.0 ** rng.integers(-6, 3, 4)
        kinds: tuple[Any, ...] = (float, np.float64, np.float32, np.atleast_1d)
        kind, sigmoid = kinds[k % 4], ("long_tail", "gaussian", "linear")[k % 3]
        args = kind(x), (low, low + abs(width) * (k % 5 > 0)), abs(margin) * (k % 7 > 0), sigmoid
        found, expected = standins.tolerance(*args), reward_utils.tolerance(*args)
        assert type(found) is type(expected)
        np.testing.assert_array_equal(found, expected)
        vector = rng.normal(size=rng.integers(1, 5))
        assert standins.norm(vector) == np.linalg.norm(vector)
        assert type(standins.norm(vector)) is type(np.linalg.norm(vector))
        assert standins.norm(vector[0]) == np.linalg.norm(vector[0])
        assert standins.norm(vector, ord=1) == np.linalg.norm(vector, ord=1)
        assert standins.clip(np.float32(x), -1, 1) == np.clip(np.float32(x), -1, 1)
    with pytest.raises(ValueError, match="Lower bound"):
        standins.tolerance(0.5, (1.0, 0.0), 0.1, "long_tail")
    with pytest.raises(ValueError, match="non-negative"):
        standins.tolerance(0.5, (0.0, 1.0), -0.1, "long_tail")


@needs_metaworld
def test_the_installed_package_is_left_as_it_is():
    from metaworld.envs.sawyer_push_v3 import SawyerPushEnvV3
    from metaworld.utils import reward_utils

    from collective.envs.lean import lean_class

    lean = lean_class("push-v3")
    assert lean.compute_reward is not SawyerPushEnvV3.compute_reward
    assert SawyerPushEnvV3.compute_reward.__globals__["reward_utils"] is reward_utils
    assert SawyerPushEnvV3.compute_reward.__globals__["np"] is np


def test_without_meta_world_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "metaworld", None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'collective\[metaworld\]'"):
        envs.make(["reach-v3"], seed=0)
    envs.single.unclipped.cache_clear()
    with pytest.raises(EnvironmentProblem, match=r"pip install 'collective\[metaworld\]'"):
        envs.scripted("reach-v3")


@needs_metaworld
def test_another_version_of_meta_world_is_pointed_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("collective.envs.metaworld.version_of", lambda _name: "3.9")
    with pytest.warns(UserWarning, match=r"metaworld 3.9 is installed.* equal 3\.1\.1"):
        envs.make(["reach-v3"], seed=0)


@needs_metaworld
def test_without_a_renderer_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch):
    for name in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(EnvironmentProblem, match="libosmesa6"):
        envs.make(["reach-v3"], seed=0, render=True)


@needs_metaworld
def test_a_renderer_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch):
    """What `import mujoco` does with MUJOCO_GL=osmesa where the library is missing."""
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    real = builtins.__import__

    def imports(name: str, *rest: Any) -> Any:
        if name == "metaworld":
            raise AttributeError("'NoneType' object has no attribute 'glGetError'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", imports)
    with pytest.raises(EnvironmentProblem, match=r"reach-v3 .*MUJOCO_GL=osmesa: apt-get install libosmesa6"):
        envs.make(["reach-v3"], seed=0)
    monkeypatch.delenv("MUJOCO_GL")
    with pytest.raises(AttributeError, match="glGetError"):  # whatever that is, it is not the renderer
        envs.make(["reach-v3"], seed=0)


@needs_metaworld
def test_pictures_are_drawn_where_they_can_be():
    program = (
        "from collective import envs; v = envs.make(['door-open-v3'], seed=0, render=True); v.reset();"
        "one = v.render(0); v.step(v.sample()); import numpy as np;"
        "print(one.shape, one.dtype, one.std() > 20, one[:40].mean() < one[-40:].mean() + 80, v.close())"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "MUJOCO_GL": "osmesa"}, capture_output=True, text=True
    )
    if "libosmesa6" in found.stderr:
        pytest.skip("no renderer here")
    assert found.stdout.startswith("(320, 480, 3) uint8 True True None"), found.stderr


def test_importing_loads_no_simulator():
    program = (
        "import sys; from collective import envs; envs.make(['toy-reach'], seed=0).reset(); envs.scripted('toy-push');"
        "print([name for name in ('mujoco', 'metaworld', 'scipy', 'torch') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
