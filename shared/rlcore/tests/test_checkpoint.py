"""Checkpoints: round trips, damage, hostile files, rotation."""

from __future__ import annotations

import os
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from rlcore import checkpoint
from rlcore.errors import DataError, QuintetWarning

STATE = {"net": {"w": torch.arange(6.0).view(2, 3)}, "rows": np.arange(4), "count": 3, "words": ("a", None, True)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    checkpoint.save(tmp_path / "c.pt", STATE)
    return tmp_path / "c.pt"


def test_round_trip(path: Path):
    state = checkpoint.load(path)
    assert torch.equal(state["net"]["w"], STATE["net"]["w"])
    assert state["rows"].tolist() == [0, 1, 2, 3]
    assert (state["count"], state["words"], state["format"]) == (3, ("a", None, True), checkpoint.FORMAT)


def test_torch_itself_can_open_it(path: Path):
    assert torch.load(path, weights_only=True)["count"] == 3


def test_arrays_are_copied_not_shared(tmp_path: Path):
    rows = np.zeros(3)
    held = checkpoint.portable({"rows": rows})
    rows[:] = 1
    assert held["rows"].sum() == 0


def test_objects_are_refused_by_name(tmp_path: Path):
    with pytest.raises(TypeError, match="PosixPath"):
        checkpoint.save(tmp_path / "c.pt", {"where": tmp_path})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", range(100))
def test_every_mutation_is_refused(path: Path, seed: int):
    """Flips, cuts, zeroed blocks and additions, at random places: all 100 named, none loaded."""
    rng, raw = random.Random(seed), bytearray(path.read_bytes())
    place = rng.randrange(len(raw))
    match seed % 5:
        case 0 | 1:
            raw[place] ^= 1 << rng.randrange(8)
        case 2:
            del raw[place:]
        case 3:
            block = slice(place, place + rng.randrange(1, 64))
            raw[block] = bytes((byte + 1) % 256 for byte in raw[block])
        case _:
            raw[place:place] = rng.randbytes(rng.randrange(1, 9))
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"c\.pt"):
        checkpoint.load(path)


@pytest.mark.parametrize("content", [b"", b"\xff" * 500, b'{"json": 1}' * 20], ids=["empty", "noise", "text"])
def test_foreign_files_are_refused(tmp_path: Path, content: bytes):
    (tmp_path / "c.pt").write_bytes(content)
    with pytest.raises(DataError, match=r"c\.pt"):
        checkpoint.load(tmp_path / "c.pt")


class Payload:
    """Runs a command when unpickled, which must never happen."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def signed(path: Path, **options: object) -> None:
    """Put a right checksum on any zip file: an attacker can do that, too."""
    import hashlib

    raw = bytearray(path.read_bytes())
    raw[-2:] = (71).to_bytes(2, "little")
    path.write_bytes(bytes(raw) + b"sha256:" + hashlib.sha256(raw).hexdigest().encode())


def test_a_malicious_pickle_is_not_executed(tmp_path: Path):
    torch.save({"format": 1, "x": Payload(tmp_path / "pwned")}, tmp_path / "c.pt")
    signed(tmp_path / "c.pt")
    with pytest.raises(DataError, match="cannot be read"):
        checkpoint.load(tmp_path / "c.pt")
    assert not (tmp_path / "pwned").exists()


def test_a_zip_bomb_is_refused_before_it_is_opened(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "c.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(50_000_000))
    signed(tmp_path / "c.pt")
    assert (tmp_path / "c.pt").stat().st_size < 100_000
    with pytest.raises(DataError, match="compressed or oversized"):
        checkpoint.load(tmp_path / "c.pt")


def test_a_newer_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checkpoint, "FORMAT", checkpoint.FORMAT + 1)
    checkpoint.save(tmp_path / "c.pt", STATE)
    monkeypatch.undo()
    with pytest.raises(DataError, match="newer"):
        checkpoint.load(tmp_path / "c.pt")


def test_an_older_format_is_upgraded(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checkpoint, "FORMAT", checkpoint.FORMAT + 1)
    monkeypatch.setitem(checkpoint.UPGRADES, checkpoint.FORMAT - 1, lambda s: {**s, "count": s["count"] + 1})
    assert checkpoint.load(path)["count"] == STATE["count"] + 1


def test_nonfinite_names_the_tensor():
    assert checkpoint.nonfinite(STATE, "s") is None
    bad = {"a": [torch.ones(2), {"b": torch.tensor([0.0, float("inf")])}]}
    assert checkpoint.nonfinite(bad, "s") == "s.a.1.b"


def test_rotation_keeps_the_last_the_linked_and_every_nth(tmp_path: Path):
    store = checkpoint.Checkpoints(tmp_path, keep=2, keep_every=30)
    for step in range(10, 80, 10):
        store.save(step, {"n": step})
        if step == 20:
            store.link(step, "best.pt")
        store.rotate()
    assert store.steps() == [20, 30, 60, 70]
    assert checkpoint.load(store.find("best.pt"))["n"] == 20


def test_a_run_that_has_saved_nothing_yet_says_when_it_will(tmp_path: Path):
    store = checkpoint.Checkpoints(tmp_path)
    with pytest.raises(DataError, match=r"no checkpoint named best.pt or last.pt in .*--save-every"):
        store.find("best.pt", "last.pt")
    store.save(10, {})
    with pytest.raises(DataError, match=r"no checkpoint named best.pt in [^:]*$"):
        store.find("best.pt")


def test_a_bad_newest_is_named_and_the_one_before_is_used(tmp_path: Path):
    store = checkpoint.Checkpoints(tmp_path)
    for step in (1, 2, 3):
        store.save(step, {"n": step})
    store.path(3).write_bytes(store.path(3).read_bytes()[:-5])
    with pytest.warns(QuintetWarning, match="step_000000003.pt"):
        assert next(store.newest_first())["n"] == 2
    assert store.steps() == [1, 2]
    assert (tmp_path / "step_000000003.pt.bad").exists()


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path, path: Path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "best.pt").symlink_to(path)
    with pytest.raises(DataError, match="outside"):
        checkpoint.Checkpoints(folder).find("best.pt")
