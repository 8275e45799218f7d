"""Windows kept while acting, and windows cut from data, are the same."""

from __future__ import annotations

import numpy as np
import pytest

from collective.config import STATE_COLUMNS
from collective.data import Dataset
from collective.windows import Rolling, compress, windows_of


def dataset(lengths: list[int], seed: int = 0) -> Dataset:
    """Trajectories of random numbers."""
    rng, n = np.random.default_rng(seed), sum(lengths)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    return Dataset(
        obs=normal(n, 39), action=normal(n, 4), reward=normal(n), success=np.zeros(n, bool),
        expert_mean=np.tanh(normal(n, 4)), expert_log_std=normal(n, 4), q_target=normal(n),
        executed_expert=np.zeros(n, bool), offsets=np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
        last_obs=normal(len(lengths), 39), task_id=np.zeros(len(lengths), np.int64),
        goal_id=np.zeros(len(lengths), np.int64), arm_id=np.zeros(len(lengths), np.int64),
        split=np.zeros(len(lengths), np.int8), tasks=("toy-reach",),
    )  # fmt: skip


def test_the_state_is_this_frame_and_the_goal():
    assert compress(np.arange(39)).tolist() == [*range(18), 36, 37, 38]
    assert (*range(18), 36, 37, 38) == STATE_COLUMNS


@pytest.mark.parametrize("length", [5, 20])
def test_windows_of_data_are_those_that_acting_would_have_had(length: int):
    data = dataset([1, 7, 30, 22])
    windows = windows_of(data, np.arange(len(data.obs)), length)
    for e, begin in enumerate(data.offsets[:-1]):
        rolling = Rolling(1, length)
        rolling.begin(data.obs[begin : begin + 1])
        for row in range(begin, data.offsets[e + 1]):
            for kept, cut in zip(rolling.arrays(), windows):
                np.testing.assert_array_equal(kept[0], cut[row])
            last = row + 1 == data.offsets[e + 1]
            after = data.last_obs[e : e + 1] if last else data.obs[row + 1 : row + 2]
            rolling.advance(data.action[row : row + 1], data.reward[row : row + 1], after)


def test_an_episodes_end_empties_its_window_and_no_other():
    rng = np.random.default_rng(0)
    rolling = Rolling(2, 4)
    rolling.begin(rng.normal(size=(2, 39)))
    for _ in range(2):
        rolling.advance(rng.normal(size=(2, 4)), rng.normal(size=2), rng.normal(size=(2, 39)))
    fresh = rng.normal(size=(2, 39)).astype(np.float32)
    before = rolling.states[1].copy()
    rolling.advance(np.ones((2, 4)), np.ones(2), fresh, done=np.array([True, False]))
    assert rolling.lengths.tolist() == [1, 4]
    assert not rolling.states[0, :-1].any()
    assert not rolling.actions[0].any()
    assert not rolling.rewards[0].any()
    np.testing.assert_array_equal(rolling.states[0, -1], compress(fresh)[0])
    np.testing.assert_array_equal(rolling.states[1, :-1], before[1:])


def test_windows_continue_after_a_save():
    rng = np.random.default_rng(0)
    a, b = Rolling(3), Rolling(3)
    a.begin(rng.normal(size=(3, 39)))
    a.advance(rng.normal(size=(3, 4)), rng.normal(size=3), rng.normal(size=(3, 39)))
    b.load_state_dict(a.state_dict())
    for kept, other in zip(a.arrays(), b.arrays()):
        np.testing.assert_array_equal(kept, other)
