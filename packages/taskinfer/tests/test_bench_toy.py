"""`taskinfer bench toy`: its arms are ordinary runs, and what is said of them can be worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlcore.errors import DataError, UsageError
from rlcore.files import read_json, write_json
from taskinfer.analysis.arms import compare, read_arm, to_text
from taskinfer.cli import main
from taskinfer.config import ToyConfig
from taskinfer.config_use import BenchToyConfig, parse_seeds
from taskinfer.run.bench_toy import ArmJob, check_same


def write_rows(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def evaluation(step: int, train: float, test: float, **more: float) -> dict[str, Any]:
    row = {"kind": "eval", "step": step, "train_return": train, "test_return": test, "test_success": 0.5}
    return {**row, "cpu_s": step / 10, **more}


def test_the_best_is_chosen_on_training_tasks_and_scored_on_the_others(tmp_path: Path):
    known = {"test_family_acc_5": 1.0, "test_family_acc_20": 0.9, "test_family_acc_40": 0.8, "purity": 0.7}
    rows = [
        evaluation(100, -90.0, -10.0, **known), evaluation(200, -20.0, -30.0, **known),
        evaluation(300, -50.0, -60.0, **known), {"kind": "train", "step": 300, "train_return": 0.0},
    ]  # fmt: skip
    run = read_arm(write_rows(tmp_path / "a", rows))
    assert (run["best"]["step"], run["best"]["return"]) == (200, -30.0)
    assert (run["last"]["step"], run["last"]["return"], run["cpu_s"]) == (300, -60.0, 30.0)
    assert (run["best"]["family_acc_40"], run["best"]["purity"]) == (0.8, 0.7)
    with pytest.raises(DataError, match="no evaluations"):
        read_arm(write_rows(tmp_path / "b", rows[-1:]))


def arm(best: float, last: float) -> dict[str, Any]:
    return {which: {"step": 1, "return": r, "success": 0.0} for which, r in (("best", best), ("last", last))} | {
        "cpu_s": 1.0
    }


def test_recovered_fractions_by_hand():
    report = compare({
        "inferred": {0: arm(-50.0, -80.0), 1: arm(-110.0, -110.0), 2: arm(-1.0, -1.0)},
        "oracle": {0: arm(-10.0, -10.0), 1: arm(-10.0, -10.0), 2: arm(-200.0, -200.0)},
        "none": {0: arm(-210.0, -210.0), 1: arm(-210.0, -210.0), 2: arm(-200.0, -200.0)},
    })  # fmt: skip
    best, last = report["recovered"]["best"], report["recovered"]["last"]
    assert best["by_seed"] == {"0": 0.8, "1": 0.5}  # seed 2: the truth is worth nothing there
    assert (best["mean"], best["smallest"]) == (0.65, 0.5)
    assert best["ci"][0] < best["mean"] < best["ci"][1]
    assert last["by_seed"] == {"0": 0.65, "1": 0.5}
    assert report["kept"]["by_seed"] == {"0": 0.8125, "1": 1.0}
    text = to_text(report)
    assert "mean 0.65" in text
    assert text.count("mean") == 3 + 3  # a line an arm, and the three of what was recovered


def test_without_an_arm_there_is_a_table_and_no_fraction():
    report = compare({"inferred": {0: arm(-50.0, -80.0)}, "none": {0: arm(-210.0, -210.0)}})
    assert "recovered" not in report
    assert "-80.0" in to_text(report)


@pytest.mark.parametrize(
    ("text", "seeds"), [("0-4", (0, 1, 2, 3, 4)), ("7", (7,)), ("3,1", (3, 1)), ("0-1,9", (0, 1, 9))]
)
def test_seeds(text: str, seeds: tuple[int, ...]):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "4-2", "1,", "-1", "0-99999", "1,0-2"])
def test_what_are_no_seeds(text: str):
    with pytest.raises(UsageError, match="seeds"):
        parse_seeds(text)


def test_runs_differ_in_arm_and_seed_alone():
    cfg = BenchToyConfig(total_steps=320, name="x")
    run = cfg.run_config("oracle", 3)
    assert type(run) is ToyConfig
    assert (run.arm, run.seed, run.name, run.dir) == ("oracle", 3, "oracle-s3", Path("output/bench/x"))
    assert run.total_steps == 320


def test_a_run_that_ended_early_is_not_finished_for_a_longer_bench(tmp_path: Path):
    write_json(tmp_path / "status.json", {"state": "finished", "step": 320})
    jobs = [ArmJob(0, "a", str(tmp_path), [], {}, steps) for steps in (320, 640)]
    assert [job.state for job in jobs] == ["finished", "new"]
    assert ArmJob(0, "a", str(tmp_path / "none"), [], {}, 320).state == "new"


def test_runs_of_other_options_are_not_compared(tmp_path: Path):
    cfg = BenchToyConfig(dir=tmp_path, name="x")
    run = cfg.run_config("oracle", 3)
    check_same(run)
    (run.dir / "oracle-s3").mkdir(parents=True)
    from rlcore.config import to_dict

    write_json(run.dir / "oracle-s3" / "config.json", {"config": to_dict(run) | {"total_steps": 5, "threads": 2}})
    check_same(run)
    write_json(run.dir / "oracle-s3" / "config.json", {"config": to_dict(run) | {"gamma": 0.5}})
    with pytest.raises(UsageError, match=r"gamma: 0.5 -> 0.97.*--name"):
        check_same(run)


def test_a_longer_run_is_no_part_of_a_shorter_bench(tmp_path: Path):
    cfg = BenchToyConfig(dir=tmp_path, name="x", total_steps=40_000)  # epochs of 16,000: the third ends at 48,000
    run = cfg.run_config("none", 1)
    (run.dir / "none-s1").mkdir(parents=True)
    from rlcore.config import to_dict

    write_json(run.dir / "none-s1" / "config.json", {"config": to_dict(run) | {"total_steps": 64_000}})
    write_json(run.dir / "none-s1" / "status.json", {"step": 48_000})
    check_same(run)
    write_json(run.dir / "none-s1" / "status.json", {"step": 64_000})
    with pytest.raises(UsageError, match="gone to step 64,000, further than --total-steps 40,000: use another --name"):
        check_same(run)


def test_families_without_an_opposite_are_compared_and_not_swapped(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    words = (
        f"bench toy --preset debug --total-steps 240 --seeds 5 --arms inferred --tasks goal_forward --dir {tmp_path}"
    )
    assert main([*words.split(), "--json"]) == 0
    assert "causality" not in json.loads(capfd.readouterr().out)


def test_a_bench_trains_once_and_then_reads(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    argv = ["bench", "toy", "--preset", "debug", "--dir", str(tmp_path), "--seeds", "5", "--arms", "inferred", "none"]
    short = ["--total-steps", "240", "--json"]
    assert main([*argv, *short]) == 0
    first = json.loads(capfd.readouterr().out)
    assert set(first["arms"]) == {"inferred", "none"}
    assert first["causality"]["5"]["noise_changes"] == 0
    assert first == read_json(tmp_path / "toy" / "bench.json")
    changed = (tmp_path / "toy" / "inferred-s5" / "metrics.jsonl").stat().st_mtime_ns
    assert main([*argv, *short]) == 0
    again = capfd.readouterr()
    assert json.loads(again.out) == first
    assert "to go" not in again.err
    assert (tmp_path / "toy" / "inferred-s5" / "metrics.jsonl").stat().st_mtime_ns == changed
    assert main([*argv, *short[:2], "--no-causality"]) == 0
    assert "causality" not in capfd.readouterr().out


def test_a_run_that_fails_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    argv = ["bench", "toy", "--preset", "debug", "--dir", str(tmp_path), "--seeds", "5", "--arms", "none"]
    assert main([*argv, "--tasks", "jump"]) == 1
    said = capfd.readouterr().err
    assert "none-s5 failed" in said
    assert "toy1d has no vz" in said
    assert not (tmp_path / "toy" / "bench.json").exists()
