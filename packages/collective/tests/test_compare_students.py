"""`collective compare-students` on records written by hand: areas, pairs, intervals, verdicts, what is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collective.analysis.student_views import to_markdown
from collective.analysis.students import by_method, compare, ratio, read_run
from collective.cli import main
from collective.config_student import StudentConfig
from collective.run.train_student import method
from rlcore.config import to_dict
from rlcore.errors import DataError

Scores = list[tuple[int, float, float]]  # step, return, success


def write(root: Path, teacher: str, seed: int, scores: Scores, task: str = "toy-reach", **options: Any) -> Path:
    folder = root / f"{Path(teacher).name}-{task}-{seed}{'-x' * bool(options)}"
    folder.mkdir(parents=True)
    cfg = StudentConfig(teacher=teacher, task=task, seed=seed, name=folder.name, **options)
    rows: list[dict[str, Any]] = [{"kind": "eval", "step": s, "return_mean": r, "success": x} for s, r, x in scores]
    rows.append({"kind": "train", "step": scores[-1][0], "cpu_s": 10.0 + seed})
    facts = {"stage": "student", "method": method(cfg)}
    (folder / "config.json").write_text(json.dumps({"program": "collective", "config": to_dict(cfg)}))
    (folder / "env.json").write_text(json.dumps(facts))
    (folder / "status.json").write_text(json.dumps({"state": "finished"}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def fill(root: Path, task: str = "toy-reach", better: float = 3.0) -> Path:
    for seed in range(5):
        at = 10.0 + seed
        write(root, "none", seed, [(0, 0, 0), (100, at, 0.2), (200, at, 0.5)], task)
        write(root, "scripted", seed, [(0, 0, 0), (100, better * at, 0.4), (300, better * at, 0.7 + seed / 50)], task)
    return root


def read(root: Path, first: float = 200) -> list[Any]:
    return [read_run(path, first) for path in sorted(root.iterdir())]


def test_an_area_is_a_mean_return(tmp_path: Path):
    """0 to 10 over 100 steps, then 10: 5 and 10 halves; cut between evaluations, the line is cut there."""
    curve = read_run(write(tmp_path, "none", 0, [(0, 0, 0), (100, 10, 0), (300, 30, 1)]), 300)
    assert curve.area(100) == pytest.approx(5)
    assert curve.area(200) == pytest.approx((500 + 1500) / 200)
    assert curve.area(300) == pytest.approx((500 + 4000) / 300)
    assert (curve.success_at(299), curve.success_at(300)) == (0, 1)


def test_ratios_and_differences_are_of_the_same_seeds(tmp_path: Path):
    report = compare(read(fill(tmp_path)), 200)
    (task,) = report["tasks"]
    plain, taught = task["rows"]
    assert (plain["method"], taught["method"], task["end"]) == ("plain", "scripted: bonus 1", 200)
    assert plain["ratio"] is None
    assert taught["ratio"]["value"] == pytest.approx(3.0)
    assert taught["ratio"]["ci"] == pytest.approx([3.0, 3.0])  # each pair alone has that ratio
    assert taught["ratio"]["pairs"] == 5
    assert taught["success"]["value"] == pytest.approx(0.4)  # of step 100, its last one by step 200
    assert taught["success_gain"]["value"] == pytest.approx(-0.1)
    assert report["overall"][0]["ratio"]["value"] == pytest.approx(3.0)
    assert "faster" in to_markdown(report)


def test_the_interval_is_a_paired_bootstrap():
    """Against all samples of three seeds, written out: 27 of them, the same weight each."""
    table = np.array([[2.0, 1.0], [3.0, 2.0], [9.0, 3.0]])
    samples = [table[[i, j, k]].sum(0) for i in range(3) for j in range(3) for k in range(3)]
    every = np.sort([a / b for a, b in samples])
    found = ratio([table])
    assert found is not None
    assert found["value"] == pytest.approx(14 / 6)
    assert every[0] == pytest.approx(1.5)
    assert found["ci"][0] == pytest.approx(every[0], abs=0.05)
    assert found["ci"][1] == pytest.approx(every[-1], abs=0.05)


@pytest.mark.parametrize(("better", "verdict"), [(0.5, "slower"), (1.0, "not significant: 1 lies in the interval")])
def test_what_is_not_better_is_not_called_so(better: float, verdict: str, tmp_path: Path):
    assert verdict in to_markdown(compare(read(fill(tmp_path, better=better)), 200))


def test_one_seed_cannot_tell(tmp_path: Path):
    write(tmp_path, "none", 0, [(0, 1, 0), (200, 1, 0)])
    write(tmp_path, "scripted", 0, [(0, 9, 0), (200, 9, 0)])
    write(tmp_path, "scripted", 1, [(0, 9, 0), (200, 9, 0)], mix=0.5)
    text = to_markdown(compare(read(tmp_path), 200))
    assert "one seed: cannot tell" in text
    assert "no plain run of the same seed and options" in text


def test_several_tasks_have_a_mean_of_their_ratios(tmp_path: Path):
    fill(tmp_path, "toy-reach", 3.0)
    fill(tmp_path, "toy-push", 2.0)
    report = compare(read(tmp_path), 200)
    assert [task["task"] for task in report["tasks"]] == ["toy-push", "toy-reach"]
    (overall,) = report["overall"]
    assert (overall["tasks"], overall["ratio"]["value"]) == (2, pytest.approx(2.5))


def test_other_options_make_another_row_and_need_a_plain_run_of_their_own(tmp_path: Path):
    fill(tmp_path)
    write(tmp_path, "scripted", 0, [(0, 9, 0), (200, 9, 0)], batch_size=64)
    nothing = {"expire": 9_000, "clone": 1.0, "clone_kept": 0.5}  # without a teacher
    write(tmp_path, "none", 1, [(0, 9, 0), (200, 9, 0)], **nothing)
    curves = read(tmp_path)
    labels = list(by_method(curves))
    assert labels == ["plain", "scripted: bonus 1 batch_size=512", "scripted: bonus 1 batch_size=64"]
    rows = {row["method"]: row for row in compare(curves, 200)["tasks"][0]["rows"]}
    assert rows[labels[1]]["ratio"]["pairs"] == 5
    assert rows[labels[2]]["ratio"] is None


def test_the_command_writes_tables_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = fill(tmp_path)
    write(root, "none", 7, [(0, 0, 0), (100, 1, 0)])
    (root / "half").mkdir()
    (root / "half" / "config.json").write_text("{}")
    assert main(["compare-students", "--dir", str(root), "--first", "200"]) == 0
    said = capsys.readouterr()
    assert "up to step 100, not 200" in said.err
    assert said.err.count("left out") == 2
    assert "3.00 [3.00, 3.00]" in said.out
    for name in ("md", "json", "png"):
        assert (root / "compare" / f"students.{name}").stat().st_size > 500
    command = ["compare-students", "none-toy-reach-0", "--dir", str(root), "--first", "200", "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["tasks"][0]["rows"][0]["runs"] == ["none-toy-reach-0"]
    assert main(["compare-students", "nne-toy-reach-0", "--dir", str(root)]) == 2
    assert "did you mean none-toy-reach-0" in capsys.readouterr().err


def test_other_runs_are_no_students(tmp_path: Path):
    folder = write(tmp_path, "none", 0, [(0, 0.0, 0.0)])
    (folder / "env.json").write_text(json.dumps({"stage": "finetune"}))
    with pytest.raises(DataError, match="its stage is finetune"):
        read_run(folder, 0)
