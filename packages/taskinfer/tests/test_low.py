"""Task vectors, sub-goals that switch in mid-trajectory, and what is learnt from a stored step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlblocks.config import SACConfig
from rlcore.errors import UsageError
from taskinfer.analysis.tracking import Plan, Track, errors, follow, summary
from taskinfer.config import LowConfig
from taskinfer.envs.bodies import Bodies, BodyStep, SubGoal
from taskinfer.low import GOAL, REACH, WORST, Experience, LowLevel, TaskStream, as_tasks, draw, task_vector, told
from taskinfer.tasks import Family, State

GROUPS = ("goal", "velocity")
RANGES = {"goal": (0.5, 1.5), "velocity": (0.5, 2.5), "stand": (0.5, 1.5), "jump": (1.5, 3.0)}
CPU = torch.device("cpu")


def state(**values: Any) -> State:
    """A State of n bodies, 0 where nothing is said."""
    n = len(next(iter(values.values())))
    return State(**{name: np.asarray(values.get(name, np.zeros(n)), float) for name in State._fields})


def moved(obs: Any, before: State, after: State, terminated: Any = None, truncated: Any = None) -> BodyStep:
    n = len(before.x)
    no = np.zeros(n, bool)
    end = [no if flags is None else np.asarray(flags) for flags in (terminated, truncated)]
    return BodyStep(obs, obs, before, after, *end, no, {})


def experience(num: int = 2, **options: Any) -> Experience:
    rngs = {"rng": np.random.default_rng(0), "rows": np.random.default_rng(1)}
    return Experience(64, num, 3, 2, GROUPS, RANGES, **{"relabel": 0.0, "alive": 0.0, **rngs, **options})


def stream(num: int = 2, hold: tuple[int, int] = (3, 5)) -> TaskStream:
    return TaskStream(num, GROUPS, RANGES, hold, np.random.default_rng(2))


def test_a_reached_goal_is_not_the_absence_of_a_goal():
    """D16: masks say the group, so a value of 0 keeps its meaning."""
    goal, velocity = (task_vector(GROUPS, SubGoal.of(group, 0.0)) for group in GROUPS)
    assert goal.tolist() == [[1, 0, 0, 0]]
    assert velocity.tolist() == [[0, 0, 1, 0]]


def test_far_goals_look_equally_far():
    vector = task_vector(GROUPS, SubGoal.of("goal", [2.5, 40.0, -40.0]))
    assert vector[:, 1].tolist() == [2.5, REACH, -REACH]


def test_the_vector_is_only_of_the_groups_in_use():
    mixed = SubGoal(np.array([2, 3, 1]), np.array([0.7, 2.0, -1.0]))
    wide = task_vector(("velocity", "stand", "jump"), mixed)
    np.testing.assert_allclose(wide, [[0, 0, 1, 0.7, 0, 0], [0, 0, 0, 0, 1, 2], [1, -1, 0, 0, 0, 0]])
    with pytest.raises(UsageError, match="knows goal, velocity, not stand"):
        task_vector(GROUPS, mixed)
    with pytest.raises(UsageError, match=r"subgoal\.relative\(x\)"):
        task_vector(GROUPS, SubGoal.of("goal", 1.0, "absolute"))


@pytest.mark.parametrize("shift", [13.0, -250.0])
def test_relative_goals_do_not_see_where_they_are(shift: float):
    """Oracle 13: body and goal shifted together give the same input and the same reward."""
    found = []
    for c in (0.0, shift):
        tasks = stream()
        tasks.goal = SubGoal(np.array([GOAL, GOAL]), np.array([1.2 + c, -0.7 + c]), "absolute")
        tasks.scale = np.array([0.9, 1.4], np.float32)
        memory = experience()
        before, after = state(x=[0.3 + c, c]), state(x=[0.4 + c, -0.1 + c], vx=[2.0, -2.0])
        memory.add(
            np.ones((2, 3), np.float32), np.zeros((2, 2), np.float32), moved(np.ones((2, 3)), before, after), tasks
        )
        rows = {k: v.numpy() for k, v in memory.buffer.windows(np.zeros(2, int), np.arange(2), 1).items()}
        rows = {name: value[0] for name, value in rows.items()}
        found.append(told(rows, SubGoal(rows["group"], rows["value"]), rows["scale"], GROUPS))
    for plain, shifted in zip(*found):
        np.testing.assert_allclose(plain, shifted, atol=1e-6)
    np.testing.assert_allclose(found[0][2], [-0.8 / 0.9, -0.6 / 1.4], rtol=1e-5)
    np.testing.assert_allclose(found[0][0][:, 4], [0.9, -0.7], atol=1e-6)  # way to go before the step
    np.testing.assert_allclose(found[0][1][:, 4], [0.8, -0.6], atol=1e-6)  # and after it


def test_rewards_by_hand_and_never_below_the_worst():
    """Oracle 2 for a body: vx = 1.5, w = 2 -> -0.25; and a body that runs the wrong way loses no more than 3."""
    rows = {"obs": np.zeros((3, 3), np.float32), "next_obs": np.zeros((3, 3), np.float32)}
    rows |= {"moved": np.zeros(3, np.float32), "vx": np.array([1.5, -9.0, 2.0], np.float32)}
    rows |= {"vz": np.zeros(3, np.float32), "pitch": np.zeros(3, np.float32), "broken": np.zeros(3, bool)}
    subgoal = SubGoal.of("velocity", [2.0, 1.0, 2.0])
    got = told(rows, subgoal, as_tasks(subgoal).normaliser, GROUPS)[2]
    np.testing.assert_allclose(got, [-0.25, WORST, 0.0], atol=1e-6)


def test_a_switch_is_no_end_and_the_later_observation_has_the_old_task():
    tasks, memory = stream(hold=(2, 2)), experience()
    x = np.zeros(2)
    tasks.advance(x)
    for step in range(6):
        asked = SubGoal(tasks.goal.group.copy(), tasks.goal.value.copy(), "absolute")
        here, there = state(x=x), state(x=x + 0.1)
        obs = np.full((2, 3), step, np.float32)
        memory.add(obs, np.zeros((2, 2), np.float32), moved(obs + 1, here, there), tasks)
        x = x + 0.1
        tasks.advance(x)
        batch = memory.sample(256, 0.9, CPU)
        of_step = batch["obs"][:, 0] == step
        later = {tuple(np.round(row, 4)) for row in batch["next_obs"][of_step, 3:].numpy().tolist()}
        want = {tuple(np.round(row, 4)) for row in task_vector(GROUPS, asked.relative(x)).tolist()}
        assert later == want, step
        assert (batch["discount"] == np.float32(0.9)).all()
    assert tasks.left.tolist() == [1, 1]  # switched every 2 steps: after 6, just switched again


def test_the_time_limit_still_bootstraps_and_a_fall_does_not():
    tasks, memory = stream(), experience()
    tasks.advance(np.zeros(2))
    here = state(x=[0.0, 0.0])
    memory.add(
        np.array([[1.0] * 3, [2.0] * 3], np.float32), np.zeros((2, 2), np.float32),
        moved(np.zeros((2, 3), np.float32), here, here, terminated=[False, True], truncated=[True, False]), tasks,
    )  # fmt: skip
    batch = memory.sample(64, 0.9, CPU)
    discounts = {float(o): float(d) for o, d in zip(batch["obs"][:, 0], batch["discount"])}
    assert discounts == {1.0: pytest.approx(0.9), 2.0: 0.0}


def test_a_fall_costs_the_same_whatever_was_asked_for():
    tasks, memory = stream(), experience(alive=1.0, fall_cost=20.0)
    tasks.advance(np.zeros(2))
    here = state(x=[0.0, 0.0])
    memory.add(
        np.array([[1.0] * 3, [2.0] * 3], np.float32), np.zeros((2, 2), np.float32),
        moved(np.zeros((2, 3), np.float32), here, here, terminated=[False, True]), tasks,
    )  # fmt: skip
    batch = memory.sample(64, 0.9, CPU)
    paid = {float(o): float(r) for o, r in zip(batch["obs"][:, 0], batch["reward"])}
    assert paid == {1.0: 0.0, 2.0: -20.0}


def test_what_is_stored_is_what_the_actor_said():
    """D12: no action is changed between the actor and the critic."""
    tasks, memory = stream(1), experience(1)
    tasks.advance(np.zeros(1))
    action = np.array([[-0.99, 0.123]], np.float32)
    memory.add(np.zeros((1, 3), np.float32), action, moved(np.zeros((1, 3)), state(x=[0.0]), state(x=[0.0])), tasks)
    np.testing.assert_array_equal(memory.sample(4, 0.9, CPU)["action"].numpy(), np.repeat(action, 4, 0))


def test_a_broken_step_is_the_worst_there_is():
    """And it led nowhere: the next observation has the same way to go, whatever was asked for."""
    tasks, memory = stream(2), experience(2, alive=1.0, relabel=0.5)
    tasks.goal = SubGoal(np.array([GOAL, GOAL]), np.array([0.8, -1.4]), "absolute")
    here = state(x=[0.0, 0.0])
    step = moved(np.zeros((2, 3), np.float32), here, here)._replace(broken=np.array([True, True]))
    memory.add(np.zeros((2, 3), np.float32), np.zeros((2, 2), np.float32), step, tasks)
    batch = memory.sample(32, 0.9, CPU)
    assert (batch["reward"] == WORST + 1.0).all()
    np.testing.assert_array_equal(batch["next_obs"][:, 3:], batch["obs"][:, 3:])
    assert all(bool(torch.isfinite(value).all()) for value in batch.values())


def test_fresh_subgoals_teach_from_the_same_step():
    """Half of the rows keep the task of the time; the others get one whose reward follows from what the body did."""
    tasks, memory = stream(1), experience(1, relabel=0.5)
    tasks.goal, tasks.left = SubGoal.of("velocity", 2.0, "absolute"), np.array([9])
    tasks.scale = np.array([2.0], np.float32)
    here, there = state(x=[3.0]), state(x=[3.1], vx=[1.5])
    memory.add(np.zeros((1, 3), np.float32), np.zeros((1, 2), np.float32), moved(np.zeros((1, 3)), here, there), tasks)
    batch = {name: value.numpy() for name, value in memory.sample(4000, 0.9, CPU).items()}
    vector, later = batch["obs"][:, 3:], batch["next_obs"][:, 3:]
    kept = (vector == [0, 0, 1, 2]).all(1)
    assert 0.45 < kept.mean() < 0.55
    np.testing.assert_allclose(batch["reward"][kept], -0.25)
    np.testing.assert_array_equal(batch["task_id"], vector[:, 2])  # velocity is the second group
    runs, goals = ~kept & (vector[:, 2] == 1), vector[:, 0] == 1
    w = vector[runs, 3]
    assert ((np.abs(w) >= 0.5) & (np.abs(w) <= 2.5)).all()
    assert (np.sign(w) > 0).mean() == pytest.approx(0.5, abs=0.1)
    np.testing.assert_allclose(batch["reward"][runs], np.maximum(-np.abs(1.5 - w) / np.abs(w), WORST), rtol=1e-5)
    np.testing.assert_array_equal(later[runs], vector[runs])
    np.testing.assert_allclose(vector[goals, 1] - later[goals, 1], 0.1, atol=1e-5)  # 0.1 m nearer
    assert (np.abs(vector[goals, 1]) <= 1.5).all()


def test_subgoals_are_drawn_from_their_ranges_and_normalised_by_their_distance():
    drawn = draw(np.random.default_rng(0), tuple(RANGES), RANGES, 4000)
    tasks = as_tasks(drawn)
    for i, (name, (low, high)) in enumerate(RANGES.items()):
        own = drawn.value[drawn.group == i]
        assert 900 < len(own) < 1100
        assert np.abs(own).min() >= low
        assert np.abs(own).max() <= high
        assert (own < 0).any() == (name != "jump")  # a jump's target is |vz|
    np.testing.assert_allclose(tasks.normaliser, np.abs(drawn.value), rtol=1e-6)
    assert set(tasks.family[drawn.group == GOAL]) == {Family.goal_forward, Family.goal_backward}


def test_a_group_is_drawn_as_often_as_its_share_says():
    names = tuple(RANGES)
    drawn = draw(np.random.default_rng(0), names, RANGES, 4000, shares=(3.0, *[1.0] * (len(names) - 1)))
    assert (drawn.group == 0).mean() == pytest.approx(3 / (len(names) + 2), abs=0.03)
    tasks = TaskStream(4000, names, RANGES, (3, 5), np.random.default_rng(2), shares=(1e-6, *[1.0] * (len(names) - 1)))
    tasks.advance(np.zeros(4000))
    assert not (tasks.goal.group == 0).any()
    with pytest.raises(UsageError, match="shares"):
        LowConfig(name="x", shares=(1.0,))


def test_a_goal_of_the_stream_is_fixed_in_the_world_and_holds_its_time():
    tasks = TaskStream(500, ("goal",), RANGES, (30, 100), np.random.default_rng(3))
    tasks.advance(np.full(500, 40.0))
    first = tasks.goal.value.copy()
    assert ((np.abs(first - 40.0) >= 0.5) & (np.abs(first - 40.0) <= 1.5)).all()
    np.testing.assert_allclose(tasks.scale, np.abs(first - 40.0), rtol=1e-5)
    changed = np.full(500, 0)
    for step in range(1, 101):
        tasks.advance(np.full(500, 40.0 + step))
        changed = np.where((changed == 0) & (tasks.goal.value != first), step, changed)
    assert changed.min() == 30
    assert changed.max() == 100
    ended = np.arange(500) == 7
    before = tasks.goal.value.copy()
    tasks.left[:] = 50
    tasks.advance(np.zeros(500), ended)
    assert np.flatnonzero(tasks.goal.value != before).tolist() == [7]


def test_the_low_level_acts_by_subgoal_and_comes_back_from_its_state():
    cfg = SACConfig(hidden=(8,))
    low, other = (LowLevel(cfg, 3, 2, GROUPS, seed) for seed in (0, 1))
    obs = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    forward, back = (low.act(obs, SubGoal.of("goal", [value] * 4)) for value in (1.0, -1.0))
    assert forward.shape == (4, 2)
    assert not np.array_equal(forward, back)
    other.load_state_dict(low.state_dict())
    np.testing.assert_array_equal(other.act(obs, SubGoal.of("goal", [1.0] * 4)), forward)
    noisy = [low.act(obs, SubGoal.of("goal", [1.0] * 4), deterministic=False) for _ in range(2)]
    assert not np.array_equal(*noisy)
    with pytest.raises(UsageError, match="knows goal, velocity, not goal, jump"):
        LowLevel(cfg, 3, 2, ("goal", "jump")).load_state_dict(low.state_dict())


def test_the_measure_by_hand():
    plan = Plan.of(GROUPS, 1)
    n = len(plan.chained)
    achieved = np.tile(plan.subgoal.value, (200, 1))
    achieved[:100, :6] += 5.0  # goals are judged after 100 steps: what was before does not count
    achieved[99, 0] = 0.5 + 0.29
    achieved[150:, 6] += np.where(np.arange(50) % 2, 0.4, -0.4)  # right on average only: not good enough
    achieved[:150, 7] = -9.0  # only the last 50 steps count
    achieved[99, 1:6] = plan.subgoal.value[1:6]
    fell = np.zeros(n, bool)
    track = Track(np.zeros((201, n)), achieved, fell)
    miss = errors(plan, track)
    np.testing.assert_allclose(miss, [0.29, *[0.0] * 5, 0.4, *[0.0] * (n - 7)], atol=1e-9)
    row = summary(GROUPS, plan, track)
    assert row["goal_reached"] == 1.0
    assert row["velocity_reached"] == pytest.approx(5 / 6)
    assert row["chain_reached"] == 1.0
    assert 0.9 < row["score"] < 11 / 12
    fell[[0, 11]] = True  # a goal of 0.5 m and a velocity of -2 m/s: whatever they came to, they missed it
    assert errors(plan, track)[[0, 11]].tolist() == [0.5, 2.0]
    fallen = summary(GROUPS, plan, track)
    assert (fallen["goal_reached"], fallen["velocity_reached"]) == (pytest.approx(5 / 6), pytest.approx(4 / 6))


def test_a_body_that_falls_on_its_way_has_not_followed():
    """The ledge of the slider is at 0.35 m: whoever runs forwards falls, and begins again at 0."""
    plan = Plan(SubGoal.of("velocity", [1.0, 0.0], "absolute"), np.zeros(2, bool))
    bodies = Bodies("tiny_bodies:on_a_ledge", 2, seed=0, horizon=201)

    class Runner:
        def act(self, obs: Any, subgoal: SubGoal, deterministic: bool) -> Any:
            return subgoal.value[:, None].astype(np.float32)

    track = follow(Runner(), bodies, plan, 1.5)  # type: ignore[arg-type]
    assert track.fell.tolist() == [True, False]
    np.testing.assert_allclose(errors(plan, track), [1.0, 0.0], atol=1e-6)  # at 1 m/s, but it fell


def test_presets_and_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from taskinfer.cli import main

    for options, text in (
        (["--groups", "goal", "velocty"], "did you mean velocity"),
        (["--groups", "goal", "goal"], "each once"),
        (["--goal-range", "2", "1"], "goal_range: expected 0 < smallest <= largest, got 2.0 1.0"),
        (["--body", "Ant-v5"], "Ant-v5 has no joint 'rootx'"),
        (["--relabel", "1.5"], "relabel"),
        (["--utd", "0"], "utd: must be in (0, 100], got 0.0"),
        (["--learning-starts", "3"], "learning_starts: must be at least 4, the number of bodies, got 3"),
        (["--buffer-size", "3"], "buffer_size: must be at least 4, the number of bodies, got 3"),
        (["--preset", "toy1d"], "unknown preset 'toy1d' (known: cpu, debug)"),
        (["sac.actor_lrr=1"], "sac.actor-lr"),
    ):
        assert main(["low", "train", "--num-envs", "4", "--dir", str(tmp_path), "--name", "a", *options]) == 2, options
        error = capsys.readouterr().err
        assert text in error, (options, error)
        assert error.count("\n") == 1, error
    assert not list(tmp_path.iterdir())
