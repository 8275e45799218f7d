"""The toy, the mazes and the kitchen: what they promise to the learners, and how they refuse."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import numpy as np
import pytest

from gasp import envs, kitchen_obs
from gasp.envs.grid import Grid
from gasp.envs.kitchen import Kitchen, check_mujoco, subtasks_of
from gasp.envs.toy import Toy
from gasp.kitchen_obs import GOALS, SUBTASKS
from rlcore.errors import DataError, EnvironmentProblem, UsageError

TASKS = ["toy", "maze-medium", "kitchen"]
needs_robotics = pytest.mark.skipif(
    not {"gymnasium-robotics", "mujoco"} <= {d.metadata["Name"].lower() for d in importlib.metadata.distributions()},
    reason="the extra `robotics` is not installed",
)


def tasks(*names: str) -> Any:
    marks = {name: () if name == "toy" else (needs_robotics,) for name in names}
    return pytest.mark.parametrize("task", [pytest.param(name, marks=marks[name]) for name in names])


@tasks(*TASKS)
def test_sizes_are_as_described_and_everything_is_finite_float32(task: str):
    spec = envs.describe(task)
    vec = envs.make(task, 2, seed=100)
    obs = vec.reset()
    assert obs.shape == (2, spec.obs_dim)
    assert vec.single_action_space.shape == (spec.action_dim,)
    assert (vec.single_action_space.low == -1).all()
    assert (vec.single_action_space.high == 1).all()
    for _ in range(5):
        moved = vec.step(vec.sample())
        assert moved.obs.dtype == np.float32
        assert np.isfinite(moved.obs).all()
        assert moved.info["success"].shape == (2,)
        if spec.subtasks:
            assert moved.info["completed"].shape == (2, len(spec.subtasks))
    vec.close()


@tasks(*TASKS)
def test_the_time_limit_truncates_and_the_same_seed_repeats(task: str):
    def lived(seed: int) -> list[np.ndarray]:
        vec, rng = envs.make(task, 1, seed=seed, episode_length=7), np.random.default_rng(0)
        found = [vec.reset().copy()]
        for t in range(1, 16):
            moved = vec.step(rng.uniform(-0.1, 0.1, (1, envs.describe(task).action_dim)).astype(np.float32))
            assert bool(moved.truncated[0]) == (t % 7 == 0)
            assert not moved.terminated.any()
            found.append(moved.obs.copy())
        vec.close()
        return found

    first, again, other = np.array(lived(100)), np.array(lived(100)), np.array(lived(101))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@tasks(*TASKS)
def test_a_vector_goes_on_where_it_was_saved(task: str):
    rng = np.random.default_rng(1)
    actions = rng.uniform(-1, 1, (12, 2, envs.describe(task).action_dim)).astype(np.float32)
    vec = envs.make(task, 2, seed=100, episode_length=8)
    vec.reset()
    for action in actions[:5]:
        vec.step(action)
    state = vec.state_dict()
    rest = [vec.step(action).obs.copy() for action in actions[5:]]
    vec.close()
    other = envs.make(task, 2, seed=100, episode_length=8)
    other.load_state_dict(state)
    for action, expected in zip(actions[5:], rest):
        np.testing.assert_array_equal(other.step(action).obs, expected)
    other.close()


@tasks("toy", "maze-medium")
def test_the_goal_ends_an_episode_with_reward_one(task: str):
    env: Any = envs.single(task).unwrapped
    grid: Grid = env.grid
    obs, _ = env.reset(seed=100)
    goal = env.goal if task == "toy" else grid.xy(env.goal_cell)
    way = grid.path(grid.cell(obs[:2]), grid.cell(goal))[1:]
    rewards = []
    for _ in range(env.episode_length):
        if len(way) > 1 and np.hypot(*(grid.xy(way[0]) - obs[:2])) < 0.3:
            way = way[1:]
        gain = (4, 5) if task == "toy" else (8, 2.5)
        obs, reward, terminated, truncated, info = env.step(gain[0] * (grid.xy(way[0]) - obs[:2]) - gain[1] * obs[2:])
        assert terminated == info["success"] == (reward == 1.0)
        rewards.append(reward)
        if terminated or truncated:
            break
    assert rewards[-1] == 1.0
    assert sum(rewards) == 1.0
    assert np.hypot(*(obs[:2] - goal)) <= 0.45
    env.close()


def test_the_toy_by_hand():
    """At rest in the middle of the first cell: v = 0.1 a, x = x + v; then v = 0.05 + 0.1 a. Walls stop an axis."""
    env = Toy()
    env.reset(seed=0)
    x, y = env.grid.xy((1, 1))
    env.state[:] = x, y, 0, 0
    assert env.step(np.array([1.0, 0.0]))[0].tolist() == pytest.approx([x + 0.1, y, 0.1, 0])
    assert env.step(np.array([1.0, 0.0]))[0].tolist() == pytest.approx([x + 0.25, y, 0.15, 0])
    for _ in range(20):
        obs = env.step(np.array([0.0, 5.0]))[0]
    assert obs[1] == pytest.approx(y + 0.3)  # a wall at 0.5, a radius of 0.2
    assert obs[3] == 0


def test_the_goal_in_the_very_last_step_is_an_end_and_no_time_limit():
    env = Toy(episode_length=1)
    env.reset(seed=0)
    env.state[:2] = env.goal
    assert env.step(np.zeros(2))[1:4] == (1.0, True, False)


def test_the_toy_hands_on_what_is_not_finite_as_simulators_do():
    env = Toy()
    env.reset(seed=0)
    obs, reward, terminated, _, _ = env.step(np.array([np.nan, 1.0]))
    assert np.isnan(obs[[0, 2]]).all()
    assert (reward, terminated) == (0.0, False)


def test_the_toy_stays_out_of_walls_whatever_is_done():
    env, rng = Toy(episode_length=10**6), np.random.default_rng(0)
    env.reset(seed=0)
    for _ in range(3000):
        obs = env.step(rng.uniform(-1, 1, 2) + rng.choice([-1, 1]))[0]
        assert env.grid.free[env.grid.cell(obs[:2])]


def test_paths_are_shortest_and_refuse_the_impossible():
    grid = Grid.of([list("11111"), list("10001"), list("11101"), list("10001"), list("11111")])
    assert grid.path((1, 1), (3, 1)) == [(1, 1), (1, 2), (1, 3), (2, 3), (3, 3), (3, 2), (3, 1)]
    for cell in grid.cells():
        assert grid.cell(grid.xy(cell)) == cell
    island = Grid.of([list("10101")])
    with pytest.raises(UsageError, match="no way"):
        island.path((0, 1), (0, 3))


@pytest.mark.parametrize(
    ("task", "options", "said"),
    [
        ("maze-medum", {}, "did you mean maze-medium"),
        ("toy:0,0", {}, "goal: 0,0 is no free cell"),
        ("toy:here", {}, "goal: expected ROW,COLUMN"),
        ("toy", {"gaol": "1,1"}, "did you mean goal"),
        ("toy", {"episode_length": "9"}, "expected int"),
        ("kitchen:microvave", {}, "did you mean microwave"),
        ("kitchen:kettle,kettle", {}, "named twice"),
        ("kitchen-mixed:kettle", {}, "no task"),
        ("kitchen", {"obs_mode": "full60"}, "obs_mode must be one of"),
        ("kitchen", {"task_order": "none"}, "task_order must be one of"),
    ],
)
def test_what_does_not_exist_is_refused_in_words(task: str, options: dict[str, Any], said: str):
    with pytest.raises((UsageError, EnvironmentProblem), match=said):
        envs.make(task, 1, seed=0, **options)


# --- the kitchen -----------------------------------------------------------------------------------------------------
def test_goals_are_those_of_gymnasium_robotics():
    module = pytest.importorskip("gymnasium_robotics.envs.franka_kitchen.kitchen_env")
    assert set(GOALS) == set(module.OBS_ELEMENT_GOALS)
    for name, (indices, values) in GOALS.items():
        assert list(indices) == list(module.OBS_ELEMENT_INDICES[name])
        np.testing.assert_array_equal(values, module.OBS_ELEMENT_GOALS[name])
    assert kitchen_obs.REACHED == module.BONUS_THRESH


@pytest.fixture(scope="module")
def kitchen() -> Any:
    pytest.importorskip("gymnasium_robotics")
    env = Kitchen("complete", obs_mode="legacy60")
    yield env
    env.close()


def do(env: Kitchen, *subtasks: str) -> None:
    """Put things where subtasks want them, as if by magic."""
    for subtask in subtasks:
        indices, values = GOALS[subtask]
        env.raw.data.qpos[list(indices)] = values


@needs_robotics
def test_legacy60_is_qpos_and_the_goals_of_the_subtasks(kitchen: Kitchen):
    obs, _ = kitchen.reset(seed=100)
    qpos = kitchen.raw.data.qpos
    np.testing.assert_allclose(obs[:9], qpos[:9], atol=0.01)  # the noise on the robot's joints
    np.testing.assert_allclose(obs[9:30], qpos[9:], atol=1e-3)
    asked = [i for name in kitchen.subtasks for i in GOALS[name][0]]
    assert set(np.flatnonzero(obs[30:])) <= set(asked)
    assert obs[30 + 22] == -0.75
    assert obs[30 + 11] == 0  # the bottom burner, which nobody asked for


def test_modes_of_observation_are_parts_of_each_other():
    full = np.arange(59, dtype=np.float32)[None]
    state = kitchen_obs.convert(full, "full59", "state30")
    assert state[0].tolist() == [*range(9), *range(18, 39)]
    legacy = kitchen_obs.convert(full, "full59", "legacy60", ["slide cabinet"])
    assert legacy.shape == (1, 60)
    assert legacy[0, 30:].nonzero()[0].tolist() == [19]
    np.testing.assert_array_equal(kitchen_obs.convert(legacy, "legacy60", "state30"), state)
    with pytest.raises(DataError, match="has 59 numbers, got 60"):
        kitchen_obs.convert(legacy, "full59", "state30")


def test_goals_of_unknown_subtasks_are_not_zeros():
    with pytest.raises(DataError, match="needs the goals of the subtasks"):
        kitchen_obs.convert(np.zeros((1, 59)), "full59", "legacy60")


def test_spaces_in_a_list_of_subtasks_do_not_matter():
    spec = envs.describe("kitchen:microwave, hinge_cabinet ,light switch")
    assert spec.subtasks == ("microwave", "hinge cabinet", "light switch")
    opened = envs.parse(spec.name, {})[1]  # the factory reads the name a second time
    assert subtasks_of(opened) == spec.subtasks


@needs_robotics
def test_subtasks_count_once_in_any_order_and_all_of_them_end_the_episode(kitchen: Kitchen):
    kitchen.reset(seed=100)
    do(kitchen, "slide cabinet")
    _, reward, terminated, _, info = kitchen.step(np.zeros(9))
    assert (reward, terminated) == (1.0, False)
    assert info["completed"].tolist() == [False, False, False, True]
    kept = info["completed"]
    kitchen.raw.data.qpos[19] = 0.0  # closed again: what was done stays done
    assert kitchen.step(np.zeros(9))[1] == 0.0
    do(kitchen, "microwave", "kettle", "light switch")
    _, reward, terminated, _, info = kitchen.step(np.zeros(9))
    assert (reward, terminated, info["success"]) == (3.0, True, True)
    kitchen.reset(seed=101)
    assert kept.tolist() == [False, False, False, True]  # a copy, not the live list
    assert info["completed"].all()


@needs_robotics
def test_enforced_order_counts_a_subtask_once_those_before_it_are_done(kitchen: Kitchen):
    kitchen.order = "enforced"
    try:
        kitchen.reset(seed=100)
        do(kitchen, "kettle")
        assert kitchen.step(np.zeros(9))[1] == 0.0
        do(kitchen, "microwave", "kettle")
        assert kitchen.step(np.zeros(9))[1] == 2.0
    finally:
        kitchen.order = "any"


@needs_robotics
def test_completed_is_that_of_the_step_even_where_the_episode_ended():
    vec = envs.make("kitchen:kettle", 1, seed=100)
    vec.reset()
    inner: Any = vec
    do(inner.vec.envs[0].unwrapped, "kettle")
    moved = vec.step(np.zeros((1, 9), np.float32))
    assert moved.terminated[0]
    assert moved.info["completed"].tolist() == [[True]]
    assert vec.step(np.zeros((1, 9), np.float32)).info["completed"].tolist() == [[False]]
    vec.close()


def test_a_mujoco_that_is_too_new_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "3.12.0")
    with pytest.raises(EnvironmentProblem, match=r"needs mujoco<3\.12, found 3\.12\.0; run: uv pip install"):
        check_mujoco()
    for fine in ("3.3.0", "3.11.2"):
        monkeypatch.setattr(importlib.metadata, "version", lambda name, fine=fine: fine)
        check_mujoco()


@needs_robotics
def test_worker_processes_see_the_same_kitchen():
    vecs = [envs.make("kitchen", 1, seed=100, backend=backend, episode_length=3) for backend in ("sync", "async")]
    try:
        np.testing.assert_array_equal(*[vec.reset() for vec in vecs])
        for _ in range(4):
            one, two = (vec.step(np.full((1, 9), 0.3, np.float32)) for vec in vecs)
            np.testing.assert_array_equal(one.obs, two.obs)
            np.testing.assert_array_equal(one.info["completed"], two.info["completed"])
    finally:
        for vec in vecs:
            vec.close()


def test_every_set_of_subtasks_can_be_described():
    for name, subtasks in envs.KITCHEN_SETS.items():
        spec = envs.describe(f"kitchen-{name}")
        assert spec.subtasks == subtasks
        assert set(subtasks) <= set(SUBTASKS)
    assert envs.describe("kitchen:light_switch,hinge cabinet").subtasks == ("light switch", "hinge cabinet")
    assert envs.describe("maze-large").episode_length == 800
