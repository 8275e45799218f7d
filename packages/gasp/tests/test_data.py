"""Windows, files of our own and of others, and everything that must be refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from gasp import data, envs
from gasp.cli import main
from gasp.data import Demos
from rlcore.errors import DataError, EnvironmentProblem, UsageError

META = {"task": "toy", "obs_mode": "point", "labels": ["a", "b"]}


def counted(*lengths: int, extra: int = 1) -> Demos:
    """Episodes of so many actions; every state says episode and time, every action its negative."""
    episodes = []
    for e, length in enumerate(lengths):
        obs = np.stack((np.full(length + extra, e), np.arange(length + extra)), 1).astype(np.float32)
        episodes.append((obs, -obs[:length]))
    return Demos.of(episodes, META)


def d4rl_file(
    path: Path, lengths: tuple[int, ...], *, wide: bool = False, last_ends: bool = True, **change: Any
) -> Path:
    """A flat file of episodes with so many states, sizes of the kitchen."""
    n = sum(lengths)
    ends = np.zeros(n, bool)
    ends[np.cumsum(lengths) - 1] = True
    ends[-1] = last_ends
    fields = {
        "observations": np.arange(n * 60, dtype="f4").reshape(n, 60), "actions": np.full((n, 9), 0.5, "f4"),
        "rewards": np.zeros((n, 1) if wide else n, "f4"), "terminals": ends[:, None] if wide else ends,
        "infos": np.arange(n),
    }  # fmt: skip
    with h5py.File(path, "w") as file:
        for name, values in (fields | change).items():
            if values is not None:
                file[name] = values
    return path


def minari_folder(folder: Path, lengths: tuple[int, ...]) -> Path:
    """A Minari data set of episodes with so many actions."""
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "metadata.json").write_text(json.dumps({"dataset_id": "D4RL/kitchen/mixed-v2"}))
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        for i, length in enumerate(lengths):
            group = file.create_group(f"episode_{i}")
            group["observations/observation"] = np.full((length + 1, 59), i, "f8")
            group["observations/achieved_goal/kettle"] = np.zeros((length + 1, 7))
            group["observations/desired_goal/kettle"] = np.zeros((length + 1, 7))
            group["actions"] = np.full((length, 9), 0.25)
            for name in ("rewards", "terminations", "truncations"):
                group[name] = np.zeros(length)
    return folder


# --- windows ---------------------------------------------------------------------------------------------------------
def test_windows_lie_within_an_episode_and_hold_what_was_done():
    demos = counted(12, 10, 3)
    starts = demos.starts(10)
    assert starts.tolist() == [0, 1, 2, 13]  # 13, 11 and 4 states; windows take 11
    obs, action = demos.gather(starts, 10)
    assert obs.shape == (4, 11, 2)
    assert action.shape == (4, 10, 2)
    for window, done in zip(obs, action):
        assert len(set(window[:, 0])) == 1
        assert (np.diff(window[:, 1]) == 1).all()
        np.testing.assert_array_equal(done, -window[:-1])
    with pytest.raises(DataError, match="13 states, windows need 21"):
        demos.starts(20)


def test_d4rl_windows_of_the_specification(tmp_path: Path):
    demos = data.load(d4rl_file(tmp_path / "f.hdf5", (10, 11, 15)))
    starts = demos.starts(10)
    episode = np.searchsorted(demos.offsets, starts, "right") - 1
    assert np.bincount(episode, minlength=3).tolist() == [0, 1, 5]


def test_minari_windows_of_the_specification(tmp_path: Path):
    demos = data.load(minari_folder(tmp_path / "set", (9, 10, 15)))
    assert demos.lengths.tolist() == [10, 11, 16]
    starts = demos.starts(10)
    episode = np.searchsorted(demos.offsets, starts, "right") - 1
    assert np.bincount(episode, minlength=3).tolist() == [0, 1, 6]
    obs, _ = demos.gather(starts, 10)
    assert (obs == obs[:, :1]).all()  # each state is its episode's number
    assert demos.meta["task"] == "kitchen-mixed"
    assert demos.meta["obs_mode"] == "full59"


def test_minari_episodes_are_in_the_order_of_their_numbers(tmp_path: Path):
    demos = data.load(minari_folder(tmp_path / "set", (3,) * 12) / "data" / "main_data.hdf5")
    assert demos.obs[demos.offsets[:-1], 0].tolist() == list(range(12))


def test_d4rl_columns_timeouts_and_an_open_end(tmp_path: Path):
    """(N, 1) flags are flags; timeouts cut as well; what follows the last end is kept."""
    timeouts = np.zeros(20, bool)
    timeouts[3] = True
    path = d4rl_file(
        tmp_path / "mini_kitchen_microwave_kettle_light_slider-v0.hdf5", (8, 12), wide=True, last_ends=False,
        timeouts=timeouts,
    )  # fmt: skip
    demos = data.load(path)
    assert demos.lengths.tolist() == [4, 4, 12]
    assert demos.transitions == 17
    assert demos.meta["task"] == "kitchen-complete"
    assert demos.meta["obs_mode"] == "legacy60"


def test_maze_rollouts(tmp_path: Path):
    with h5py.File(tmp_path / "r.h5", "w") as file:
        for i, length in enumerate((4, 6)):
            file[f"traj{i}/states"] = np.full((length, 4), i, "f4")
            file[f"traj{i}/actions"] = np.zeros((length, 2), "f4")
            file[f"traj{i}/images"] = np.zeros((length, 8, 8, 3), "u1")
    demos = data.load(tmp_path / "r.h5")
    assert demos.lengths.tolist() == [4, 6]
    assert demos.obs.shape == (10, 4)


# --- refusals --------------------------------------------------------------------------------------------------------
def with_nan(at: int) -> np.ndarray:
    values = np.zeros((36, 60), "f4")
    values[at, 5] = np.nan
    return values


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"observations": with_nan(13)}, "episode 1: obs is not finite at its step 3"),
        ({"actions": np.full((36, 9), np.inf, "f4")}, "episode 0: action is not finite at its step 0"),
        ({"actions": np.zeros((35, 9), "f4")}, "actions: expected 36 rows as observations have, got 35"),
        ({"actions": np.zeros(36, "f4")}, "actions: expected 2 axes"),
        ({"actions": None}, "field actions is missing"),
        ({"terminals": np.zeros((36, 2))}, "terminals: expected"),
        ({"terminals": None}, "fields terminals and timeouts are missing"),
        ({"observations": np.zeros((36, 60), "S1")}, "observations: expected numbers"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], said: str, tmp_path: Path):
    path = d4rl_file(tmp_path / "bad.hdf5", (10, 11, 15), **change)
    with pytest.raises(DataError, match=said) as error:
        data.load(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("observations/observation", np.zeros((10, 59)), "episode 1: episode_1/observations/observation: expected 11"),
        ("actions", np.zeros((10, 8)), "different"),
        ("actions", None, "episode 1: expected fields observations and actions"),
        ("observations/observation", None, "episode 1: field episode_1/observations/observation is missing"),
    ],
)
def test_a_minari_episode_that_does_not_fit_is_named(field: str, value: Any, said: str, tmp_path: Path):
    folder = minari_folder(tmp_path / "set", (9, 10, 15))
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        del file[f"episode_1/{field}"]
        if value is not None:
            file[f"episode_1/{field}"] = value
    with pytest.raises(DataError, match=said):
        data.load(folder)


def test_every_cut_and_every_flipped_byte_is_an_error_or_harmless(tmp_path: Path):
    """A damaged file of ours never gives other numbers: the checksums of HDF5 cover what is stored."""
    demos = counted(30, 40)
    data.save(tmp_path / "d.h5", demos)
    raw, rng = (tmp_path / "d.h5").read_bytes(), np.random.default_rng(0)
    refused = 0
    for i in range(120):
        mutant = bytearray(raw)
        place = int(rng.integers(len(raw)))
        if i % 2:
            mutant[place] ^= 1 << int(rng.integers(8))
        else:
            del mutant[place:]
        (tmp_path / "m.h5").write_bytes(mutant)
        try:
            read = data.load(tmp_path / "m.h5")
        except DataError:
            refused += 1
            continue
        for name in data.KINDS:
            np.testing.assert_array_equal(getattr(read, name), getattr(demos, name))
    assert refused >= 60  # all that were cut


def test_what_is_no_demonstrations_at_all_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="does not exist; `gasp data collect`"):
        data.load(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(DataError, match="cannot be read"):
        data.load(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["weights"] = np.zeros(3)
    with pytest.raises(DataError, match=r"it holds weights; expected obs \(ours\)"):
        data.load(tmp_path / "other.h5")


@pytest.mark.parametrize(
    ("name", "values"), [("offsets", [0, 5, 4, 8]), ("offsets", [0, 8, 9]), ("label", np.zeros(7))]
)
def test_fields_of_ours_that_contradict_each_other_are_refused(name: str, values: Any, tmp_path: Path):
    data.save(tmp_path / "d.h5", counted(3, 3))
    with h5py.File(tmp_path / "d.h5", "a") as file:
        del file[name]
        file[name] = values
    with pytest.raises(DataError, match=name):
        data.load(tmp_path / "d.h5")


def test_episodes_of_wrong_shapes_are_refused():
    for obs, action in (((3, 2), (5, 1)), ((3,), (3, 1)), ((6, 2), (3, 1))):
        with pytest.raises(DataError, match="episode 0"):
            Demos.of([(np.zeros(obs), np.zeros(action))], META)
    with pytest.raises(DataError, match="holds no episode"):
        Demos.of([], META)


# --- our own files, splits, modes ------------------------------------------------------------------------------------
def test_a_file_of_ours_comes_back_as_it_was(tmp_path: Path):
    demos = counted(5, 7)
    data.save(tmp_path / "new" / "d.h5", demos)
    read = data.load(tmp_path / "new" / "d.h5")
    for name in data.KINDS:
        np.testing.assert_array_equal(getattr(read, name), getattr(demos, name))
    assert {k: read.meta[k] for k in META} == META
    with h5py.File(tmp_path / "new" / "d.h5") as file:
        assert all(file[name].fletcher32 for name in data.KINDS)  # checksums, whatever the compression sees


def test_a_split_is_by_episodes_and_by_the_seed_alone():
    demos = counted(*[5] * 20)
    train, val = demos.split(0.1, seed=3)
    assert (train.episodes, val.episodes) == (18, 2)
    assert not set(train.obs[:, 0]) & set(val.obs[:, 0])
    again = demos.split(0.1, seed=3)[1]
    np.testing.assert_array_equal(val.obs, again.obs)
    assert any(not np.array_equal(val.obs, demos.split(0.1, seed=s)[1].obs) for s in range(4, 8))
    assert counted(5, 5).split(0.01, seed=0)[1].episodes == 1
    with pytest.raises(DataError, match="one episode"):
        counted(5).split(0.1, seed=0)
    with pytest.raises(UsageError, match="fraction"):
        demos.split(1.0, seed=0)


def test_old_kitchen_data_are_refused_with_the_hint_and_never_padded(tmp_path: Path):
    demos = data.load(d4rl_file(tmp_path / "k.hdf5", (12,)))
    with pytest.raises(DataError, match=r"observations of 60 numbers, kitchen has 59; .*obs_mode legacy60"):
        data.fit(demos, envs.describe("kitchen", obs_mode="full59"))
    data.fit(demos, envs.describe("kitchen", obs_mode="legacy60"))
    with pytest.raises(DataError, match="actions of 9 numbers, toy takes 2"):
        data.fit(demos, envs.describe("toy"))
    with pytest.raises(DataError, match="no velocities"):
        data.as_mode(demos, "full59")
    assert data.as_mode(demos, "state30").obs.shape == (12, 30)


def test_goals_are_those_of_the_subtasks_or_of_the_task_or_refused(tmp_path: Path):
    full = data.Demos.of([(np.zeros((4, 59)), np.zeros((3, 9)))], {"file": "f.h5", "obs_mode": "full59"})

    def goals(**meta: Any) -> list[int]:
        found = data.as_mode(replace(full, meta={**full.meta, **meta}), "legacy60")
        return [int(i) for i in np.flatnonzero(found.obs[0, 30:])]

    assert goals(task="kitchen", subtasks=["slide cabinet"]) == [19]
    assert goals(task="kitchen-mixed") == [11, 12, 17, 18, 22, 23, 24, 25, 26, 29]
    for task in ("kitchen", "kitchen-new", "unknown"):  # "kitchen" is what a reader says of any file of its sizes
        with pytest.raises(DataError, match=r"f\.h5: .*subtasks, which are unknown"):
            goals(task=task)


def test_old_data_are_inspected_against_a_task_and_converted_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    old, new = str(d4rl_file(tmp_path / "k.hdf5", (12, 13))), str(tmp_path / "new.h5")
    assert main(["data", "inspect", old, "--task", "kitchen"]) == 4
    assert "observations of 60 numbers, kitchen has 30" in capsys.readouterr().err
    assert main(["data", "convert", old, "--out", new, "--obs-mode", "state30"]) == 0
    assert main(["data", "inspect", new, "--task", "kitchen"]) == 0
    np.testing.assert_array_equal(data.load(Path(new)).obs, data.load(Path(old)).obs[:, :30])
    assert main(["data", "convert", old, "--out", new]) == 2


def test_points_fit_the_world_that_they_are_of(tmp_path: Path):
    """Minari's were recorded in PointMaze; of others (x, y, vx, vy) means something else, and inspect says so."""
    maze, toy = envs.describe("maze-medium"), envs.describe("toy")
    with h5py.File(tmp_path / "m.hdf5", "w") as file:
        file["episode_0/observations/observation"] = np.zeros((13, 4))
        file["episode_0/actions"] = np.zeros((12, 2))
    data.fit(data.load(tmp_path / "m.hdf5"), maze)
    flat = {"observations": np.zeros((36, 4), "f4"), "actions": np.zeros((36, 2), "f4")}
    old = data.load(d4rl_file(tmp_path / "d.hdf5", (36,), **flat))
    for demos, spec in ((data.load(tmp_path / "m.hdf5"), toy), (old, maze)):
        with pytest.raises(DataError, match=f"obs_mode is {demos.meta['obs_mode']}, of {spec.name} {spec.obs_mode}"):
            data.fit(demos, spec)


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data.save(tmp_path / "d.h5", counted(5))

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(EnvironmentProblem, match="No space left"):
        data.save(tmp_path / "d.h5", counted(9))
    assert data.load(tmp_path / "d.h5").transitions == 5
    assert [path.name for path in tmp_path.iterdir()] == ["d.h5"]
