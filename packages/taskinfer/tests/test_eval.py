"""`eval tasks` and `eval nonstationary`: on planted records by hand, and end to end on tiny runs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from rlcore.errors import DataError
from taskinfer.analysis.adaptation import adaptation, summary, switching
from taskinfer.analysis.trajectories import draw
from taskinfer.cli import main
from taskinfer.record import Record, Recorder, episode_scores
from taskinfer.run.saved import held_out_tasks, open_toy
from taskinfer.tasks import Family, parse_tasks


def record(reward=None, body: str = "", **columns) -> Record:
    """One episode of 20 steps: 10 of goal 2, known from the fourth on, then 10 of velocity 1, never known."""
    families = (Family.velocity_forward, Family.goal_forward)
    made = Recorder(families, 3, 1, 20, 2, 1, dt=0.1, toy="toy1d", body=body)
    goal, velocity = (parse_tasks(text) for text in ("goal:2", "velocity:1"))
    for t in range(20):
        made.did(t, goal if t < 10 else velocity, reward=np.array([-t]))
    made.columns["family_prob"][:, :, 1] = 0.6
    made.columns["family_prob"][:, :, 0] = 0.4
    made.columns["family_prob"][:, :4] = made.columns["family_prob"][:, :4, ::-1]
    for name, values in columns.items():
        made.columns[name][:] = values
    return made.done()


def test_when_a_task_is_known_and_done_by_hand():
    error = np.r_[1.0, 0.1, 1.0, np.full(7, 0.29), np.full(8, 0.1), 0.21, 0.1]  # limits: 0.3 and 0.2
    found = adaptation(record(error=error), 10)
    np.testing.assert_array_equal(found.done, [[4, 10]])
    np.testing.assert_array_equal(found.known, [[4, np.nan]])
    row = summary(record(error=error), 10)
    assert (row["first_done_after"], row["switched_done_after"], row["switched_known"]) == (4, 10, 0.0)
    assert row["switched_known_after"] is None
    assert row["return"] == -190
    assert row["family_accuracy"] == 7 / 20
    assert record().switches.tolist() == [10]


def test_scores_of_an_episode_by_hand():
    error = np.r_[np.zeros(18), 0.19, 0.19]
    assert episode_scores(record(error=error))["success"].tolist() == [True]  # 0.1 * 1 + 0.1
    error[-1] = 0.25
    assert episode_scores(record(error=error))["success"].tolist() == [False]
    assert episode_scores(record(error=error, body="cheetah"))["success"].tolist() == [True]  # 0.2 * 1 + 0.1
    assert episode_scores(record(error=error, body="cheetah", alive=False))["success"].tolist() == [False]


def test_tasks_switch_on_time_and_to_others():
    choices = parse_tasks("goal:1,2,3,-4")
    at = switching(choices, 6, 299, 60, np.random.default_rng(0))
    assert at(0).spec.tolist() == [1, 2, 3, -4, 1, 2]
    assert all(at(t) is at(60) for t in range(60, 120))
    for turn in range(4):
        assert (at(60 * turn).spec != at(60 * turn + 60).spec).all()
    assert len({tuple(at(60 * turn).spec) for turn in range(5)}) == 5
    alone = switching(choices[np.array([0])], 2, 100, 50, np.random.default_rng(0))
    assert (alone(99).spec == 1).all()


def test_a_record_survives_its_file_and_foreign_ones_are_named(tmp_path: Path):
    made = record(error=0.5)
    made.save(tmp_path / "a.npz")
    back = Record.load(tmp_path / "a.npz")
    for name, value in vars(made).items():
        np.testing.assert_array_equal(getattr(back, name), value)
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:500])
    np.savez(tmp_path / "c.npz", obs=np.zeros(3))
    for name in "bcd":
        with pytest.raises(DataError, match=rf"{name}\.npz holds no recorded episodes"):
            Record.load(tmp_path / f"{name}.npz")


def run_json(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_fixed_tasks_of_a_toy_run(toy_run: Path, capsys: pytest.CaptureFixture[str]):
    report = run_json(capsys, "eval", "tasks", str(toy_run), "--tasks", "goal:2,-3;velocity:1", "--repeats", "2")
    assert list(report["tasks"]) == ["goal_forward:2", "goal_backward:-3", "velocity_forward:1"]
    rows = list(csv.DictReader((toy_run / "analysis" / "tasks.csv").open()))
    assert [row["repeat"] for row in rows] == ["0"] * 3 + ["1"] * 3
    own = [float(row["error"]) for row in rows if row["task"] == "goal_backward:-3"]
    assert report["tasks"]["goal_backward:-3"]["error"] == pytest.approx(np.mean(own))
    for kind in ("goal", "velocity"):
        assert (toy_run / "plots" / f"tasks_{kind}.png").stat().st_size > 5000
    lived = Record.load(toy_run / "analysis" / "tasks.npz")
    assert lived.reward.shape == (6, 20)  # the run's horizon
    assert lived.subgoal_group.max() == -1


def test_in_the_plane_each_quantity_has_a_panel(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = f"toy train --preset debug --quiet --name p --toy toy2d --tasks goal --total-steps 80 --dir {tmp_path}"
    assert main(words.split()) == 0
    assert main(["eval", "tasks", str(tmp_path / "p"), "--tasks", "goal:5"]) == 2
    assert "goal_forward:5 is of no family" in (error := capsys.readouterr().err)
    assert "name one of goal_left, goal_right, goal_up, goal_down" in error
    run_json(capsys, "eval", "tasks", str(tmp_path / "p"), "--tasks", "goal_up:5;goal_left:-2", "--repeats", "1")
    lived = Record.load(tmp_path / "p" / "analysis" / "tasks.npz")
    up, left = draw(lived, "goal", "p").axes
    assert (up.get_ylabel(), left.get_ylabel()) == ("y (m)", "x (m)")
    np.testing.assert_array_equal(up.lines[0].get_ydata(), lived.obs[0, :, 1])
    np.testing.assert_array_equal(left.lines[0].get_ydata(), lived.obs[1, :, 0])
    assert [list(axes.lines[1].get_ydata()) for axes in (up, left)] == [[5, 5], [-2, -2]]
    assert len(up.lines) == len(left.lines) == 2


def test_without_options_each_family_is_tried(toy_run: Path, capsys: pytest.CaptureFixture[str]):
    report = run_json(capsys, "eval", "tasks", str(toy_run), "--repeats", "1")
    assert {"goal_forward:7", "goal_backward:-19", "velocity_backward:-1.125"} <= set(report["tasks"])
    assert len(report["tasks"]) == 8


def test_fixed_tasks_of_a_transfer(transfer_run: Path, capsys: pytest.CaptureFixture[str]):
    """The same high level on the same tasks; other bodies than those of the transfer itself."""
    report = run_json(capsys, "eval", "tasks", str(transfer_run))
    assert list(report["tasks"]) == ["goal_forward:2", "goal_backward:-2", "velocity_forward:1"]
    lived, before = (Record.load(transfer_run / p) for p in ("analysis/tasks.npz", "trajectories/toy.npz"))
    assert str(lived.body) == "tiny_bodies:slider"
    assert (lived.obs[0, 0] != before.obs[0, 0]).any()
    oracle = run_json(capsys, "eval", "tasks", str(transfer_run), "--high-level", "oracle", "--steps", "7")
    asked = Record.load(transfer_run / "analysis" / "tasks.npz")
    assert oracle["run"] == str(transfer_run)
    assert asked.reward.shape[1] == 7
    assert asked.subgoal_group[:3, 0].tolist() == [0, 0, 1]


def test_switching_tasks_of_both(toy_run: Path, transfer_run: Path, capsys: pytest.CaptureFixture[str]):
    unseen = {float(spec) for spec in held_out_tasks(open_toy(toy_run)).spec}
    for run, specs in ((toy_run, unseen), (transfer_run, {2.0, -2.0, 1.0})):
        words = ("eval", "nonstationary", str(run), "--switch", "6", "--steps", "20", "--num", "5")
        report = run_json(capsys, *words)
        lived = Record.load(run / "analysis" / "nonstationary.npz")
        assert lived.switches.tolist() == [6, 12, 18]
        assert set(np.unique(lived.spec)) <= {np.float32(spec) for spec in specs}
        assert lived.belief_mean.shape[:2] == lived.family_prob.shape[:2] == (5, 21)
        assert report["stretches"] == 4
        assert report == json.loads((run / "analysis" / "nonstationary.json").read_text())
        assert run_json(capsys, *words) == report  # the same again
        goal = np.isin(lived.true_family, [2, 3])
        at = np.where(goal, lived.obs[:, 1:, 0], lived.obs[:, 1:, 1])  # paid by the task of that very step
        np.testing.assert_allclose(lived.reward, -np.abs(at - lived.spec) / np.abs(lived.spec), atol=1e-4)


def test_mistakes_are_one_line(
    toy_run: Path, low_run: Path, transfer_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def said(*words: str) -> str:
        assert main(["eval", *words]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    assert "neither a toy run nor a transfer (its stage is low)" in said("tasks", str(low_run))
    assert "there is no run" in said("nonstationary", str(tmp_path / "none"))
    assert "stand_front:0.5 is of no family that" in said("tasks", str(toy_run), "--tasks", "stand:0.5")
    assert "did you mean goal" in said("tasks", str(toy_run), "--tasks", "gaol:1")
    assert "unknown 'jpg'" in said("tasks", str(toy_run), "--format", "jpg")
    assert "switch: must be in 1 .. 1,048,575, got 0" in said("nonstationary", str(toy_run), "--switch", "0")
    assert "seed_base: must not be negative, got -1" in said("tasks", str(toy_run), "--seed-base", "-1")
    assert "has none of its own" in said("tasks", str(transfer_run), "--checkpoint", "best")
    assert "its policy acts itself" in said("tasks", str(toy_run), "--high-level", "oracle")
    words = "toy train --preset debug --quiet --name o --arm oracle --total-steps 80 --dir"
    assert main([*words.split(), str(tmp_path)]) == 0
    capsys.readouterr()
    assert "infers nothing" in said("nonstationary", str(tmp_path / "o"))
    assert main(["eval", "tasks", str(tmp_path / "o"), "--repeats", "1"]) == 0
    assert "family " not in capsys.readouterr().out
