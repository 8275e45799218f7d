"""The files of a replay buffer: restored it is the one that never stopped, damaged it is refused."""

from __future__ import annotations

import builtins
import json
import os
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_buffer import FIELDS, check_against, every_start, fill, make, rows

import rlcore.buffer
from rlcore.buffer import Field
from rlcore.errors import DataError, UsageError


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
