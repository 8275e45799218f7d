"""Records are true: who acted, what the expert would have done, which goal; and they go on where they stopped."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
from collective_datasets import equal

from collective import envs
from collective.cli import main
from collective.data import Dataset, load
from collective.run import record as recording
from rlcore.run import Run

DEBUG = "record --preset debug --quiet --save-every 120".split()


def recorded(root: Path, name: str, *options: str) -> Dataset:
    assert main([*DEBUG, "--dir", str(root), "--name", name, *options]) == 0
    return load(root / name)


def test_labels_are_each_tasks_own_script_recomputed_from_the_stored_observation(tmp_path: Path):
    data = recorded(tmp_path, "d", "--noise", "0.5")
    expected = envs.script_actions(data.tasks, data.task_of_rows, data.obs)
    np.testing.assert_array_equal(data.expert_mean, expected)
    assert np.abs(data.expert_mean).max() <= 1
    assert len({*data.task_id}) == 3


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_p_scripted_is_the_probability_of_the_scripts_action(share: float, tmp_path: Path):
    options = ["--p-scripted", str(share), "--steps", "1200", "--horizon", "60"]
    data = recorded(tmp_path, "d", *options)
    same = (data.action == data.expert_mean).all(1)
    np.testing.assert_array_equal(same, data.executed_expert)
    assert data.executed_expert.mean() == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize(("policy", "share"), [("random", 0.0), ("scripted", 1.0)])
def test_pure_policies_are_pure(policy: str, share: float, tmp_path: Path):
    data = recorded(tmp_path, "d", "--policy", policy)
    assert (data.action == data.expert_mean).all(1).mean() == share


def test_an_episode_ends_soon_after_its_success(tmp_path: Path):
    data = recorded(tmp_path, "d", "--policy", "scripted", "--stop-after-success", "3", "--steps", "800")
    ends = [np.flatnonzero(data.success[a:b]) for a, b in zip(data.offsets, data.offsets[1:])]
    lengths = data.lengths
    finished = [(first[0], n) for first, n in zip(ends, lengths) if len(first) and n < 60]
    assert len(finished) > 10
    assert {n - at - 1 for at, n in finished} <= {0, 1, 2, 3}  # less where the recording ended


def test_goals_and_starts_are_those_of_the_envs(tmp_path: Path):
    data = recorded(tmp_path, "d")
    with_goal = {(int(t), int(g)): obs for t, g, obs in zip(data.task_id, data.goal_id, data.obs[data.offsets[:-1]])}
    vec = envs.make(data.tasks, seed=0, copies=4, goal_seed=0, horizon=60)
    met = 0
    for _ in range(3):
        for i, obs in enumerate(vec.reset()):
            key = int(vec.task_index[i]), int(vec.goal_id[i])
            if key in with_goal:
                np.testing.assert_array_equal(obs, with_goal[key])
                met += 1
    assert met > 5


def test_a_recording_that_was_stopped_goes_on_to_the_same_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = recorded(tmp_path, "whole", "--noise", "0.5")
    turn, turns = recording.Recording.turn, []

    def stopping(self: recording.Recording) -> None:
        turn(self)
        turns.append(1)
        if len(turns) == 37:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(recording.Recording, "turn", stopping)
    assert main([*DEBUG, "--noise", "0.5", "--dir", str(tmp_path), "--name", "half"]) == 85
    monkeypatch.undo()
    half = recorded(tmp_path, "half", "--noise", "0.5")
    equal(whole, half)


def test_what_was_written_before_the_first_checkpoint_is_not_recorded_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = recorded(tmp_path, "whole")
    save, calls = Run.save, list[int]()

    def dying(self: Run, *arguments: object, **parts: object) -> None:
        calls.append(1)
        if len(calls) == 4:  # after a shard, before any checkpoint
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "save", dying)
    assert main([*DEBUG, "--dir", str(tmp_path), "--name", "half"]) == 130
    monkeypatch.setattr(Run, "save", save)
    assert load(tmp_path / "half").trajectories > 0
    equal(recorded(tmp_path, "half"), whole)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--tasks", "reech-v3"], "did you mean reach-v3"),
        (["--p-scripted", "1.5"], "probability"),
        (["--reset-goal-state-in-oder", "true"], "oder"),
        (["--tasks", "toy-reach", "reach-v3", "--benchmark", "toy"], "cannot be mixed"),
    ],
)
def test_mistakes_are_one_line(options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([*DEBUG, "--dir", str(tmp_path), "--name", "d", *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.strip().count("\n") == 0
