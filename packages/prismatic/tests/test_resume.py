"""A run that is stopped and goes on is the run that was never stopped; looking at it does not change it."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from stopped_runs import final, rows, same

from prismatic.agent import Agent
from prismatic.cli import main
from prismatic.envs.tasks import TaskEnvs
from prismatic.envs.toy import Reach
from prismatic.replay import TaskReplay
from rlcore import checkpoint
from rlcore.run import Run

TASKS = {"one": "toy-reach", "two": "toy-reach,toy-cross"}


def train(root: Path, name: str, *options: str, code: int = 0) -> Path:
    command = ["train", "--preset", "debug", "--task", "toy-reach", "--dir", str(root), "--name", name, "--quiet"]
    assert main([*command, *options]) == code
    return root / name


@pytest.fixture
def send(monkeypatch: pytest.MonkeyPatch):
    """Have the next run send itself a signal when it has made this many updates, as a scheduler or a user would."""

    def arrange(number: signal.Signals, updates: int) -> None:
        update, sent = Agent.update, []

        def counted(self: Agent, batch: Any) -> Any:
            metrics = update(self, batch)
            if self.updates >= updates and not sent:
                sent.append(number)
                os.kill(os.getpid(), number)
            return metrics

        monkeypatch.setattr(Agent, "update", counted)

    return arrange


@pytest.mark.parametrize("moment", [10, 35])  # among the updates on the first random steps, and later
@pytest.mark.parametrize(
    "options", [(), ("--no-use-moe", "--obs-norm"), ("--task", TASKS["two"], "--num-envs", "2", "--obs-norm")]
)
def test_half_and_half_is_whole(options: tuple[str, ...], moment: int, tmp_path: Path, send: Any):
    whole = train(tmp_path, "whole", *options)
    send(signal.SIGTERM, moment)
    train(tmp_path, "halves", *options, code=85)
    halves = train(tmp_path, "halves", *options)
    assert rows(halves) == rows(whole)
    assert rows(halves, "eval") == rows(whole, "eval")
    same(final(whole), final(halves))
    if "--obs-norm" in options:
        assert (final(whole)["agent"]["model"]["obs_std"] != 1).any()


def test_a_run_that_is_stopped_before_its_first_step_begins_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = train(tmp_path, "whole")
    with monkeypatch.context() as patch:
        restore = Run.restore
        patch.setattr(Run, "restore", lambda self, **p: (restore(self, **p), os.kill(os.getpid(), signal.SIGTERM))[0])
        train(tmp_path, "halves", code=85)
    halves = train(tmp_path, "halves")
    assert rows(halves) == rows(whole)
    same(final(whole), final(halves))


def test_stopped_again_and_again_among_the_first_updates_it_gets_on(tmp_path: Path, send: Any):
    """They all belong to one step: a preempted run that saved that step once would never come to their end."""
    whole = train(tmp_path, "whole")
    for moment in (5, 12, 18):
        send(signal.SIGTERM, moment)
        train(tmp_path, "halves", code=85)
        last = checkpoint.load(tmp_path / "halves" / "checkpoints" / "last.pt")
        assert (last["step"], last["parts"]["agent"]["updates"]) == (40, moment)
    halves = train(tmp_path, "halves")
    assert rows(halves) == rows(whole)
    same(final(whole), final(halves))


@pytest.mark.parametrize("at", [50, 100], ids=["on the way", "at the end"])
@pytest.mark.parametrize("task", TASKS)
def test_a_stop_in_an_evaluation_does_not_wait_for_it(
    at: int, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    options = ("--task", TASKS[task], "--seed-steps", "20")
    whole = train(tmp_path, "whole", *options)
    acted = []
    with monkeypatch.context() as patch:
        act = Agent.act

        def counted(self: Agent, *arguments: Any, eval_mode: bool = False) -> Any:
            if eval_mode and self.updates >= (at - 1) // 2:
                acted.append(0)
                if len(acted) == 3:
                    os.kill(os.getpid(), signal.SIGTERM)
            return act(self, *arguments, eval_mode=eval_mode)

        patch.setattr(Agent, "act", counted)
        train(tmp_path, "halves", *options, code=85)
    assert len(acted) == 3  # of 50 steps
    before = rows(tmp_path / "halves", "eval")
    assert [row["step"] for row in before] == [step for step in (50, 100) if step < at]
    halves = train(tmp_path, "halves", *options)
    for kind in ("train", "eval", "eval_task"):
        assert rows(halves, kind) == rows(whole, kind)
    same(final(whole), final(halves))


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_memory_and_status_signals_change_nothing(number: signal.Signals, tmp_path: Path, send: Any):
    quiet = final(train(tmp_path, "quiet"))
    send(number, 30)
    asked = final(train(tmp_path, "asked"))
    assert rows(tmp_path / "asked") == rows(tmp_path / "quiet")
    kept = 49 if number == signal.SIGUSR2 else 19  # of the gates' histories, which SIGUSR1 empties and nothing reads
    assert forget(quiet, asked) == [49, 49, kept, kept]
    same(quiet, asked)


def forget(*runs: dict[str, Any]) -> list[int]:
    """Take the gates' histories out of what runs saved; how long each was."""
    counts = []
    for parts, block in itertools.product(runs, ("dynamics", "reward_net")):
        counts.append(int(parts["agent"]["model"].pop(f"{block}.count")))
        for name in ("history", "task_history"):
            del parts["agent"]["model"][f"{block}.{name}"]
    return counts


def test_a_run_above_its_memory_limit_frees_then_saves_and_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = final(train(tmp_path, "whole"))
    train(tmp_path, "halves", "--memory-limit", "0.001", code=85)
    assert checkpoint.load(tmp_path / "halves" / "checkpoints" / "last.pt")["step"] == 20  # the first row
    used = iter([3_000.0, 1_500.0])  # at the next row: enough is freed
    with monkeypatch.context() as patch:
        patch.setattr("prismatic.run.train.rss_mib", lambda: next(used, 1_000.0))
        halves = final(train(tmp_path, "halves", "--memory-limit", "2"))
    assert next(used, None) is None
    forget(whole, halves)
    same(whole, halves)


def test_experts_that_are_hardly_used_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Once, not at every row."""
    monkeypatch.setattr("prismatic.moe.DEAD_LOAD", 0.2501)  # experts begin with 0.25 each
    monkeypatch.setattr("prismatic.moe.DEAD_AFTER", 5)
    train(tmp_path, "run", "--log-every", "10", "--moe-lb-alpha", "0")
    said = capsys.readouterr().err
    assert 1 <= said.count("hardly used for long: expert ") <= 8
    assert "--moe-lb-alpha" in said


def test_evaluation_and_saving_do_not_touch_training(tmp_path: Path):
    often = train(tmp_path, "often", "--eval-every", "20", "--save-every", "30")
    seldom = train(tmp_path, "seldom", "--eval-every", "100000", "--save-every", "100000")
    same(final(often)["agent"], final(seldom)["agent"])
    assert rows(often) == rows(seldom)


def test_one_seed_one_run_other_seed_other_run(tmp_path: Path):
    one, again, other = (train(tmp_path, name, "--seed", seed) for name, seed in (("a", "5"), ("b", "5"), ("c", "6")))
    same(final(one), final(again))
    assert rows(one) == rows(again) != rows(other)


def test_without_saved_replay_a_resumed_run_refills_first(tmp_path: Path, send: Any):
    send(signal.SIGTERM, 35)
    train(tmp_path, "run", "--no-save-replay", code=85)
    folder = train(tmp_path, "run", "--no-save-replay")
    assert not list((folder / "replay").iterdir())
    assert rows(folder)[-1]["step"] == 100


def test_a_run_that_refills_to_its_end_says_so_and_is_scored(
    tmp_path: Path, send: Any, capsys: pytest.CaptureFixture[str]
):
    send(signal.SIGTERM, 35)
    train(tmp_path, "run", "--no-save-replay", code=85)
    command = ["train", "--preset", "debug", "--dir", str(tmp_path), "--name", "run", "--no-save-replay"]
    capsys.readouterr()
    assert main(command) == 0
    said = capsys.readouterr().err
    assert "no replay was saved: 40 random steps come before the next update; the run ends before that" in said
    assert rows(tmp_path / "run", "eval")[-1]["step"] == 100
    assert main([*command, "--steps", "160"]) == 0
    assert rows(tmp_path / "run")[-1]["updates"] > 70


@pytest.mark.filterwarnings("default::rlcore.errors.QuintetWarning")
def test_a_run_of_random_steps_alone_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    train(tmp_path, "run", "--steps", "40")
    assert "the first 40 are random, so with 40 nothing is learnt" in capsys.readouterr().err


@pytest.mark.filterwarnings("default::rlcore.errors.QuintetWarning")
def test_an_episode_too_long_to_replay_ends_where_it_was_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No window leads from the episode before into the one that the env began in its place."""
    monkeypatch.setattr("rlcore.envs.MAX_REPLAY", 5)
    run = ["--task", "toy-reach,toy-cross", "--num-envs", "2", "--seed-steps", "20"]
    train(tmp_path, "run", *run, "--steps", "64")  # 16 of an episode's 50 steps
    seen: list[Any] = []
    add = TaskReplay.add

    def kept(self: TaskReplay, obs: Any, action: Any, moved: Any, is_init: Any, rows: Any) -> None:
        seen.append((is_init.copy(), self.rings[0].num_envs))
        add(self, obs, action, moved, is_init, rows)

    monkeypatch.setattr(TaskReplay, "add", kept)
    folder = train(tmp_path, "run", *run, "--steps", "280")
    assert seen[0][0].all()
    assert not seen[1][0].any()
    lengths = [row["length_mean"] for row in rows(folder) if "length_mean" in row]
    assert lengths == [50.0]


@pytest.fixture
def mute_reach(monkeypatch: pytest.MonkeyPatch):
    """toy-reach without rewards, toy-cross with another one at each step."""
    step = Reach.step

    def quiet(self: Reach, action: Any) -> Any:
        obs, reward, *rest = step(self, action)
        return obs, float(self.time) if self.cross else 0.0 * reward, *rest

    monkeypatch.setattr(Reach, "step", quiet)


PATIENT = ("--seed-steps", "20", "--seed-patience", "3", "--seed-hold", "4", "--seed-action", "limits")


@pytest.mark.parametrize(("task", "first", "mixed"), [("one", 60, 0), ("two", 40, 60), ("cross", 20, 0)])
def test_random_steps_go_on_until_rewards_tell_something(
    task: str, first: int, mixed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mute_reach: None
):
    """A task of constant reward stays random for seed_patience times as long; another one does not wait for it."""
    planned, drawn = [], []
    act, sample = Agent.act, TaskEnvs.sample
    monkeypatch.setattr(Agent, "act", lambda self, obs, *rest: (planned.append(len(obs)), act(self, obs, *rest))[1])
    monkeypatch.setattr(TaskEnvs, "sample", lambda self, *rest, **k: (drawn.append(0), sample(self, *rest, **k))[1])
    names = {**TASKS, "cross": "toy-cross"}[task]
    folder = train(tmp_path, "run", "--task", names, *PATIENT, "--eval-every", "100000", "--log-every", "1")
    width = len(names.split(","))
    assert next(row["step"] for row in rows(folder) if row["updates"]) == first + width
    assert len(planned) == (100 - first) // width
    assert len(drawn) == (first + mixed) // width


@pytest.mark.parametrize(("rewards", "random"), [("1", 20), ("19", 20), ("30", 31), ("99", 60)])
def test_rare_rewards_do_not_end_patience(rewards: str, random: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Every step of this task but the first pays something else; patience ends after 60 steps."""
    drawn, sample = [], TaskEnvs.sample
    monkeypatch.setattr(TaskEnvs, "sample", lambda self, *rest, **k: (drawn.append(0), sample(self, *rest, **k))[1])
    train(tmp_path, "run", "--task", "toy-cross", *PATIENT, "--seed-rewards", rewards, "--eval-every", "100000")
    assert len(drawn) == random


@pytest.mark.parametrize("moment", [3, 20])  # while the silent task is still random, and later
def test_half_and_half_is_whole_while_a_task_stays_random(moment: int, tmp_path: Path, send: Any, mute_reach: None):
    options = ("--task", TASKS["two"], *PATIENT)
    whole = train(tmp_path, "whole", *options)
    send(signal.SIGTERM, moment)
    train(tmp_path, "halves", *options, code=85)
    halves = train(tmp_path, "halves", *options)
    assert rows(halves) == rows(whole)
    same(final(whole), final(halves))


def test_two_agents_in_one_process_do_not_meet(tmp_path: Path):
    """A second run in the same process is the run it would have been alone (defects D5 and D6)."""
    alone = train(tmp_path, "alone", "--seed", "3")
    train(tmp_path, "between", "--task", "toy-cross", "--model-size", "1", "--steps", "60")
    again = train(tmp_path, "again", "--seed", "3")
    same(final(alone), final(again))


def test_a_run_knows_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[int] = []
    due = Run.due
    monkeypatch.setattr(Run, "due", lambda self, what, step: (seen.append(step), due(self, what, step))[1])
    folder = train(tmp_path, "run", "--num-envs", "4")
    assert seen == sorted(seen)
    assert seen[-1] == rows(folder, "eval")[-1]["step"] == 100
