"""Families, rewards, successes and task sets."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlcore.errors import UsageError
from taskinfer import tasks as t
from taskinfer.tasks import Family, State, Task, Tasks

ONE_D = [f for f in Family if f < Family.velocity_left]


def state(n: int = 1, **known: float) -> State:
    return State(**{name: np.full(n, known.get(name, 0.0), np.float32) for name in State._fields})


@pytest.mark.parametrize(
    ("task", "where", "expected"),
    [
        (Task(Family.velocity_forward, 2.0), {"vx": 1.5}, -0.25),
        (Task(Family.goal_backward, -10.0), {"x": 7.5}, -1.75),
        (Task(Family.stand_front, math.pi / 2), {"pitch": 1.0}, -0.36338),
        (Task(Family.jump, 2.0), {"vz": -2.0}, 0.0),
        (Task(Family.velocity_right, 2.0), {"vx": 1.0}, -0.25),
        (Task(Family.goal_up, 2.0), {"x": 2.0, "y": 2.0}, -1.0),
        (Task(Family.direction_backward, -1.0), {"vx": -3.0}, 3.0),
        (Task(Family.velocity, 2.5), {"vx": 1.0}, -1.5),
        (Task(Family.flip_forward, 8.0), {"omega": 6.0}, -0.25),
    ],
)
def test_rewards_by_hand(task: Task, where: dict[str, float], expected: float):
    assert t.reward(Tasks.of([task]), state(**where))[0] == pytest.approx(expected, abs=1e-5)


def one_at_a_time(task: Task, s: dict[str, float]) -> float:
    """The reward as the formulas of the families read."""
    stem, _, way = task.family.name.partition("_")
    w = task.spec
    if way in ("left", "right", "up", "down"):
        x, y = (s["x"], s["y"]) if stem == "goal" else (s["vx"], s["vy"])
        wx, wy = (w, 0.0) if way in ("left", "right") else (0.0, w)
        return -((x - wx) ** 2 + (y - wy) ** 2) / w**2
    if stem == "direction":
        return w * s["vx"]
    if task.family == Family.velocity:
        return -abs(s["vx"] - w)
    value = {"velocity": s["vx"], "goal": s["x"], "stand": s["pitch"], "jump": abs(s["vz"]), "flip": s["omega"]}[stem]
    return -abs(value - w) / abs(w)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(list(Family)), st.floats(0.5, 20.0)), min_size=1, max_size=9), st.randoms())
def test_a_batch_of_mixed_families_is_the_formulas_one_by_one(rows, random):
    made = [Task(f, w * (t.SIGN[f] or 1)) for f, w in rows]
    values = {name: np.array([random.uniform(-9, 9) for _ in made], np.float32) for name in State._fields}
    got = t.reward(Tasks.of(made), State(**values))
    wanted = [one_at_a_time(task, {k: float(v[i]) for k, v in values.items()}) for i, task in enumerate(made)]
    np.testing.assert_allclose(got, wanted, rtol=2e-4, atol=2e-4)


def test_ids_are_for_ever_and_agree_between_stages():
    """D10: two stages that name their tasks in other orders mean the same ids."""
    assert [int(Family[f.name]) for f in Family] == list(range(19))
    assert (Family.velocity_forward, Family.jump, Family.flip_forward, Family.velocity) == (0, 6, 7, 10)
    orders = {t.parse_families(",".join(p)) for p in itertools.permutations(["velocity", "goal", "jump", "stand"])}
    assert orders == {tuple(Family(i) for i in range(7))}
    assert t.parse_families("goal,goal_forward") == (Family.goal_forward, Family.goal_backward)
    assert all(t.parse_families("goal,velocity", planar=True)[i] == 11 + i for i in range(8))


def test_the_normaliser_belongs_to_the_task():
    """D28: a halved target has a halved normaliser; goals are measured from where they were set."""
    whole, half = Tasks.of([Task(Family.velocity_forward, 2.0)]), Tasks.of([Task(Family.velocity_forward, 1.0)])
    assert t.reward(half, state())[0] == t.reward(whole, state())[0] == -1.0
    shifted = Tasks.of(family=[2, 2], spec=[51.0, 1.0], start=np.array([50.0, 0.0]))
    at = State(*(np.array([50.25, 0.25], np.float32) if name == "x" else np.zeros(2) for name in State._fields))
    assert t.reward(shifted, at) == pytest.approx([-0.75, -0.75], abs=1e-5)
    assert np.isfinite(t.reward(Tasks.of(family=[2], spec=[3.0], start=3.0), state(x=1.0))).all()


def test_an_unused_entry_of_the_state_may_be_anything():
    made = Tasks.of([Task(Family.goal_forward, 1.0), Task(Family.velocity_forward, 1.0)])
    wild = state(2, x=0.5, vx=0.5)._replace(pitch=np.full(2, np.nan), omega=np.full(2, np.inf))
    assert t.reward(made, wild).tolist() == [-0.5, -0.5]


def test_success_looks_at_the_last_tenth():
    made = Tasks.of([Task(Family.goal_forward, 2.0), Task(Family.velocity_backward, -1.0)])
    errors = np.full((200, 2), 9.0)
    errors[-20:] = [0.29, 0.21]  # thresholds 0.3 and 0.2 on the toy
    assert t.success(made, errors).tolist() == [True, False]
    assert t.success(made, errors, t.BODY).tolist() == [True, True]
    standing = Tasks.of([Task(Family.direction_forward, 1.0)])
    assert not t.success(standing, t.error(standing, state())[None])[0]


@settings(max_examples=25)
@given(
    st.sets(st.sampled_from([f for f in ONE_D if not f.name.startswith("direction")]), min_size=1), st.integers(0, 9)
)
def test_task_sets_are_disjoint_seeded_and_in_range(families, seed):
    train, held = t.make_task_sets(list(families), 20, 10, seed)
    assert (len(train), len(held)) == (20, 10)
    pairs = {(int(f), float(w)) for f, w in zip(train.family, train.spec)}
    assert not pairs & {(int(f), float(w)) for f, w in zip(held.family, held.spec)}
    assert set(train.family.tolist()) == {int(f) for f in families}
    for f, w in zip(train.family, train.spec):
        low, high = t.TOY_RANGES[Family(int(f))]
        assert low - 1e-5 <= w <= high + 1e-5
    again, _ = t.make_task_sets(sorted(families, reverse=True), 20, 10, seed)
    assert np.array_equal(again.spec, train.spec)
    other, _ = t.make_task_sets(list(families), 20, 10, seed + 1)
    assert not np.array_equal(other.spec, train.spec)


def test_default_sets_hold_twenty_and_ten_of_each_family():
    train, held = t.make_task_sets(t.parse_families("goal,velocity"), 80, 40, 0)
    assert np.bincount(train.family).tolist() == [20] * 4
    assert np.bincount(held.family).tolist() == [10] * 4


def test_tasks_are_read_from_text():
    made = t.parse_tasks("goal:5,-5; velocity:2;stand_front:0.8")
    assert [str(task) for task in made.single()] == [
        "goal_forward:5", "goal_backward:-5", "velocity_forward:2", "stand_front:0.8",
    ]  # fmt: skip
    assert made[1:3].single() == made.single()[1:3]


@pytest.mark.parametrize(
    ("text", "said"),
    [("gaol:5", "did you mean goal"), ("goal:", "expected e.g."), ("", "expected"), ("goal:0", "no task"),
     ("jump:-2", "no task"), ("goal_forward:-1", "positive"), ("goal:nan", "no task")],
)  # fmt: skip
def test_bad_tasks_are_named(text: str, said: str):
    with pytest.raises(UsageError) as caught:
        t.parse_tasks(text)
    assert said in str(caught.value)


def test_the_family_that_is_called_like_its_group_has_a_name_of_its_own():
    assert t.parse_families("velocity_plain") == (Family.velocity,)
    assert Family.velocity not in t.parse_families("velocity")
    assert t.parse_tasks("velocity_plain:0.5").single() == [made := Task(Family.velocity, 0.5)]
    assert t.parse_tasks(str(made)).single() == [made]
    with pytest.raises(UsageError, match="did you mean velocity_plain"):
        t.parse_families("velocity_plane")


def test_bad_families_and_counts_are_named():
    with pytest.raises(UsageError, match="did you mean velocity"):
        t.parse_families("velocty")
    with pytest.raises(UsageError, match="cannot cover"):
        t.make_task_sets(t.parse_families("goal"), 1, 1, 0)
