"""What the envs of several tasks lived through: whose rows a learner is given, order, whole episodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from collective_experts import fill, moved
from hypothesis import given, settings
from hypothesis import strategies as st

from collective.experience import Experience, Span, chunks, unlabelled
from rlcore.errors import UsageError


def make(capacity: int, tasks: int = 1, copies: int = 1, seed: int = 0) -> Experience:
    return Experience(capacity, copies, [np.random.default_rng((seed, task)) for task in range(tasks)])


def test_the_last_rows_are_the_last_ones_in_order():
    """Oracle 15, D18: capacity 1000, rows 0 .. 1299 written, the last 800 are 500 .. 1299."""
    experience = make(1_000)
    fill(experience, 1_300, numbered=True)
    assert np.array_equal(experience.rows(Span(0, 500, 1_299))["reward"], np.arange(500, 1_300))
    assert experience.oldest == 300


@settings(max_examples=40)
@given(st.integers(1, 30), st.integers(1, 80), st.integers(1, 12), st.integers(1, 3), st.data())
def test_any_span_that_is_still_there_is_read_in_order(
    slots: int, written: int, horizon: int, copies: int, data: st.DataObject
):
    """D18, wherever the ring's end is."""
    experience = make(slots * copies, tasks=2, copies=copies)
    fill(experience, written, horizon=horizon, numbered=True)
    last = data.draw(st.integers(experience.oldest, written - 1))
    first = data.draw(st.integers(experience.oldest, last))
    rows = experience.rows(Span(data.draw(st.integers(0, 2 * copies - 1)), first, last))
    assert np.array_equal(rows["reward"], np.arange(first, last + 1))
    for span in experience.episodes(0):
        found = experience.rows(span)
        assert np.array_equal(found["age"], np.arange(horizon))
        assert np.array_equal(found["over"], np.arange(horizon) == horizon - 1)
        assert span.first % horizon == 0
    whole = written // horizon - -(-experience.oldest // horizon)
    assert len(experience.episodes(0)) == max(whole, 0)


def test_an_episode_under_way_is_a_partial_one():
    experience = make(100)
    fill(experience, 50)
    assert experience.episodes(0) == [Span(0, 0, 19), Span(0, 20, 39)]
    assert experience.episodes(0, partial=True)[-1] == Span(0, 40, 49)
    assert experience.episodes(0, first=5) == [Span(0, 20, 39)]


def test_the_newest_episodes_make_up_the_rows_wanted():
    experience = make(400, tasks=2, copies=2)
    fill(experience, 110)
    spans = experience.newest(1, least=70, horizon=20)
    assert [span.env for span in spans] == [2, 3, 2, 3]
    assert [(span.first, span.last) for span in spans] == [(60, 79), (60, 79), (80, 99), (80, 99)]
    assert len(experience.newest(0, least=100_000, horizon=20)) == 10
    assert sum(s.last - s.first + 1 for s in experience.newest(0, least=1, horizon=20)) == 20


def test_each_learner_draws_rows_of_its_own_task_only_and_all_of_them():
    experience = make(40, tasks=3, copies=2)
    rng = np.random.default_rng(0)
    for t in range(30):  # 20 slots an env: it wraps
        step = moved(rng, 6, reward=np.arange(6) * 100 + t)
        experience.add(np.zeros((6, 39), np.float32), np.zeros((6, 4), np.float32), step, np.zeros(6, np.int64))
    batch = experience.sample(2_000)
    assert batch["reward"].shape == (3, 2_000)
    assert batch["obs"].shape == (3, 2_000, 39)
    for task in range(3):
        wanted = {100 * env + t for env in (2 * task, 2 * task + 1) for t in range(10, 30)}
        assert set(batch["reward"][task].tolist()) == wanted


def test_what_a_learner_draws_does_not_depend_on_the_others():
    alone, stacked = make(200), make(200, tasks=2)
    alone.rngs = [np.random.default_rng((0, 1))]
    fill(alone, 50)
    fill(stacked, 50)
    one, two = alone.sample(64), stacked.sample(64)
    rows = lambda batch, task: batch["goal"][task] * 20 + batch["age"][task]  # noqa: E731
    assert torch.equal(rows(one, 0), rows(two, 1))


def test_a_cut_episode_leads_on_to_its_own_last_observation():
    """A time limit is no end: what comes after it must be what would have come, not the next episode's start."""
    experience, rng = make(10, copies=2), np.random.default_rng(0)
    cut = np.array([True, False])
    step = moved(rng, 2, cut)
    experience.add(np.zeros((2, 39), np.float32), np.zeros((2, 4), np.float32), step, np.zeros(2, np.int64))
    ended, runs_on = (experience.rows(Span(env, 0, 0)) for env in range(2))
    assert np.array_equal(ended["next_obs"][0], step.final_obs[0])
    assert np.array_equal(runs_on["next_obs"][0], step.obs[1])
    assert experience.age.tolist() == [0, 1]
    batch = experience.sample(4)
    assert "discount" not in batch  # nothing says that an episode was terminated
    assert "terminated" not in batch


def test_it_comes_back_from_disk(tmp_path: Path):
    whole, back = make(60, tasks=2), make(60, tasks=2, seed=9)
    fill(whole, 45)
    cursor = whole.save(tmp_path)
    back.load(tmp_path, cursor)
    whole.prune(tmp_path, [cursor])
    for experience in (whole, back):
        fill(experience, 40, seed=1)
    assert whole.age.tolist() == back.age.tolist()
    one, two = whole.sample(16), back.sample(16)
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_too_large_a_ring_is_refused_before_it_is_taken():
    with pytest.raises(UsageError, match=r"MiB are free on cpu: lower its capacity"):
        make(10**11)


def test_trajectories_keep_task_goal_and_last_observation():
    experience = make(100, tasks=2)
    fill(experience, 45)
    spans = [experience.episodes(env, partial=True) for env in range(2)]
    data = unlabelled(
        [(task, experience.rows(span)) for task in range(2) for span in spans[task]], ("toy-reach", "toy-push")
    )
    assert data.lengths.tolist() == [20, 20, 5] * 2
    assert data.task_id.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.goal_id.tolist() == [0, 1, 2] * 2
    last = experience.rows(Span(1, 44, 44))["next_obs"][0]
    assert np.array_equal(data.last_obs[5], last)
    assert np.isnan(data.q_target).all()
    groups = list(chunks(spans[0], 25))
    assert [len(group) for group in groups] == [2, 1]
