"""The replay buffer against a list of dicts and an enumerating generator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from small_buffer import FIELDS, check_against, every_start, fill, make, model_starts, rows

from rlcore.buffer import Field, ReplayBuffer, predicted_bytes
from rlcore.errors import UsageError

# --- contents and valid starts --------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    slots=st.integers(1, 8), num_envs=st.integers(1, 3), window=st.integers(1, 8), steps=st.integers(0, 30),
    within_episode=st.booleans(), seed=st.integers(0, 1000), p_end=st.sampled_from([0.0, 0.2, 1.0]),
    p_init=st.sampled_from([0.0, 0.2]),
)  # fmt: skip
def test_every_window_is_the_models(slots, num_envs, window, steps, within_episode, seed, p_end, p_init):
    window = min(window, slots)
    buffer, history = make(slots, num_envs, window, within_episode=within_episode), []
    for row in rows(seed, num_envs, steps, p_end, p_init):
        history.append(row)
        buffer.add(**row)
        assert (buffer.total, buffer.cursor) == (len(history), len(history) % slots)
        assert len(buffer) == min(len(history), slots) * num_envs
        lengths = {1, window} if within_episode else range(1, window + 1)
        for length in lengths:
            check_against(history, buffer, length)
        if not within_episode:
            for stride in (2, 3, slots):
                check_against(history, buffer, window, stride)


def test_transitions_are_rows_that_were_added():
    buffer = make(num_envs=3)
    history = fill(buffer, 12)[-7:]
    batch = buffer.sample(200)
    assert batch["obs"].shape == (200, 3)
    assert batch["action"].shape == (200,)
    known = {row["reward"][env]: (row, env) for row in history for env in range(3)}
    for k, reward in enumerate(batch["reward"].numpy()):
        row, env = known[reward]
        for name, tensor in batch.items():
            np.testing.assert_array_equal(tensor[k].numpy(), row[name][env])
    assert len(set(batch["reward"].tolist())) == 21, "200 draws of 21 rows should meet all of them"


def test_sampled_windows_stay_in_one_episode_by_hand():
    """Episodes of 3, 2 and an unfinished 4 steps: windows of 3 begin at steps 0, 5 and 6, and nowhere else."""
    fields = {"t": Field(), "terminated": Field((), "bool"), "truncated": Field((), "bool")}
    buffer = make(slots=20, num_envs=1, fields=fields, within_episode=True)
    for t in range(9):
        buffer.add(t=[t], terminated=np.array([t == 2]), truncated=np.array([t == 4]))
    assert every_start(buffer, 3)[0].tolist() == [0, 5, 6]
    assert set(buffer.sample_windows(100, 3)["t"][0].tolist()) == {0.0, 5.0, 6.0}
    assert set(buffer.sample(200)["t"].tolist()) == set(range(9)), "transitions may come from anywhere"


@pytest.mark.parametrize("within_episode", [False, True])
def test_draws_are_uniform(within_episode):
    buffer = make(slots=50, num_envs=4, window=3, within_episode=within_episode, seed=1)
    history = fill(buffer, 130)
    wanted = model_starts(history, buffer, 3, by_episode=within_episode)
    slot, env = buffer.starts(100 * len(wanted), 3)
    counts = np.unique(slot * 4 + env, return_counts=True)[1]
    assert len(counts) == len(wanted) > 60
    assert chisquare(counts).pvalue > 1e-3


def test_repeated_rows_equal_the_first():
    buffer = make(slots=5, window=4)
    for _ in range(13):
        fill(buffer, 1)
        for data in buffer._data:
            torch.testing.assert_close(data[:, 5:], data[:, :3], rtol=0, atol=0)


def test_batches_are_reused_per_shape():
    buffer = make()
    fill(buffer, 7)
    first, second, third = buffer.sample(4)["obs"], buffer.sample(4)["obs"], buffer.sample(5)["obs"]
    assert first.data_ptr() == second.data_ptr() != third.data_ptr()


def test_the_stored_row_is_a_copy():
    buffer, row = make(num_envs=1), next(rows(0, 1, 1))
    buffer.add(**row)
    kept = row["obs"].copy()
    row["obs"] += 1
    np.testing.assert_array_equal(buffer.windows(np.array([0]), np.array([0]), 1)["obs"][0].numpy(), kept)


# --- inputs ---------------------------------------------------------------------------------------------------------


def test_other_number_types_are_accepted():
    buffer = make(num_envs=2)
    row = next(rows(0, 2, 1))
    row["obs"] = np.arange(6.0).reshape(2, 3)  # float64
    row["grid"] = torch.ones(2, 2, 3, dtype=torch.float64, requires_grad=True)
    row["reward"] = [1, 2]
    row["action"] = torch.tensor([5, -6], dtype=torch.int32)
    row["terminated"] = torch.tensor([True, False])
    buffer.add(**row)
    batch = buffer.windows(np.array([0, 0]), np.array([0, 1]), 1)
    assert batch["obs"][0].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert batch["reward"][0].tolist() == [1, 2]
    assert batch["action"][0].tolist() == [5, -6]
    assert batch["terminated"][0].tolist() == [True, False]
    assert batch["grid"].sum() == 12


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("obs", np.zeros((2, 4))),
        ("obs", np.zeros(3)),  # would broadcast
        ("reward", 1.0),
        ("obs", np.zeros((2, 3), complex)),
        ("action", np.array([1.5, 2.0])),
        ("action", np.array([0, 2**24 + 1])),  # float32 would round it
        ("action", np.array([0, -(2**63)])),
        ("terminated", np.array([1.0, 0.0])),
        ("image", np.zeros((2, 2, 2), np.int64)),  # would wrap
        ("image", np.zeros((2, 2, 2), np.uint16)),
    ],
)
def test_wrong_values_are_refused_and_store_nothing(name, value):
    buffer = make()
    history = fill(buffer, 5)
    with pytest.raises(ValueError, match=name):
        buffer.add(**{**history[0], name: value})
    assert buffer.total == 5
    check_against(history, buffer, 3)


def test_wrong_names_are_refused():
    buffer, row = make(), next(rows(0, 2, 1))
    with pytest.raises(ValueError, match=r"wants .*reward"):
        buffer.add(**{key: value for key, value in row.items() if key != "reward"})
    with pytest.raises(ValueError, match="extra"):
        buffer.add(**row, extra=row["obs"])


def test_wrong_windows_are_refused():
    buffer = make(within_episode=True)
    fill(buffer, 7, p_end=0.0, p_init=0.0)
    for length, stride in ((2, 1), (4, 1), (3, 2)):
        with pytest.raises(AssertionError):
            buffer.starts(1, length, stride)
    for slot in (-1, 7):
        with pytest.raises(AssertionError):
            buffer.windows(np.array([slot]), np.array([1]), 3)
    with pytest.raises(AssertionError):
        buffer.windows(np.array([0]), np.array([1]), 4)


def test_impossible_buffers_are_refused():
    with pytest.raises(UsageError, match="cannot hold a window of 8"):
        make(slots=7, window=8)
    with pytest.raises(UsageError, match="terminated"):
        make(fields={"obs": Field((3,))}, within_episode=True)
    with pytest.raises(UsageError, match=r"3,814,697,266 MiB.*are free.*lower"):
        ReplayBuffer({"obs": Field((1000,))}, 10**12, rng=np.random.default_rng(0))


@pytest.mark.parametrize("within_episode", [False, True])
def test_predicted_memory_is_what_is_held(within_episode):
    buffer = make(slots=9, num_envs=3, window=4, within_episode=within_episode)
    held = sum(data.nbytes for data in buffer._data)
    held += buffer._starts.nbytes + buffer._starts_at.nbytes + buffer._position.nbytes
    predicted = predicted_bytes(FIELDS, 27, 3, window=4, within_episode=within_episode)
    assert buffer.nbytes == predicted == held


def test_only_pixels():
    buffer = make(slots=4, num_envs=1, window=2, fields={"image": Field((2, 2), "uint8")})
    for k in range(6):
        buffer.add(image=np.full((1, 2, 2), k, np.uint8))
    assert set(buffer.sample_windows(50, 2)["image"][0, :, 0, 0].tolist()) == {2, 3, 4}
