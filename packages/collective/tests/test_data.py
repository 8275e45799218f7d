"""Data sets: what is written is what is read, damage is named, nothing is held out twice."""

from __future__ import annotations

import json
import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from collective_datasets import TASKS, equal, made
from hypothesis import given, settings
from hypothesis import strategies as st

from collective.cli import main
from collective.data import Dataset, Writer, held_out, load, merge
from collective.recorder import Recorder
from rlcore.errors import DataError


def write(folder: Path, *parts: Dataset, **meta: object) -> Path:
    writer = Writer(folder, parts[0].tasks, {"horizon": 50, "reward_version": "v2", "goal_seed": 0, **meta})
    for part in parts:
        writer.append(part)
    return folder


def test_shards_read_as_one_are_what_was_written(tmp_path: Path):
    data = made([3, 5, 1, 8, 2, 7, 4])
    folder = write(tmp_path / "d", data.take(np.arange(3)), data.take(np.arange(3, 7)))
    equal(load(folder), data)


def test_next_observations_do_not_reach_into_the_next_trajectory():
    data = made([2, 1])
    following = data.next_obs()
    np.testing.assert_array_equal(following, [data.obs[1], data.last_obs[0], data.last_obs[1]])


@given(st.lists(st.integers(0, 2), min_size=1, max_size=60), st.integers(1, 59))
@settings(max_examples=50)
def test_what_is_held_out_does_not_depend_on_the_shards(tasks: list[int], cut: int):
    """Every fifth trajectory of a task, whatever was written when."""
    task_id = np.array(tasks)
    whole = held_out(task_id)
    before = np.bincount(task_id[:cut], minlength=3)
    np.testing.assert_array_equal(
        whole, np.concatenate((held_out(task_id[:cut]), held_out(task_id[cut:], before=before)))
    )
    for task in range(3):
        assert whole[task_id == task].sum() == (task_id == task).sum() // 5


def test_splits_share_no_trajectory():
    data = made([2] * 20)
    train, validation = data.of_split("train"), data.of_split("validation")
    assert train.trajectories + validation.trajectories == 20
    assert not {*train.goal_id} & {*validation.goal_id}


class TestDamage:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        data = made([2] * 12)
        return write(tmp_path / "d", data.take(np.arange(7)), data.take(np.arange(7, 12)))

    @pytest.mark.parametrize("how", ["flip", "cut", "gone"])
    def test_a_damaged_shard_is_named_and_can_be_dropped(
        self, how: str, folder: Path, capsys: pytest.CaptureFixture[str]
    ):
        shard = folder / "shard_000.npz"
        raw = bytearray(shard.read_bytes())
        raw[len(raw) // 2] ^= 1
        shard.write_bytes(raw) if how == "flip" else shard.write_bytes(raw[:-9]) if how == "cut" else shard.unlink()
        with pytest.raises(DataError, match=r"shard_000.npz"):
            load(folder)
        assert main(["dataset", "validate", str(folder)]) == 4
        assert "shard_000.npz" in capsys.readouterr().out
        assert main(["dataset", "validate", str(folder), "--repair"]) == 0
        left = load(folder)
        assert left.goal_id.tolist() == [7, 8, 9, 10, 11]
        np.testing.assert_array_equal(left.split, made([2] * 12).split[7:])

    def test_a_stray_file_is_nobodys_shard(self, folder: Path):
        (folder / "shard_999.npz").write_bytes(b"stray")
        (folder / "notes.txt").write_text("mine")
        assert load(folder).trajectories == 12

    def test_no_data_set_says_what_makes_one(self, tmp_path: Path):
        with pytest.raises(DataError, match="collective record"):
            load(tmp_path / "nowhere")

    def test_other_sizes_are_refused(self, folder: Path):
        path = folder / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"obs_dim": 49}))
        with pytest.raises(DataError, match="obs_dim is 49"):
            load(folder)

    @pytest.mark.parametrize("name", ["obs", "action", "reward", "expert_mean"])
    def test_what_is_not_finite_is_named_by_trajectory_and_step(self, name: str):
        data = made([3, 4])
        broken = getattr(data, name).copy()
        broken[5] = np.nan
        with pytest.raises(DataError, match=rf"trajectory 1: {name} is not finite at its step 2"):
            replace(data, **{name: broken})


class TestMerging:
    def test_tasks_of_both_get_new_numbers(self):
        a, b = made([2, 3, 1], tasks=("toy-reach", "toy-push")), made([4, 1], tasks=("toy-lift", "toy-reach"))
        both = merge([a, b])
        assert both.tasks == ("toy-reach", "toy-push", "toy-lift")
        assert both.task_id.tolist() == [0, 1, 0, 2, 0]
        np.testing.assert_array_equal(both.obs, np.concatenate((a.obs, b.obs)))

    @pytest.mark.parametrize(("key", "other"), [("reward_version", "v1"), ("horizon", 9)])
    def test_what_does_not_go_together_is_refused(self, key: str, other: object, tmp_path: Path):
        a, b = write(tmp_path / "a", made([2])), write(tmp_path / "b", made([2]), **{key: other})
        with pytest.raises(DataError, match=f"{key} is .* and {other}"):
            merge([load(a), load(b)])
        assert main(["dataset", "merge", str(a), str(b), "--out", str(tmp_path / "c")]) == 4

    def test_a_writer_does_not_mix_kinds(self, tmp_path: Path):
        write(tmp_path / "a", made([2]))
        with pytest.raises(DataError, match="reward_version"):
            Writer(tmp_path / "a", TASKS, {"horizon": 50, "reward_version": "v1", "goal_seed": 0})


class TestCommands:
    def test_a_new_split_holds_out_its_share_of_each_task(self, tmp_path: Path):
        folder = write(tmp_path / "d", made([2] * 40))
        assert main(["dataset", "split", str(folder), "--fraction", "0.3", "--seed", "4"]) == 0
        data = load(folder)
        assert [int(data.split[data.task_id == t].sum()) for t in (0, 1)] == [6, 6]

    def test_a_subsample_has_no_trajectory_twice_and_drops_early_ones_only_of_many(self, tmp_path: Path):
        folder = write(tmp_path / "d", made([1] * 40))
        words = ["dataset", "subsample", str(folder), "--out", str(tmp_path / "s"), "--above", "10", "--max", "12"]
        assert main(words) == 0
        data = load(tmp_path / "s")
        assert len({*data.goal_id}) == data.trajectories == 24
        assert data.goal_id.min() >= 10  # the first quarter of each task's 20

    @pytest.mark.parametrize("verb", ["subsample", "merge"])
    def test_what_was_cut_off_half_way_does_not_block(self, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        folder, out = write(tmp_path / "d", made([1] * 40)), tmp_path / "s"
        words = ["dataset", verb, str(folder), "--out", str(out)]
        with monkeypatch.context() as patch:
            patch.setattr("collective.data.write_json", lambda *_: os._exit(9))
            child = multiprocessing.get_context("fork").Process(target=main, args=(words,))
            child.start()
            child.join()
        assert child.exitcode == 9
        assert not out.exists()
        assert main(words) == 0
        assert load(out).trajectories == 40
        assert not [path for path in tmp_path.iterdir() if path.name not in ("d", "s")]
        assert main(words) == 2

    @pytest.mark.parametrize("words", [["split"], ["subsample", "--out", "s"]])
    def test_a_seed_below_0_is_refused(self, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        folder = write(tmp_path / "d", made([1] * 40))
        assert main(["dataset", words[0], str(folder), *words[1:], "--seed", "-1"]) == 2
        assert "seed" in capsys.readouterr().err

    def test_a_part_keeps_what_was_held_out(self, tmp_path: Path):
        folder = write(tmp_path / "d", made([1] * 40))
        assert main(["dataset", "split", str(folder), "--fraction", "0.5"]) == 0
        before = load(folder)
        held = {int(goal) for goal, split in zip(before.goal_id, before.split) if split}
        for words in (["subsample", str(folder), "--above", "10"], ["merge", str(folder)]):
            assert main(["dataset", *words, "--out", str(tmp_path / words[0])]) == 0
            data = load(tmp_path / words[0])
            assert {int(goal) for goal, split in zip(data.goal_id, data.split) if split} == held & {*data.goal_id}

    def test_after_a_repair_no_shard_is_written_over(self, tmp_path: Path):
        folder = write(tmp_path / "d", *(made([2] * 5, seed) for seed in range(3)))
        (folder / "shard_000.npz").unlink()
        assert main(["dataset", "validate", str(folder), "--repair"]) == 0
        write(folder, made([2] * 5, 3))
        assert load(folder).trajectories == 15

    def test_info_counts(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        folder = write(tmp_path / "d", made([2, 3, 4]))
        assert main(["dataset", "info", str(folder), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["steps"] == 9
        assert {task: row["steps"] for task, row in found["tasks"].items()} == {"toy-reach": 6, "toy-push": 3}


def test_a_recorder_cuts_interleaved_steps_into_trajectories_and_goes_on_after_a_save():
    rng = np.random.default_rng(0)
    whole, half = (Recorder(TASKS, np.array([0, 1]), 10) for _ in range(2))
    ends = [(False, False), (True, False), (False, True), (False, False), (True, True)]

    def feed(recorder: Recorder, k: int) -> None:
        value = np.random.default_rng(k).normal(size=(2, 39)).astype(np.float32)
        recorder.add(
            value + 1, np.array(ends[k]), np.array([k, k + 10]), obs=value, action=value[:, :4], reward=value[:, 0],
            success=value[:, 0] > 0, expert_mean=value[:, :4], expert_log_std=value[:, :4],
            executed_expert=value[:, 1] > 0,
        )  # fmt: skip

    for k in range(5):
        feed(whole, k)
    for k in range(3):
        feed(half, k)
    other = Recorder(TASKS, np.array([0, 1]), 10)
    other.load_state_dict(half.state_dict())
    for k in range(3, 5):
        feed(other, k)
    a, b = whole.take(), other.take()
    assert a is not None
    assert b is not None
    equal(replace(a, q_target=0 * a.reward), replace(b, q_target=0 * b.reward))
    assert a.lengths.tolist() == [2, 3, 3, 2]
    assert a.task_id.tolist() == [0, 1, 0, 1]
    assert a.goal_id.tolist() == [1, 12, 4, 14]
    assert np.isnan(a.q_target).all()
    del rng
