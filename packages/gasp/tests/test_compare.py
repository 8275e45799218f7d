"""`gasp compare` on records written by hand: numbers, groups, differences, what is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gasp.analysis.comparison import by_method, compare, read_run
from gasp.cli import main
from gasp.config_rl import RLConfig
from rlcore.config import to_dict
from rlcore.errors import DataError

Scores = list[tuple[int, float, float]]  # step, by the mean skill, by drawn ones


def write(root: Path, method: str, seed: int, scores: Scores, task: str = "toy", **options: Any) -> Path:
    folder = root / f"{method.replace(' ', '')}-{task}-{seed}{'-x' * bool(options)}"
    folder.mkdir(parents=True)
    cfg = RLConfig(skills=Path("skills"), task=task, seed=seed, name=folder.name, **options)
    subtasks = ["kettle", "microwave"] if task.startswith("kitchen") else []
    key = "subtasks_mean" if subtasks else "success_rate"
    rows: list[dict[str, Any]] = [{"kind": "eval", "step": s, key: m, f"drawn_{key}": d} for s, m, d in scores]
    rows.append({"kind": "train", "step": scores[-1][0], "success_last20": scores[-1][2], "cpu_s": 10.0 + seed})
    facts = {"stage": "rl", "method": method, "subtasks": subtasks}
    (folder / "config.json").write_text(json.dumps({"program": "gasp", "config": to_dict(cfg)}))
    (folder / "env.json").write_text(json.dumps(facts))
    (folder / "status.json").write_text(json.dumps({"state": "finished"}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def fill(root: Path) -> Path:
    for seed, (before, after) in enumerate([(0.2, 0.9), (0.4, 1.0), (0.3, 0.8)]):
        write(root, "spirl", seed, [(0, 0.1, before), (100, 0.5, after)])
        write(root, "gasp", seed, [(0, 0.1, before), (100, 0.5, after - 0.1), (200, 0.6, 1.0)])
    write(root, "no prior", 0, [(0, 0.0, 0.0), (100, 0.1, 0.05)])
    return root


def test_numbers_by_hand(tmp_path: Path):
    """Runs of other lengths are compared where all have been; three seeds have the mean of all as their IQM."""
    root = fill(tmp_path)
    report = compare([read_run(path, "drawn") for path in sorted(root.iterdir())], "drawn")
    (task,) = report["tasks"]
    assert (task["step"], task["cut"], task["of"]) == (100, True, 1)
    rows = {row["method"]: row for row in task["rows"]}
    assert list(rows) == ["gasp", "spirl", "no prior"]
    assert rows["spirl"]["before"]["iqm"] == pytest.approx(0.3)
    assert rows["spirl"]["after"]["each"] == [0.9, 1.0, 0.8]
    assert rows["spirl"]["gain"]["iqm"] == pytest.approx((0.7 + 0.6 + 0.5) / 3)
    assert rows["spirl"]["last20"]["iqm"] == pytest.approx(0.9)
    assert rows["gasp"]["last20"] is None  # those are of step 200
    assert rows["no prior"]["after"]["ci"] is None
    differences = {tuple(d["between"]): d for d in task["differences"]}
    assert differences["gasp", "spirl"]["iqm"] == pytest.approx(-0.1)
    low, high = differences["gasp", "spirl"]["ci"]
    assert -0.3 <= low < -0.1 < high <= 0.1
    assert differences["gasp", "no prior"]["ci"] is None


def test_kitchens_are_compared_by_subtasks(tmp_path: Path):
    curve = read_run(write(tmp_path, "gasp", 1, [(0, 0.5, 0.4), (50, 1.5, 1.2)], "kitchen-complete"), "mean")
    assert (curve.subtasks, curve.score.tolist()) == (2, [0.5, 1.5])
    assert compare([curve], "mean")["tasks"][0]["score"] == "subtasks"


def test_other_options_make_another_row(tmp_path: Path):
    write(tmp_path, "gasp", 0, [(0, 0.0, 0.0)])
    write(tmp_path, "gasp", 1, [(0, 0.0, 0.0)], updates_per_skill=4.0)
    groups = by_method([read_run(path, "mean") for path in sorted(tmp_path.iterdir())])
    assert sorted(groups) == ["gasp updates_per_skill=2.0", "gasp updates_per_skill=4.0"]


def test_the_command_writes_tables_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = fill(tmp_path)
    (root / "half").mkdir()
    (root / "half" / "config.json").write_text("{}")
    assert main(["compare", "--dir", str(root), "--mode", "drawn"]) == 0
    said = capsys.readouterr()
    assert "left out" in said.err
    assert "| gasp less spirl" in said.out
    assert "0 lies in the interval" in said.out
    for name in ("md", "json", "png"):
        assert (root / "compare" / f"compare.{name}").stat().st_size > 500
    assert main(["compare", "gasp-toy-0", str(root / "spirl-toy-1"), "--dir", str(root), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["tasks"][0]["rows"]
    assert [row["runs"] for row in rows] == [["gasp-toy-0"], ["spirl-toy-1"]]
    assert main(["compare", "gsp-toy-0", "--dir", str(root)]) == 2
    assert "did you mean gasp-toy-0" in capsys.readouterr().err


def test_runs_of_other_stages_are_no_rl_runs(tmp_path: Path):
    folder = write(tmp_path, "gasp", 0, [(0, 0.0, 0.0)])
    (folder / "env.json").write_text(json.dumps({"stage": "skills"}))
    with pytest.raises(DataError, match="its stage is skills"):
        read_run(folder, "mean")
