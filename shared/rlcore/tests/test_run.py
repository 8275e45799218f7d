"""The life of a run: open, refuse, resume bit for bit, stop on signals, survive damage."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlcore import files
from rlcore.config import RunConfig
from rlcore.errors import (
    DataError,
    EnvironmentProblem,
    Interrupted,
    NumericalError,
    Preempted,
    QuintetWarning,
    UsageError,
)
from rlcore.run import Run
from rlcore.seeding import numpy_generator, numpy_state, set_numpy_state


@dataclass(frozen=True, kw_only=True)
class WalkConfig(RunConfig):
    scale: float = 1.0  # Of a step.


class Walk:
    """The smallest thing with a future: a random walk."""

    def __init__(self, cfg: WalkConfig) -> None:
        self.cfg, self.rng, self.at = cfg, numpy_generator(cfg.seed, "walk"), np.zeros(3)

    def move(self) -> None:
        self.at += self.cfg.scale * self.rng.normal(size=3)

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at, "rng": numpy_state(self.rng)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at = np.asarray(state["at"]).copy()
        set_numpy_state(self.rng, state["rng"])


@pytest.fixture
def cfg(tmp_path: Path) -> WalkConfig:
    return WalkConfig(name="walk", dir=tmp_path, log_every=10, eval_every=20, save_every=25, quiet=True)


def walk(cfg: WalkConfig, total: int = 100, at_step: dict[int, Any] | None = None) -> np.ndarray:
    """Run to `total`, calling at_step[step]() on the way."""
    with Run.open(cfg, program="walk", total=total) as run:
        state = Walk(cfg)
        step = run.restore(walk=state)
        while run.going(step):
            state.move()
            step += 1
            run.meters.add({"x": float(state.at[0])})
            if run.due("log", step):
                run.train_row(step, step)
            if run.due("eval", step):
                run.log("eval", step, {"return_mean": float(state.at.sum())})
                run.save_if_best(step, float(state.at.sum()), walk=state)
            if run.due("save", step):
                run.save(step, walk=state)
            if at_step and step in at_step:
                at_step[step]()
        run.finish(step, walk=state)
        return state.at


def rows(cfg: RunConfig) -> list[dict[str, Any]]:
    clocks = ("wall_s", "cpu_s", "env_steps_per_s", "updates_per_s", "rss_mib")
    lines = (cfg.dir / str(cfg.name) / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in clocks} for line in lines]


def status(cfg: RunConfig) -> dict[str, Any]:
    return json.loads((cfg.dir / str(cfg.name) / "status.json").read_text())


def send(number: int) -> Any:
    return lambda: os.kill(os.getpid(), number)


def test_a_run_leaves_its_directory(cfg: WalkConfig):
    walk(cfg)
    folder = cfg.dir / "walk"
    assert {p.name for p in folder.iterdir()} >= {
        "config.json",
        "env.json",
        "metrics.jsonl",
        "status.json",
        "checkpoints",
    }
    assert status(cfg)["state"] == "finished"
    assert json.loads((folder / "config.json").read_text())["config"]["scale"] == 1.0
    assert json.loads((folder / "env.json").read_text())["packages"]["torch"]
    assert {p.name for p in (folder / "checkpoints").iterdir() if p.is_symlink()} == {"best.pt", "last.pt", "final.pt"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("when", [7, 25, 63])
def test_stopped_and_resumed_is_never_stopped(cfg: WalkConfig, when: int, number: int):
    whole = replace(cfg, name="whole")
    expected = walk(whole)
    with pytest.raises(Preempted if number == signal.SIGTERM else Interrupted, match=f"step {when}"):
        walk(cfg, at_step={when: send(number)})
    assert status(cfg)["state"] == "preempted"
    np.testing.assert_array_equal(walk(cfg), expected)
    assert rows(cfg) == rows(whole)


def test_a_crash_between_checkpoints_repeats_what_was_lost(cfg: WalkConfig):
    whole = replace(cfg, name="whole")
    expected = walk(whole)

    def crash() -> None:
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError):
        walk(cfg, at_step={48: crash})
    assert status(cfg)["state"] == "failed"
    np.testing.assert_array_equal(walk(cfg), expected)
    assert rows(cfg) == rows(whole)


def test_a_finished_run_can_be_repeated_and_extended(cfg: WalkConfig):
    expected = walk(replace(cfg, name="whole"), total=150)
    first = walk(cfg)
    np.testing.assert_array_equal(walk(cfg), first)
    np.testing.assert_array_equal(walk(cfg, total=150), expected)


def test_a_damaged_newest_checkpoint_is_passed_over(cfg: WalkConfig):
    expected = walk(replace(cfg, name="whole"))
    with pytest.raises(Preempted):
        walk(cfg, at_step={63: send(signal.SIGTERM)})
    newest = max((cfg.dir / "walk" / "checkpoints").glob("step_*.pt"))
    newest.write_bytes(newest.read_bytes()[:100])
    with pytest.warns(QuintetWarning, match="step_000000063.pt"):
        np.testing.assert_array_equal(walk(cfg), expected)


def test_no_usable_checkpoint_is_an_error_not_a_restart(cfg: WalkConfig):
    walk(cfg)
    for path in (cfg.dir / "walk" / "checkpoints").glob("step_*.pt"):
        path.write_bytes(b"")
    with pytest.warns(QuintetWarning), pytest.raises(DataError, match="--overwrite"):
        walk(cfg)


def test_what_does_not_load_is_left_where_it_is(cfg: WalkConfig, monkeypatch: pytest.MonkeyPatch):
    """A replay that is gone, a GPU without room, a newer format: nothing is wrong with the checkpoints themselves."""
    walk(cfg)
    folder = cfg.dir / "walk" / "checkpoints"
    before = sorted(path.name for path in folder.iterdir())

    def absent(self: Walk, state: dict[str, Any]) -> None:
        raise DataError("replay segment 3 is missing")

    with monkeypatch.context() as patch:
        patch.setattr(Walk, "load_state_dict", absent)
        with pytest.raises(DataError, match=r"step 100 .* does not load: replay segment 3 is missing"):
            walk(cfg)
    with monkeypatch.context() as patch:
        patch.setattr("rlcore.checkpoint.FORMAT", 0)
        with pytest.raises(DataError, match="install a newer one"):
            walk(cfg)
    assert sorted(path.name for path in folder.iterdir()) == before
    walk(cfg)


def test_a_newest_that_does_not_fit_is_set_aside_when_the_one_before_is_used(
    cfg: WalkConfig, monkeypatch: pytest.MonkeyPatch
):
    expected = walk(cfg)
    load, seen = Walk.load_state_dict, []

    def picky(self: Walk, state: dict[str, Any]) -> None:
        seen.append(0)
        if len(seen) == 1:
            raise DataError("replay segment 3 is torn")
        load(self, state)

    monkeypatch.setattr(Walk, "load_state_dict", picky)
    with pytest.warns(QuintetWarning, match=r"segment 3 is torn; set aside"):
        found = walk(cfg)
    np.testing.assert_array_equal(found, expected)
    assert (cfg.dir / "walk" / "checkpoints" / "step_000000100.pt.bad").exists()


def test_before_its_first_checkpoint_a_run_may_change_its_mind(cfg: WalkConfig):
    """Memory that is not there, say, is found out in the folder of the run: its name is not lost by that."""
    with pytest.raises(MemoryError), Run.open(replace(cfg, scale=9.0), program="walk", total=100):
        raise MemoryError
    walk(cfg)
    with pytest.raises(UsageError, match=r"scale: 1\.0 -> 2\.0"):
        walk(replace(cfg, scale=2.0))


def test_other_options_are_refused_with_the_difference(cfg: WalkConfig):
    walk(cfg)
    with pytest.raises(UsageError, match=r"scale: 1\.0 -> 2\.0"):
        walk(replace(cfg, scale=2.0))
    walk(replace(cfg, log_every=5))  # changes what is shown, not what is learnt


def test_a_run_from_before_an_option_goes_on_with_its_default(cfg: WalkConfig) -> None:
    """And one with an option that is gone says which."""
    walk(cfg)
    path = cfg.dir / "walk" / "config.json"
    record = json.loads(path.read_text())
    record["config"].pop("scale")
    path.write_text(json.dumps(record))
    with pytest.raises(UsageError, match=r"scale: 1\.0 -> 2\.0"):
        walk(replace(cfg, scale=2.0))
    walk(cfg)
    record["config"]["stride_of_old"] = 3
    path.write_text(json.dumps(record))
    with pytest.raises(UsageError, match="stride_of_old"):
        walk(cfg)


def test_overwrite_sets_the_old_run_aside(cfg: WalkConfig):
    walk(cfg)
    walk(replace(cfg, scale=2.0, overwrite=True))
    assert (cfg.dir / "walk.old1" / "metrics.jsonl").exists()


def test_never_and_must(cfg: WalkConfig):
    with pytest.raises(UsageError, match=r"did you mean|holds no runs"):
        walk(replace(cfg, resume="must"))
    assert not (cfg.dir / "walk").exists()
    walk(replace(cfg, resume="never"))
    with pytest.raises(UsageError, match="--resume never"):
        walk(replace(cfg, resume="never"))


def test_one_owner_at_a_time(cfg: WalkConfig):
    def again() -> None:
        with pytest.raises(UsageError, match=f"process {os.getpid()} on "):
            walk(cfg)

    walk(cfg, at_step={50: again})


def test_a_lock_of_a_dead_process_is_no_obstacle(cfg: WalkConfig):
    (cfg.dir / "walk").mkdir()
    (cfg.dir / "walk" / ".lock").write_text("process 1 on elsewhere\n")
    os.utime(cfg.dir / "walk" / ".lock", (4e9, 4e9))  # and from the future, as after a clock that went back
    walk(cfg)


def test_nan_stops_the_run_and_keeps_the_last_good_checkpoint(cfg: WalkConfig):
    state = Walk(cfg)

    def diverge() -> None:
        with Run.open(cfg, program="walk", total=100) as run:
            run.save(25, walk=state)
            run.meters.add({"x": float("nan")})
            run.train_row(30, 30)

    with pytest.raises(NumericalError, match=r"x .*step 30.*last good checkpoint: step 25"):
        diverge()
    assert (cfg.dir / "walk" / "analysis" / "nonfinite_step_000000030.pt").exists()


def test_nan_never_becomes_a_checkpoint(cfg: WalkConfig):
    state = Walk(cfg)
    state.at[1] = np.inf
    with pytest.raises(NumericalError, match=r"checkpoint\.walk\.at"), Run.open(cfg, program="walk", total=9) as run:
        run.save(1, walk=state)
    assert list((cfg.dir / "walk" / "checkpoints").iterdir()) == []


def test_save_errors_stop_or_warn(cfg: WalkConfig, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "disk")

    monkeypatch.setattr(files, "fsync_folder", full)
    with pytest.raises(EnvironmentProblem, match=r"No space left"), Run.open(cfg, program="walk", total=9) as run:
        run.save(1, walk=Walk(cfg))
    monkeypatch.undo()
    with Run.open(replace(cfg, on_save_error="continue"), program="walk", total=9) as run:
        monkeypatch.setattr(files, "fsync_folder", full)
        with pytest.warns(QuintetWarning, match="going on"):
            run.save(2, walk=Walk(cfg))
        monkeypatch.undo()
        run.save(3, walk=Walk(cfg))
    assert (cfg.dir / "walk" / "checkpoints" / "step_000000003.pt").exists()


def test_a_run_whose_name_was_drawn_goes_on_by_that_name(cfg: WalkConfig):
    with Run.open(replace(cfg, name=None), program="walk", total=9) as run:
        run.save(3, walk=Walk(cfg))
    with Run.open(replace(cfg, name=run.folder.name), program="walk", total=9) as run:
        assert run.restore(walk=Walk(cfg)) == 3


@pytest.mark.parametrize("at", [40, 100], ids=["on the way", "at the end"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_evaluation_is_given_up_and_done_again(cfg: WalkConfig, at: int, number: signal.Signals):
    """Also where it had logged something already, and where everything but it was done."""

    def scored(cfg: WalkConfig, stop_at: int | None = None) -> np.ndarray:
        with Run.open(cfg, program="walk", total=100) as run:
            state = Walk(cfg)
            step = run.restore(walk=state)

            def evaluate() -> float:
                run.log("eval_task", step, {"return_mean": 1.0})
                if step == stop_at:
                    os.kill(os.getpid(), number)
                    raise AssertionError("it goes on")
                run.log("eval", step, {"return_mean": float(state.at.sum())})
                return float(state.at.sum())

            if run.unscored:
                run.score(step, evaluate, walk=state)
            while run.going(step):
                state.move()
                step += 1
                if run.due("eval", step):
                    run.score(step, evaluate, walk=state)
            run.finish(step, walk=state)
            return state.at

    whole = scored(replace(cfg, name="whole"))
    with pytest.raises(Preempted if number == signal.SIGTERM else Interrupted):
        scored(cfg, stop_at=at)
    assert max(row["step"] for row in rows(cfg)) == at - 20
    np.testing.assert_array_equal(scored(cfg), whole)
    assert rows(cfg) == rows(replace(cfg, name="whole"))
    links = [(cfg.dir / name / "checkpoints" / "best.pt").resolve().name for name in ("walk", "whole")]
    assert links[0] == links[1]
    np.testing.assert_array_equal(scored(cfg), whole)  # a finished run has nothing left to score
    assert rows(cfg) == rows(replace(cfg, name="whole"))


def test_status_signal_prints_and_goes_on(cfg: WalkConfig, capfd: pytest.CaptureFixture[str]):
    walk(cfg, at_step={5: send(signal.SIGUSR2), 6: send(signal.SIGUSR1)})
    text = capfd.readouterr().err
    assert "status.json" in text
    assert "memory freed" in text


def test_a_method_hears_that_memory_is_wanted(cfg: WalkConfig):
    with Run.open(cfg, program="walk", total=9) as run:
        assert not run.asked_to_free
        os.kill(os.getpid(), signal.SIGUSR1)
        assert run.asked_to_free


@pytest.mark.parametrize("scored", [False, True], ids=["last", "best"])
def test_a_stop_keeps_what_was_learnt_since_the_step_was_saved(cfg: WalkConfig, scored: bool):
    """Steps stand still while updates catch up: stopped among them again and again, a run must get on. What was scored
    as the best stays as it was; what came after it is done again."""

    def learn_and_be_stopped() -> None:
        with Run.open(cfg, program="walk", total=9) as run:
            state = Walk(cfg)
            if run.restore(walk=state) == 0:
                run.save_if_best(4, 1.0, walk=state) if scored else run.save(4, walk=state)
            state.move()
            os.kill(os.getpid(), signal.SIGTERM)
            run.finish(4, walk=state)

    for _ in range(3):
        with pytest.raises(Preempted):
            learn_and_be_stopped()
    with Run.open(cfg, program="walk", total=9) as run:
        found, wanted = Walk(cfg), Walk(cfg)
        assert run.restore(walk=found) == 4
    for _ in range(0 if scored else 3):
        wanted.move()
    np.testing.assert_array_equal(found.at, wanted.at)


def test_names_are_fresh(tmp_path: Path):
    cfg = WalkConfig(dir=tmp_path, quiet=True)
    for _ in range(3):
        walk(cfg, total=1)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("stride", [1, 3, 16])
def test_due_holds_once_a_period(cfg: WalkConfig, stride: int):
    with Run.open(replace(cfg, save_every=48), program="walk", total=1, stride=stride) as run:
        due = [step for step in range(stride, 481, stride) if run.due("save", step)]
    assert len(due) == 480 // 48
