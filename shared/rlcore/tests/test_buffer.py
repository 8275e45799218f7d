"""The replay buffer against a list of dicts, an enumerating generator, and damaged files."""

from __future__ import annotations

import builtins
import copy
import json
import os
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

import rlcore.buffer
from rlcore.buffer import Field, ReplayBuffer, predicted_bytes
from rlcore.errors import DataError, UsageError

FIELDS = {
    "obs": Field((3,)),
    "image": Field((2, 2), "uint8"),
    "mask": Field((2,), "uint8"),
    "action": Field((), "int64"),
    "grid": Field((2, 3), "float32"),
    "reward": Field(),
    "terminated": Field((), "bool"),
    "truncated": Field((), "bool"),
    "is_init": Field((), "bool"),
}
DTYPES = {"float32": torch.float32, "bool": torch.bool, "int64": torch.int64, "uint8": torch.uint8}


class Every:
    """Stands in for the generator: draws each number below `count` once, so that a draw shows every valid start."""

    def integers(self, count, size):
        return np.arange(count)


def rows(seed, num_envs, steps, p_end=0.2, p_init=0.1):
    """Random vector steps: every number is different from its neighbours."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        terminated = rng.random(num_envs) < p_end / 2
        yield {
            "obs": rng.normal(size=(num_envs, 3)).astype(np.float32),
            "image": rng.integers(0, 256, (num_envs, 2, 2), dtype=np.uint8),
            "mask": rng.integers(0, 256, (num_envs, 2), dtype=np.uint8),
            "action": rng.integers(-(2**24), 2**24 + 1, num_envs),
            "grid": rng.normal(size=(num_envs, 2, 3)).astype(np.float32),
            "reward": rng.normal(size=num_envs).astype(np.float32),
            "terminated": terminated,
            "truncated": ~terminated & (rng.random(num_envs) < p_end / 2),
            "is_init": rng.random(num_envs) < p_init,
        }


def make(slots=7, num_envs=2, window=3, seed=0, fields=FIELDS, **options):
    return ReplayBuffer(fields, slots * num_envs, num_envs, window=window, rng=np.random.default_rng(seed), **options)


def fill(buffer, steps, **options):
    history = [copy.deepcopy(row) for row in rows(buffer.total, buffer.num_envs, steps, **options)]
    for row in history:
        buffer.add(**row)
    return history


def model_starts(history, buffer, length, stride=1, by_episode=False):
    """[(absolute step, env)] of all valid windows, by looking at every row of each."""
    found = []
    for start in range(max(0, len(history) - buffer.slots), len(history) - length + 1):
        for env in range(buffer.num_envs):
            window = [{key: value[env] for key, value in history[start + k].items()} for k in range(length)]
            broken = any(row["terminated"] or row["truncated"] for row in window[:-1])
            broken |= any(row["is_init"] for row in window[1:])
            if start % buffer.slots % stride == 0 and not (by_episode and broken):
                found.append((start, env))
    return found


def every_start(buffer, length, stride=1):
    rng, buffer.rng = buffer.rng, Every()
    try:
        return buffer.starts(1, length, stride)
    finally:
        buffer.rng = rng


def check_against(history, buffer, length, stride=1):
    """The valid starts are exactly the model's, each once (so a uniform draw is uniform), and so is what they hold."""
    wanted = model_starts(history, buffer, length, stride, buffer.within_episode)
    if not wanted:
        with pytest.raises(UsageError, match="no window"):
            buffer.starts(1, length, stride)
        return
    slot, env = every_start(buffer, length, stride)
    assert sorted(zip(slot, env)) == sorted((start % buffer.slots, k) for start, k in wanted)
    slot, env = np.array([start % buffer.slots for start, _ in wanted]), np.array([k for _, k in wanted])
    batch = buffer.windows(slot, env, length)
    assert batch.keys() == history[0].keys()
    for name, tensor in batch.items():
        field = buffer.fields[name]
        assert tensor.dtype == DTYPES[field.dtype]
        assert tensor.shape == (length, len(wanted), *field.shape)
        values = np.array([[history[start + t][name][k] for start, k in wanted] for t in range(length)])
        np.testing.assert_array_equal(tensor.numpy(), values)


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


# --- files ----------------------------------------------------------------------------------------------------------


def same_future(one, two, steps=20):
    """Both hold the same and draw the same, now and after more steps."""
    for k in range(steps):
        for row in rows(1000 + k, one.num_envs, 1):
            batches = []
            for buffer in (one, two):
                length = buffer.window
                try:
                    drawn = buffer.sample_windows(6, length), buffer.sample(5)
                except UsageError:
                    drawn = {}, {}
                batches.append({f"{i}{name}": x.clone() for i in (0, 1) for name, x in drawn[i].items()})
                buffer.add(**row)
            assert batches[0].keys() == batches[1].keys()
            for name, tensor in batches[0].items():
                assert tensor.numpy().tobytes() == batches[1][name].numpy().tobytes(), (k, name)
    assert one.rng.bit_generator.state == two.rng.bit_generator.state


@settings(max_examples=40)
@given(
    slots=st.integers(2, 7), num_envs=st.integers(1, 3), within_episode=st.booleans(),
    gaps=st.lists(st.integers(0, 12), min_size=1, max_size=5),
)  # fmt: skip
def test_restored_equals_never_stopped(tmp_path_factory, slots, num_envs, within_episode, gaps):
    folder, options = tmp_path_factory.mktemp("replay"), {"within_episode": within_episode}
    buffer, history = make(slots, num_envs, 2, **options), []
    for gap in gaps:
        history += fill(buffer, gap)
        if buffer.total:
            buffer.sample(3)  # moves the generator
        cursor = json.loads(json.dumps(buffer.save(folder)))
    other = make(slots, num_envs, 2, seed=99, **options)
    other.load(folder, cursor)
    check_against(history, other, 2) if history else None
    for data, copied in zip(buffer._data, other._data):
        live = min(buffer.total, slots)
        torch.testing.assert_close(copied[:, :live], data[:, :live], rtol=0, atol=0)
        if buffer.total >= slots:
            torch.testing.assert_close(copied, data, rtol=0, atol=0)
    assert other.save(folder) == cursor, "nothing is new, so nothing is written"
    same_future(buffer, other)


def test_a_save_writes_only_what_is_new(tmp_path):
    buffer = make(slots=10)
    sizes = []
    for steps in (4, 3, 0, 25):
        fill(buffer, steps)
        before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
        cursor = buffer.save(tmp_path)
        after = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
        assert before.items() <= after.items(), "segments never change"
        sizes.append(sorted(after.keys() - before.keys()))
    assert sizes == [["segment_0_4.bin"], ["segment_4_7.bin"], [], ["segment_22_32.bin"]]
    assert [segment[:2] for segment in cursor["segments"]] == [[22, 32]]


def test_prune_keeps_what_a_cursor_needs(tmp_path):
    buffer, cursors = make(slots=10), []
    for _ in range(8):
        fill(buffer, 4)
        cursors.append(buffer.save(tmp_path))
        buffer.prune(tmp_path, cursors[-2:])
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"segment_{k}_{k + 4}.bin" for k in (16, 20, 24, 28)]
    for cursor in cursors[-2:]:
        make(slots=10).load(tmp_path, cursor)
    buffer.prune(tmp_path, [])
    make(slots=10).load(tmp_path, buffer.save(tmp_path))


def test_going_back_to_an_older_cursor(tmp_path):
    """The newer segments of the abandoned future lie around, one under the name that the next save takes."""
    buffer = make(slots=10)
    history = fill(buffer, 8)
    old = buffer.save(tmp_path)
    fill(buffer, 4)
    new = buffer.save(tmp_path)
    buffer.load(tmp_path, old)
    history += fill(buffer, 4, p_end=0.9)
    again = buffer.save(tmp_path)
    assert again["segments"][0] == new["segments"][0]
    assert again["segments"][1][:2] == new["segments"][1][:2]
    other = make(slots=10)
    other.load(tmp_path, again)
    check_against(history, other, 3)
    same_future(buffer, other)
    with pytest.raises(DataError, match="sha256"):
        other.load(tmp_path, new)  # its rows are gone, and it does not get others in their place


def test_two_folders_are_each_complete(tmp_path):
    buffer = make()
    fill(buffer, 4)
    for name in ("a", "b", "a"):
        (tmp_path / name).mkdir(exist_ok=True)
        cursor = buffer.save(tmp_path / name)
        make().load(tmp_path / name, cursor)


def test_an_interrupted_episode_begins_anew(tmp_path):
    """After a resume an env may start over without its episode having ended: is_init parts the two."""
    buffer = make(slots=10, num_envs=1, within_episode=True)
    fill(buffer, 5, p_end=0.0, p_init=0.0)
    other = make(slots=10, num_envs=1, within_episode=True)
    other.load(tmp_path, buffer.save(tmp_path))
    for k, row in enumerate(rows(7, 1, 4, p_end=0.0, p_init=0.0)):
        other.add(**{**row, "is_init": np.array([k == 0])})
    assert every_start(other, 3)[0].tolist() == [0, 1, 2, 5, 6]


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_failed_save_can_be_repeated(tmp_path, monkeypatch, call):
    """Every open, fsync and rename fails in turn; the next call writes what the failed one did not."""
    buffer = make(slots=10)
    fill(buffer, 6)
    old = buffer.save(tmp_path)
    fill(buffer, 7)
    buffer.sample(3)
    module = builtins if call == "open" else os
    real = getattr(module, call)
    for nth in count(1):
        calls = iter(range(1, 100))

        def fail(*args, calls=calls, nth=nth, **options):
            if next(calls) == nth:
                raise OSError(28, "No space left on device")
            return real(*args, **options)

        monkeypatch.setattr(module, call, fail)
        try:
            cursor = buffer.save(tmp_path)
            break
        except OSError:
            monkeypatch.undo()
            assert not list(tmp_path.glob(".tmp-*"))
            make(slots=10).load(tmp_path, old)
    monkeypatch.undo()
    assert nth > 1, "no call was made to fail"
    other = make(slots=10)
    other.load(tmp_path, cursor)
    same_future(buffer, other)


def mutations(data: bytes):
    """100 ways to damage a file."""
    rng = np.random.default_rng(5)
    yield b""
    yield data + b"\0"
    yield data[:-1]
    yield b"[" * 100_000
    yield data.replace(b'"stop": 7', b'"stop": 70000000000')
    yield data.replace(b'"slots"', b'"slotz"')
    for _ in range(24):
        yield data[: rng.integers(len(data))]
    for _ in range(50):
        flipped = bytearray(data)
        flipped[rng.integers(len(data))] ^= 1 << rng.integers(8)
        yield bytes(flipped)
    for _ in range(10):
        yield rng.bytes(rng.integers(1, 2 * len(data)))
    for _ in range(10):
        at = rng.integers(len(data) - 8)
        yield data[:at] + rng.bytes(8) + data[at + 8 :]


def test_damaged_segments_are_refused(tmp_path):
    buffer = make()
    fill(buffer, 4)
    buffer.save(tmp_path)
    fill(buffer, 3)
    cursor = buffer.save(tmp_path)
    path = tmp_path / "segment_4_7.bin"
    whole, seen = path.read_bytes(), 0
    for seen, damaged in enumerate(mutations(whole), 1):  # noqa: B007
        assert damaged != whole
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"segment_4_7\.bin") as caught:
            buffer.load(tmp_path, cursor)  # its ring still holds the right rows, and must not pass them off
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 2000
        assert len(buffer) == 0
        with pytest.raises(UsageError):
            buffer.sample(1)
    assert seen == 100
    path.write_bytes(whole)
    buffer.load(tmp_path, cursor)
    assert len(buffer) == 14


def test_a_failed_load_leaves_a_usable_buffer(tmp_path):
    buffer = make(within_episode=True)
    fill(buffer, 30)
    cursor = buffer.save(tmp_path)
    next(tmp_path.iterdir()).write_bytes(b"")
    with pytest.raises(DataError):
        buffer.load(tmp_path, cursor)
    history = fill(buffer, 20)
    check_against(history, buffer, 3)
    other = make(within_episode=True)
    other.load(tmp_path, buffer.save(tmp_path))
    check_against(history, other, 3)


def test_links_folders_and_missing_files_are_refused(tmp_path):
    buffer = make()
    fill(buffer, 4)
    cursor = buffer.save(tmp_path)
    path = tmp_path / "segment_0_4.bin"
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="missing"):
        buffer.load(tmp_path, cursor)
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="not a plain file"):
        buffer.load(tmp_path, cursor)
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match="not a plain file"):
        buffer.load(tmp_path, cursor)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(total=5),
        lambda c: c.update(total="many"),
        lambda c: c.update(total=-1),
        lambda c: c.pop("total"),
        lambda c: c.update(segments=c["segments"][1:]),
        lambda c: c.update(segments=c["segments"][:1]),
        lambda c: c.update(segments=c["segments"][::-1]),
        lambda c: c.update(segments=[]),
        lambda c: c.update(segments=None),
        lambda c: c["segments"].append(["../../x", 9, "0" * 64]),
        lambda c: c["segments"][0].__setitem__(0, "../0"),
        lambda c: c["segments"][0].__setitem__(1, 10**18),
        lambda c: c["segments"][1].__setitem__(2, "0" * 64),
        lambda c: c["segments"][1].pop(),
        lambda c: c.update(rng={}),
        lambda c: c.update(rng=None),
        lambda c: c["rng"].update(state=3),
        lambda c: c["rng"]["state"].update(state="1" * 60),
        lambda c: c["rng"].update(bit_generator="MT19937"),
    ],
)
def test_damaged_cursors_are_refused(tmp_path, change):
    buffer = make()
    for _ in range(2):
        fill(buffer, 3)
        cursor = buffer.save(tmp_path)
    change(cursor)
    with pytest.raises(DataError, match=r"replay|segment"):
        make().load(tmp_path, cursor)


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"num_envs": 3}, r"num_envs is 2, expected 3"),
        ({"slots": 8}, r"slots is 7, expected 8"),
        ({"slots": 5}, r"slots is 7, expected 5"),
        ({"fields": {**FIELDS, "obs": Field((4,))}}, r"field obs is 'float32\[3\]', expected 'float32\[4\]'"),
        ({"fields": {**FIELDS, "reward": Field((), "int64")}}, r"field reward is 'float32\[\]', expected 'int64\[\]'"),
        ({"fields": {**FIELDS, "extra": Field()}}, r"field extra is None, expected 'float32\[\]'"),
        ({"fields": {k: v for k, v in FIELDS.items() if k != "mask"}}, r"field mask is 'uint8\[2\]', expected None"),
    ],
)
def test_another_layout_is_refused(tmp_path, other, what):
    buffer = make()
    fill(buffer, 9)
    cursor = buffer.save(tmp_path)
    with pytest.raises(DataError, match=rf"segment_2_9\.bin .*{what}$"):
        make(**other).load(tmp_path, cursor)
    reordered = make(fields=dict(reversed(FIELDS.items())))
    reordered.load(tmp_path, cursor)
    same_future(buffer, reordered)


def test_unreadable_file_is_named(tmp_path, monkeypatch):
    buffer = make()
    fill(buffer, 3)
    cursor = buffer.save(tmp_path)

    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(rlcore.buffer, "open", refuse, raising=False)
    with pytest.raises(DataError, match=r"segment_0_3\.bin cannot be read: Permission denied"):
        buffer.load(Path(tmp_path), cursor)
