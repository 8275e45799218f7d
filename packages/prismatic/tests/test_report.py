"""`prismatic report`, on records of a few rows whose numbers can be worked out by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from prismatic.analysis.evaluations import read_run
from prismatic.analysis.report import compare, parse_thresholds
from prismatic.analysis.report_views import to_csv, to_markdown
from prismatic.cli import main
from prismatic.config import ReportConfig
from prismatic.run.report import folders
from rlcore.errors import QuintetWarning, UsageError

Row = tuple[int, float]  # step, return


def write_run(root: Path, name: str, evals: list[Row], *, success: float | None = None, repeat: int = 1, **config: Any):
    """A run of one task; an evaluation's CPU time is a tenth of its step."""
    told = {} if success is None else {"success_rate": success}
    rows = [{"kind": "eval", "step": s, "return_mean": r, "cpu_s": s / 10, **told} for s, r in evals]
    return write_rows(root, name, rows, repeat, **config)


def write_rows(root: Path, name: str, rows: list[dict[str, Any]], repeat: int = 1, **config: Any) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    config = {"task": "toy-reach", "use_moe": False, **config}
    (folder / "config.json").write_text(json.dumps({"program": "prismatic", "config": config}))
    (folder / "env.json").write_text(json.dumps({"action_repeat": [repeat]}))
    (folder / "status.json").write_text('{"state": "finished"}')
    train = {"kind": "train", "step": 1, "return_mean": 1e6}  # never an evaluation
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [train, *rows]))
    return folder


def report_on(root: Path, threshold: str | None = None) -> dict[str, Any]:
    curves = [curve for folder in sorted(root.iterdir()) for curve in read_run(folder)]
    return compare(curves, parse_thresholds(threshold))


def rows_of(report: dict[str, Any], task: int = 0) -> dict[str, dict[str, Any]]:
    return {row["variant"]: row for row in report["tasks"][task]["rows"]}


def test_seeds_are_grouped_by_variant_and_averaged_between_the_quartiles(tmp_path: Path):
    for seed, last in enumerate([1.0, 10.0, 2.0, 3.0]):
        write_run(tmp_path, f"dense{seed}", [(100, 5.0), (200, last)], seed=seed)
    write_run(tmp_path, "moe", [(100, 7.0), (200, 6.0)], use_moe=True)
    rows = rows_of(report_on(tmp_path))
    assert list(rows) == ["dense", "4o"]
    dense, moe = rows["dense"], rows["4o"]
    assert (dense["seeds"], dense["last"]["each"]) == ([0, 1, 2, 3], [1.0, 10.0, 2.0, 3.0])
    assert dense["last"]["iqm"] == 2.5  # of 2 and 3
    assert dense["best"]["iqm"] == 5.0  # of 5, 10, 5, 5
    low, high = dense["last"]["ci"]
    assert 1.0 <= low < 2.5 < high <= 10.0
    assert (moe["last"], moe["best"]["iqm"]) == ({"iqm": 6.0, "ci": None, "each": [6.0]}, 7.0)


def test_the_threshold_is_crossed_at_the_first_evaluation_at_or_above_it(tmp_path: Path):
    write_run(tmp_path, "a", [(100, 8.9), (200, 9.0), (300, 4.0), (400, 10.0)], seed=0, repeat=2)
    report = report_on(tmp_path)
    assert (report["tasks"][0]["threshold"], report["tasks"][0]["threshold_given"]) == (9.0, False)  # 90 % of 10
    row = rows_of(report)["dense"]
    costs = [row[f"{key}_to_threshold"] for key in ("steps", "frames", "cpu_s")]
    assert (row["reached"], costs) == (1, [200, 400, 20.0])
    row = rows_of(report_on(tmp_path, "toy-reach=9.5"))["dense"]
    assert (row["reached"], row["steps_to_threshold"]) == (1, 400)
    row = rows_of(report_on(tmp_path, "11"))["dense"]
    assert (row["reached"], row["steps_to_threshold"], row["cpu_s_to_threshold"]) == (0, None, None)


def test_a_seed_that_never_gets_there_counts_as_infinite(tmp_path: Path):
    for seed, evals in enumerate([[(100, 9.0)], [(100, 0.0), (300, 9.0)], [(100, 0.0), (300, 1.0)]]):
        write_run(tmp_path, f"r{seed}", evals, seed=seed)
    row = rows_of(report_on(tmp_path, "9"))["dense"]
    assert (row["reached"], row["steps_to_threshold"]) == (2, 300)  # of 100, 300, infinity
    write_run(tmp_path, "r3", [(100, 0.0)], seed=3)
    row = rows_of(report_on(tmp_path, "9"))["dense"]
    assert (row["reached"], row["steps_to_threshold"]) == (2, None)  # between 300 and infinity


def test_the_threshold_of_negative_returns_can_be_reached(tmp_path: Path):
    write_run(tmp_path, "a", [(100, -200.0), (200, -105.0), (300, -100.0)], task="Pendulum-v1")
    report = report_on(tmp_path)
    assert report["tasks"][0]["threshold"] == pytest.approx(-110.0)
    row = rows_of(report)["dense"]
    assert (row["steps_to_threshold"], row["normalised"]) == (200, None)  # no known scale


def test_normalised_scores_by_hand(tmp_path: Path):
    for seed, (control, toy) in enumerate([(800.0, 0.5), (600.0, 1.0)]):
        write_run(tmp_path, f"c{seed}", [(100, 1.0), (200, control)], task="cartpole-balance", seed=seed, repeat=2)
        write_run(tmp_path, f"t{seed}", [(100, 30.0)], success=toy, seed=seed)
    write_run(tmp_path, "moe", [(200, 900.0)], task="cartpole-balance", use_moe=True)
    report = report_on(tmp_path)
    assert rows_of(report, 0)["dense"]["normalised"]["iqm"] == 70.0  # of 80 and 60
    toy_row = rows_of(report, 1)["dense"]
    assert (toy_row["success"]["iqm"], toy_row["normalised"]["iqm"]) == (0.75, 75.0)
    dense, moe = report["scores"]
    assert (dense["variant"], dense["tasks"], dense["of"], dense["normalised"]) == ("dense", 2, 2, 72.5)
    low, high = dense["ci"]
    assert (low, high) == (55.0, 90.0)  # both tasks at their worse seed, and at their better
    assert (moe["variant"], moe["tasks"], moe["normalised"], moe["ci"]) == ("4o", 1, 90.0, None)
    assert "means over different tasks" in to_markdown(report)


def test_runs_of_different_length_are_compared_where_all_have_been(tmp_path: Path):
    write_run(tmp_path, "a", [(100, 1.0), (200, 2.0), (300, 3.0)], seed=0)
    write_run(tmp_path, "b", [(150, 5.0), (250, 9.0)], seed=0, use_moe=True)
    report = report_on(tmp_path)
    rows = rows_of(report)
    assert report["tasks"][0]["common_step"] == 250
    assert rows["dense"]["at_common_step"]["iqm"] == 2.0  # the evaluation at 200 was the last by then
    assert rows["4o"]["at_common_step"]["iqm"] == 9.0
    text = to_markdown(report)
    assert "at step 250" in text
    assert "Budgets differ" in text
    write_run(tmp_path, "late", [(1000, 1.0)], seed=1)  # has nothing to show at 250
    assert rows_of(report_on(tmp_path))["dense"]["at_common_step"]["each"] == [2.0]


def test_equal_budgets_need_no_common_step(tmp_path: Path):
    write_run(tmp_path, "a", [(100, 1.0)], seed=0)
    write_run(tmp_path, "b", [(100, 3.0)], seed=1)
    report = report_on(tmp_path)
    assert report["tasks"][0]["common_step"] is None
    assert "at step" not in to_markdown(report)


def test_every_task_of_several_has_its_curve(tmp_path: Path):
    scores = {("toy-reach", 100): 1.0, ("toy-cross", 100): 5.0, ("toy-reach", 200): 3.0, ("toy-cross", 200): 4.0}
    rows = [{"kind": "eval_task", "step": s, "task": t, "return_mean": r, "cpu_s": 1} for (t, s), r in scores.items()]
    rows.append({"kind": "eval", "step": 200, "return_mean": 3.5, "cpu_s": 1})
    write_rows(tmp_path, "two", rows, task="toy-reach,toy-cross")
    report = report_on(tmp_path)
    found = {task["task"]: task["rows"][0]["last"]["iqm"] for task in report["tasks"]}
    assert found == {"toy-reach": 3.0, "toy-cross": 4.0}


def test_runs_with_other_options_are_no_seeds_of_each_other(tmp_path: Path):
    for name, options in {
        "a": {"seed": 0},
        "b": {"seed": 1, "steps": 7, "memory_limit": 9.0},
        "c": {"seed": 0, "lr": 1e-3},
    }.items():
        write_run(tmp_path, name, [(100, 1.0)], **options)
    write_run(tmp_path, "d", [(100, 1.0)], seed=0, n_experts=8)  # which a dense model does not have
    rows = rows_of(report_on(tmp_path))
    assert {label: row["runs"] for label, row in rows.items()} == {
        "dense lr=0.0003": ["a", "d", "b"],
        "dense lr=0.001": ["c"],
    }
    assert "runs of the same seed (a, d, b)" in to_markdown(report_on(tmp_path))


def test_the_csv_has_the_same_numbers(tmp_path: Path):
    write_run(tmp_path, "a", [(100, 4.0)], success=1.0)
    (line,) = csv.DictReader(to_csv(report_on(tmp_path)).splitlines())
    assert (line["task"], line["variant"], line["last"], line["last_low"]) == ("toy-reach", "dense", "4.0", "")
    assert (line["success"], line["steps"], line["threshold"]) == ("1.0", "100.0", "3.6")


@pytest.mark.parametrize("text", ["high", "a=", "=", "nan", "1,,2"])
def test_thresholds_that_are_none_are_refused(text: str):
    with pytest.raises(UsageError, match="neither a number nor task=number"):
        parse_thresholds(text)


def test_thresholds():
    assert parse_thresholds("5, walker-walk=7e2") == {None: 5.0, "walker-walk": 700.0}
    assert parse_thresholds(None) == {}


def test_a_threshold_for_a_task_that_is_not_there_is_refused(tmp_path: Path):
    write_run(tmp_path, "a", [(100, 4.0)])
    with pytest.raises(UsageError, match="no run has a task walker; there are toy-reach"):
        report_on(tmp_path, "walker=3")


def test_what_cannot_be_compared_is_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_run(tmp_path, "good", [(100, 4.0)])
    write_run(tmp_path, "early", [])
    write_run(tmp_path, "nan", [(100, float("nan"))])
    write_rows(tmp_path, "text", [{"kind": "eval", "step": 1, "return_mean": "high"}])
    write_run(tmp_path, "bad-option", [(100, 4.0)], lr=-1.0)
    (write_run(tmp_path, "torn", [(100, 4.0)]) / "metrics.jsonl").write_text("{]\n")
    (write_run(tmp_path, "other", [(100, 4.0)]) / "config.json").write_text('{"program": "mpn", "config": {}}')
    write_run(tmp_path, "good.old1", [(100, 4.0)])  # set aside by --overwrite
    (tmp_path / "empty").mkdir()
    command = ["report", "--dir", str(tmp_path)]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert sorted(err.splitlines()) == sorted([
        f"warning: left out: {tmp_path}/early has no evaluation yet",
        f"warning: left out: {tmp_path}/nan/metrics.jsonl has an evaluation whose step or return_mean is no number",
        f"warning: left out: {tmp_path}/text/metrics.jsonl has an evaluation whose step or return_mean is no number",
        f"warning: left out: {tmp_path}/bad-option: lr: must be positive, got -1.0",
        f"warning: left out: {tmp_path}/torn/metrics.jsonl:1 is no metrics row: '{{]'",
        f"warning: left out: {tmp_path}/other is a run of mpn, not of prismatic",
    ])  # fmt: skip
    assert "| dense   |     1 |" in out
    assert main([*command, "good", str(tmp_path / "good"), "empty", "report"]) == 0  # as a shell's * would name them
    out, err = capsys.readouterr()
    assert err == f"warning: left out: {tmp_path}/empty/config.json does not exist\n"
    assert json.loads((tmp_path / "report" / "report.json").read_text())["tasks"][0]["rows"][0]["runs"] == ["good"]


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (["goood"], "did you mean good?"),
        (["early"], "none of the 1 runs has evaluations to compare"),
        (["good", "--threshold", "x"], "neither a number"),
    ],
)
@pytest.mark.filterwarnings("default::rlcore.errors.QuintetWarning")
def test_mistakes_write_nothing(runs: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_run(tmp_path, "good", [(100, 4.0)])
    write_run(tmp_path, "early", [])
    assert main(["report", *runs, "--dir", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_a_run_called_report_is_not_written_into(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = write_run(tmp_path, "report", [(100, 4.0)])
    before = sorted(folder.iterdir())
    assert main(["report", "--dir", str(tmp_path)]) == 2
    assert "report is a run: say where the report shall go with --output" in capsys.readouterr().err
    assert sorted(folder.iterdir()) == before
    assert main(["report", "--dir", str(tmp_path), "--output", str(tmp_path / "there")]) == 0
    assert json.loads((tmp_path / "there" / "report.json").read_text())["tasks"][0]["rows"][0]["runs"] == ["report"]


def test_a_run_whose_own_name_ends_like_one_set_aside_is_compared(tmp_path: Path):
    for name in ("a3.old1", "b", "b.old1"):
        write_run(tmp_path, name, [(100, 4.0)])
    assert [folder.name for folder in folders(ReportConfig(dir=tmp_path))] == ["a3.old1", "b"]


def test_no_runs_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["report", "--dir", str(tmp_path)]) == 2
    assert "holds no runs" in capsys.readouterr().err


def test_a_run_that_goes_on_is_said_to(tmp_path: Path):
    (write_run(tmp_path, "a", [(100, 4.0)]) / "status.json").write_text('{"state": "running"}')
    assert "Not finished: a (running, step 100)." in to_markdown(report_on(tmp_path))


def test_two_real_runs_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name, options in {"moe": [], "dense": ["use_moe=false"]}.items():
        common = ["--preset", "debug", "--dir", str(tmp_path), "--name", name, "--quiet"]
        assert main(["train", *common, *options]) == 0
    output = tmp_path / "elsewhere"
    capsys.readouterr()
    assert main(["report", "moe", "dense", "--dir", str(tmp_path), "--output", str(output), "threshold=0"]) == 0
    text = capsys.readouterr().out
    assert (output / "report.md").read_text() in text
    found = json.loads((output / "report.json").read_text())
    rows = rows_of(found)
    assert list(rows) == ["dense", "4o"]
    last = json.loads((tmp_path / "moe" / "metrics.jsonl").read_text().splitlines()[-1])
    assert (last["kind"], rows["4o"]["last"]["iqm"]) == ("eval", last["return_mean"])
    assert (rows["4o"]["steps"], rows["4o"]["steps_to_threshold"], rows["4o"]["reached"]) == ([100], 50, 1)
    assert rows["dense"]["success"]["iqm"] in (0.0, 1.0)
    assert (output / "report.png").stat().st_size > 10_000
    assert len((output / "report.csv").read_text().splitlines()) == 3
    assert found["unfinished"] == []


def test_the_warning_is_one_that_scripts_can_catch(tmp_path: Path):
    from prismatic.run.report import report

    write_run(tmp_path, "good", [(100, 4.0)])
    write_run(tmp_path, "early", [])
    with pytest.warns(QuintetWarning, match="early has no evaluation yet"):
        report(ReportConfig(dir=tmp_path))
