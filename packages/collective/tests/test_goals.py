"""The 50 goals of a task, and the cache that keeps them and the scenes."""

from __future__ import annotations

import functools
import importlib.util
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collective import envs
from collective.config import MT50
from collective.envs import cache
from rlcore.errors import QuintetWarning

needs_metaworld = pytest.mark.skipif(importlib.util.find_spec("metaworld") is None, reason="no metaworld")
Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of each test's own; nothing has been warned of yet."""
    monkeypatch.setenv("COLLECTIVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "_told", set())
    return tmp_path / "cache"


def drawn(task: str, seed: int) -> Array:
    from collective.envs.goals import goals_of
    from collective.envs.lean import lean_env

    return goals_of(task, seed, lean_env(task))


@functools.cache
def meta_worlds(task: str, seed: int) -> Array:
    import metaworld

    return np.array([pickle.loads(one.data)["rand_vec"] for one in metaworld.MT1(task, seed=seed).train_tasks])


@needs_metaworld
@pytest.mark.parametrize(("task", "seed"), [("reach-v3", 7), ("door-open-v3", 1)])
def test_equal_to_meta_worlds(task: str, seed: int):
    expected, state = meta_worlds(task, seed), np.random.get_state()[1].copy()  # noqa: NPY002 - after upstream's draws
    np.testing.assert_array_equal(drawn(task, seed), expected)  # drawn
    np.testing.assert_array_equal(drawn(task, seed), expected)  # read
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002 - no global draw


@needs_metaworld
@pytest.mark.slow
@pytest.mark.parametrize("task", MT50)
def test_equal_to_meta_worlds_on_every_task(task: str):
    np.testing.assert_array_equal(drawn(task, 3), meta_worlds(task, 3))


@needs_metaworld
def test_a_vector_begins_with_them():
    vec = envs.make(["reach-v3"], seed=2, goal_seed=7, horizon=1)
    expected = meta_worlds("reach-v3", 7)[:, 3:].astype(np.float32)
    vec.reset()
    for _ in range(3):
        np.testing.assert_array_equal(vec.current_obs[0, 36:], expected[vec.goal_id[0]])
        vec.step(vec.sample())


@needs_metaworld
def test_files_are_kept_and_read(folder: Path):
    from collective.envs.scenes import _pristine

    _pristine.cache_clear()
    expected = drawn("push-v3", 0)
    (goals,), (scene,) = folder.glob("goals-*/push-v3-0.npz"), folder.glob("scenes-*/sawyer_push_v3.npz")
    assert goals.stat().st_size < 4_000
    assert scene.stat().st_size < 5_000_000
    np.savez(goals, goals=expected + 1)
    np.testing.assert_array_equal(drawn("push-v3", 0), expected + 1)
    _pristine.cache_clear()
    before = scene.stat().st_mtime_ns
    envs.make(["push-v3"], seed=0)
    assert scene.stat().st_mtime_ns == before  # not written again


@needs_metaworld
@pytest.mark.parametrize("damage", [b"", b"\x00" * 500, "half", "flip", "foreign"])
def test_damaged_files_are_made_anew(folder: Path, damage: Any):
    from collective.envs.scenes import _pristine

    _pristine.cache_clear()
    expected = drawn("reach-v3", 0)
    files = [*folder.glob("*/*.npz")]
    assert len(files) == 2
    for path in files:
        data = bytearray(path.read_bytes())
        if damage == "foreign":
            np.savez(path, goals=np.zeros((3, 3)), stamp=np.zeros(2))
            continue
        if damage == "half":
            data = data[: len(data) // 2]
        elif damage == "flip":
            data[len(data) // 2] ^= 1
        path.write_bytes(damage if isinstance(damage, bytes) else bytes(data))
    _pristine.cache_clear()
    with pytest.warns(QuintetWarning, match="made anew") as told:
        np.testing.assert_array_equal(drawn("reach-v3", 0), expected)
    assert len(told) == 1  # once a process, though both were damaged
    _pristine.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(drawn("reach-v3", 0), expected)  # mended


@needs_metaworld
def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    expected = drawn("reach-v3", 0)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("COLLECTIVE_CACHE", str(tmp_path / "file"))
    with pytest.warns(QuintetWarning, match="cannot be kept"):
        np.testing.assert_array_equal(drawn("reach-v3", 0), expected)


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("COLLECTIVE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "quintet" / "collective"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache.folder() == Path.home() / ".cache" / "quintet" / "collective"
