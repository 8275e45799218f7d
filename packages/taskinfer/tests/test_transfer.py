"""The toy's beliefs and policy on a body: who steers, who pays, what is refused, what is written."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rlcore.errors import UsageError
from rlcore.files import read_json
from rlcore.run import Run
from taskinfer.analysis.gauge import Gauge, lived_features, log_density, training_features
from taskinfer.cli import main
from taskinfer.config_transfer import TransferConfig
from taskinfer.envs.bodies import GROUP_NAMES, SubGoal
from taskinfer.highlevel import Oracle, RandomGoals, ToyPolicy
from taskinfer.inference import Belief
from taskinfer.record import Record, episode_scores
from taskinfer.run.saved import open_toy, training_episodes
from taskinfer.run.stack import put_together
from taskinfer.run.transfer import Results, sources
from taskinfer.tasks import Family, State, Tasks, parse_tasks
from taskinfer.transfer import Driver

LIMITS = {"goal": 1.5, "velocity": 2.5}


def state(x: list[float]) -> State:
    zero = np.zeros(len(x))
    return State(np.array(x), *[zero] * 7)


def believing(*family: int, latent: int = 4) -> Belief:
    """Beliefs whose likeliest class is each of `family`."""
    logits = 5.0 * torch.eye(4)[list(family)]
    zero = torch.zeros(len(family), latent)
    return Belief(zero + 1.0, zero, logits, torch.ones(len(family), dtype=torch.int64))


def reused(toy_run: Path, low_run: Path, **changes):
    cfg = TransferConfig(inference=toy_run, low=low_run, name="t", tasks="goal:2,-2;velocity:1", repeats=2, **changes)
    return put_together(cfg, "cpu")


def drive(parts, name: str, decisions: int = 12, body: str = "", **stack) -> Record:
    tasks = parts.tasks()
    made = replace(parts.stack, **({"body": body} if body else {}), **stack)
    record = Driver(made, len(tasks), decisions, 3).run(parts.high_level(name), lambda t: tasks)
    assert record is not None
    return record


def test_the_toys_policy_as_a_sub_goal(toy_run: Path):
    """A full action is 0.5 m on the toy and `reach` here; as a speed it is 5 m/s, cut to what the body knows."""
    agent = open_toy(toy_run).agent
    given = []

    def act(obs, code, deterministic):
        given.append(code)
        assert deterministic
        return np.array([[0.5], [0.4], [-1.0], [2.0]], np.float32)

    agent.act = act  # type: ignore[method-assign]
    belief = believing(2, 0, 1, 3)  # goal forward, velocity forward, velocity backward, goal backward
    made = ToyPolicy(agent, "toy1d", LIMITS, 1.5).propose(state([7.0, 0.0, 0.0, -3.0]), belief, Tasks.of([]))
    assert [GROUP_NAMES[g] for g in made.group] == ["goal", "velocity", "velocity", "goal"]
    np.testing.assert_allclose(made.value, [0.75, 2.0, -2.5, 1.5], atol=1e-5)
    assert made.frame == "relative"
    blind = ToyPolicy(agent, "toy1d", LIMITS, 0.5, zeroed=True).propose(state([0.0] * 4), belief, Tasks.of([]))
    assert blind.group.tolist() == made.group.tolist()
    np.testing.assert_allclose(blind.value[[0, 3]], [0.25, 0.5], atol=1e-6)
    assert torch.equal(given[0], belief.params())
    assert given[1].shape == given[0].shape
    assert not given[1].any()


def test_a_policy_that_samples_draws_the_same_numbers_for_every_level(toy_run: Path):
    """Two levels of one transfer, or the second of one that was stopped: the noise begins anew."""
    saved, belief, here = open_toy(toy_run), believing(2, 2, 2), state([0.0, 1.0, 2.0])
    asked = {}
    for name in ("first", "again", "means"):
        saved.agent.sac.exploration = [np.random.default_rng(5)]
        level = ToyPolicy(saved.agent, "toy1d", LIMITS, 1.5, sample=name != "means")
        asked[name] = level.propose(here, belief, Tasks.of([])).value
    np.testing.assert_array_equal(asked["first"], asked["again"])
    assert (asked["first"] != asked["means"]).all()


def test_a_group_is_as_likely_as_its_families_together(toy_run: Path):
    """Forward 0.3 and backward 0.3 are a goal, though a velocity forward alone is likelier, with 0.4."""
    policy = ToyPolicy(open_toy(toy_run).agent, "toy1d", LIMITS, 1.5)
    belief = believing(0)._replace(family_logits=torch.tensor([[0.4, 1e-6, 0.3, 0.3]]).log())
    assert policy.propose(state([0.0]), belief, Tasks.of([])).group.tolist() == [GROUP_NAMES.index("goal")]


def test_the_oracle_asks_for_the_truth_and_chance_for_anything():
    truth = parse_tasks("goal:5,-1;velocity:3")
    asked = Oracle(LIMITS).propose(state([2.0, 0.0, 9.0]), believing(0, 0, 0), truth)
    np.testing.assert_allclose(asked.value, [1.5, -1.0, 3.0])
    assert [GROUP_NAMES[g] for g in asked.group] == ["goal", "goal", "velocity"]
    many = parse_tasks("goal:1")[np.zeros(4000, int)]
    drawn = RandomGoals(LIMITS, np.random.default_rng(0)).propose(state([0.0]), believing(0), many)
    for name, limit in LIMITS.items():
        own = drawn.value[drawn.group == GROUP_NAMES.index(name)]
        assert 0.45 < len(own) / 4000 < 0.55
        assert own.min() < -0.99 * limit
        assert 0.99 * limit < own.max() <= limit


def test_the_sub_goal_steers_and_the_true_task_pays(toy_run: Path, low_run: Path):
    """D4: whatever was asked of the body, reward and error are those of the task, of the last inner step."""
    parts = reused(toy_run, low_run, stride="fixed:3")
    asked = []
    act = parts.low.low.act
    parts.low.low.act = lambda obs, goal, deterministic: (asked.append(goal), act(obs, goal, deterministic))[1]
    record = drive(parts, "random")
    x, v = record.obs[:, 1:, 0], record.obs[:, 1:, 1]
    spec = np.array([2.0, -2.0, 1.0] * 2)[:, None]
    goal = np.array([True, True, False] * 2)[:, None]
    np.testing.assert_allclose(record.reward, -np.abs(np.where(goal, x, v) - spec) / np.abs(spec), atol=1e-5)
    assert len(asked) == 36
    for t in range(12):
        np.testing.assert_array_equal(asked[3 * t].group, record.subgoal_group[:, t])
        np.testing.assert_allclose(asked[3 * t].value, record.action[:, t, 0], atol=1e-6)
    for pay, times in (("mean", 1), ("sum", 3)):
        paid = drive(parts, "oracle", stride=3, pay=pay)
        np.testing.assert_allclose(paid.reward, -times * paid.error / np.abs(spec), rtol=1e-4)


@pytest.mark.parametrize(("dt", "stride"), [(0.05, 2), (0.008, 12), (0.1, 1), (0.4, 1)])
def test_a_decision_lasts_as_long_as_a_step_of_the_toy(dt: float, stride: int, toy_run: Path, low_run: Path, tmp_path):
    low = Path(shutil.copytree(low_run, tmp_path / "low"))
    about = json.loads((low / "env.json").read_text())
    assert about["dt"] == 0.1
    (low / "env.json").write_text(json.dumps({**about, "dt": dt}))
    assert reused(toy_run, low, stride="auto").stack.stride == stride


def test_a_goal_stays_where_it_was_set_while_the_body_moves(toy_run: Path, low_run: Path):
    parts = reused(toy_run, low_run)
    asked: list[SubGoal] = []
    parts.low.low.act = lambda obs, goal, deterministic: (asked.append(goal), np.full((6, 1), 0.5, np.float32))[1]
    drive(parts, "toy", decisions=1, stride=4)
    goal = asked[0].group == GROUP_NAMES.index("goal")
    np.testing.assert_allclose(asked[3].value, asked[0].value - np.where(goal, 0.15, 0.0), atol=1e-6)


def test_beliefs_are_those_of_the_recorded_transitions(toy_run: Path, low_run: Path):
    parts = reused(toy_run, low_run)
    record = drive(parts, "toy", decisions=40, stride=1)
    whole = parts.stack.inference.encode(record.episodes())
    np.testing.assert_allclose(whole.mean.numpy(), record.belief_mean, atol=1e-5)
    np.testing.assert_allclose(whole.std.numpy(), record.belief_std, atol=1e-5)
    np.testing.assert_allclose(record.family_prob.sum(-1), 1.0, atol=1e-5)


@pytest.mark.parametrize("body", ["tiny_bodies:on_a_ledge", "tiny_bodies:sick_once"])
def test_who_falls_stays_down_and_disturbs_nobody(body: str, toy_run: Path, low_run: Path):
    parts = reused(toy_run, low_run)
    fast = np.array([1.0, 0.02, 0.02, 1.0, 0.02, 0.02], np.float32)[:, None]
    parts.low.low.act = lambda obs, goal, deterministic: fast
    well = drive(parts, "oracle", decisions=20, stride=4)
    record = drive(parts, "oracle", decisions=20, body=body, stride=4)
    fallen = ~record.alive[:, -1]
    if "ledge" in body:
        assert fallen.tolist() == [True, False, False, True, False, False]
        assert not record.alive[0, 1:].any()
        np.testing.assert_allclose(record.obs[0, 1:, 0], 0.4, atol=1e-6)  # the fourth step is over the edge
    else:
        assert fallen.all()
    assert (record.obs[fallen, -1, 1] == 0).all()
    assert (record.reward[fallen, -1] < 0).all()
    assert (record.belief_mean[fallen, -1] == record.belief_mean[fallen, -2]).all()
    for name in ("obs", "belief_mean", "reward"):
        np.testing.assert_array_equal(getattr(record, name)[~fallen], getattr(well, name)[~fallen])
    scores = episode_scores(record)
    assert scores["fell"].tolist() == fallen.tolist()
    assert not scores["success"][fallen].any()


def test_bodies_begin_alike_whoever_steers(toy_run: Path, low_run: Path):
    parts = reused(toy_run, low_run)
    one, two = drive(parts, "toy"), drive(parts, "random")
    np.testing.assert_array_equal(one.obs[:, 0], two.obs[:, 0])
    assert len(np.unique(one.obs[:, 0, 1])) == 6
    np.testing.assert_array_equal(one.obs, drive(parts, "toy").obs)


def test_the_gauge_is_silent_at_home_and_not_abroad(toy_run: Path, low_run: Path):
    saved = open_toy(toy_run)
    episodes = training_episodes(saved, 400)
    assert episodes is not None
    known = training_features(episodes, saved.cfg.inference)
    latents = saved.agent.inference.encode(episodes).mean[:, 1:].flatten(0, 1)
    density = log_density(saved.agent.inference, latents)
    gauge = Gauge.fit("toy1d", known[::2], density[::2])
    home = gauge.report(known[1::2], density[1::2])
    assert home["outside"] < 0.04
    assert home["latents_outside"] < 0.04
    changes = tuple(f"change of {name}" for name in ("x", "vx", "reward"))
    assert gauge.names == ("x", "vx", "reward", "next x", "next vx", *changes)
    record = drive(reused(toy_run, low_run), "toy", decisions=8)
    far = replace(record, obs=record.obs + np.array([300.0, 0.0], np.float32))
    strange = log_density(saved.agent.inference, record.belief_mean[:, 1:].reshape(-1, 4) + 50.0)
    report = gauge.report(lived_features(far, saved.cfg.inference), strange)
    assert report["latents_outside"] == 1.0
    assert report["outside"] == 1.0
    assert report["by_feature"]["x"] == report["by_feature"]["next x"] == 1.0
    assert report["by_feature"]["vx"] < 0.5


def transfer(root: Path, toy: Path, low: Path, *options: str) -> int:
    words = ["transfer", "reuse", "--inference", str(toy), "--low", str(low), "--dir", str(root), "--preset", "debug"]
    return main([*words, "--name", "t", "--quiet", *options])


def test_one_command_scores_all_four(toy_run: Path, low_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert transfer(tmp_path, toy_run, low_run, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    folder = tmp_path / "t"
    assert report == read_json(folder / "result.json")
    assert list(report["high_levels"]) == ["toy", "zeroed", "random", "oracle"]
    level = {name: row["return"] for name, row in report["high_levels"].items()}
    assert report["margins"]["over_random"] == pytest.approx((level["toy"] - level["random"]) / abs(level["random"]))
    rows = list(csv.DictReader((folder / "tasks.csv").open()))
    assert [row["task"] for row in rows[:3]] == ["goal_forward:2", "goal_backward:-2", "velocity_forward:1"]
    own = [float(row["return"]) for row in rows if row["high_level"] == "toy"]
    assert np.mean(own) == pytest.approx(level["toy"], abs=1e-4)
    record = Record.load(folder / "trajectories" / "toy.npz")
    assert record.reward.sum(1).mean() == pytest.approx(level["toy"], abs=1e-4)
    assert record.obs.shape == (3, 6, 2)
    assert len(list(csv.DictReader((folder / "progress.csv").open()))) == 4
    assert read_json(folder / "env.json")["stage"] == "transfer"
    before = (folder / "result.json").read_bytes()
    assert transfer(tmp_path, toy_run, low_run) == 0  # the same command again plays nothing anew
    assert (folder / "result.json").read_bytes() == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 85), (signal.SIGINT, 130)])
def test_stopped_in_the_second_level_it_goes_on_with_it(
    number: signal.Signals, code: int, toy_run: Path, low_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert transfer(tmp_path / "whole", toy_run, low_run) == 0
    going, steps = Run.going, []

    def counted(self: Run, step: int) -> bool:
        steps.append(step)
        if len(steps) == 10:  # in the middle of the second high level: one question before each level, one a decision
            os.kill(os.getpid(), number)
        return going(self, step)

    monkeypatch.setattr(Run, "going", counted)
    assert transfer(tmp_path / "cut", toy_run, low_run) == code
    folder = tmp_path / "cut" / "t"
    assert not (folder / "result.json").exists()
    assert [path.stem for path in (folder / "trajectories").glob("*.npz")] == ["toy"]
    steps.clear()
    monkeypatch.setattr(Run, "going", lambda self, step: (steps.append(step), going(self, step))[1])
    assert transfer(tmp_path / "cut", toy_run, low_run) == 0
    assert min(steps) == 3 * 5 * 2  # the first level is not played again
    told = [
        [(row["kind"], row["step"]) for row in map(json.loads, (tmp_path / name / "t" / "metrics.jsonl").open())]
        for name in ("cut", "whole")
    ]
    assert told[0] == told[1]  # nor does what was given up stay in the record
    assert (folder / "result.json").read_bytes() == (tmp_path / "whole" / "t" / "result.json").read_bytes()


def test_a_transfer_of_runs_that_have_changed_does_not_go_on(toy_run: Path, low_run: Path):
    parts = put_together(TransferConfig(inference=toy_run, low=low_run), "cpu")
    later = sources(parts)
    later["low"]["step"] += 1
    with pytest.raises(UsageError, match="have changed since"):
        Results(sources(parts)).load_state_dict({"source": later, "levels": {}})


@pytest.mark.parametrize(
    ("options", "said"),
    [(("--stride", "learned"), "a learned stride is not there yet: use --stride fixed:5"),
     (("--stride", "fixed:0"), "expected fixed:K"), (("--stride", "5"), "expected fixed:K"),
     (("--tasks", "gaol:2"), "did you mean goal"), (("--tasks", "stand:0.5"), "is of no family that"),
     (("--high-level", "toys"), "invalid choice"), (("--reach", "0"), "reach")],
)  # fmt: skip
def test_mistakes_are_one_line(options, said: str, toy_run: Path, low_run: Path, tmp_path: Path, capsys):
    assert transfer(tmp_path, toy_run, low_run, *options) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "t").exists()


def test_parts_that_do_not_fit_are_refused(toy_run: Path, low_run: Path, tmp_path: Path, capsys):
    def refused(toy: Path, low: Path) -> str:
        assert transfer(tmp_path, toy, low) == 2
        return capsys.readouterr().err

    assert "is no toy run (its stage is low): see `taskinfer toy train`" in refused(low_run, low_run)
    assert "is no low-level run (its stage is toy)" in refused(toy_run, toy_run)
    words = "train --preset debug --quiet --dir"
    assert main(["low", *words.split(), str(tmp_path), "--name", "g", "--body", "tiny_bodies:slider", "--steps", "80",
                 "--groups", "goal"]) == 0  # fmt: skip
    said = refused(toy_run, tmp_path / "g")
    assert "was not taught velocity" in said
    assert "train one with --groups goal velocity" in said
    for name, option, wanted in (("o", ("--arm", "oracle"), "infers nothing (its arm is oracle)"),
                                 ("d", ("--tasks", "goal,direction_forward"), "asked for direction")):  # fmt: skip
        toy = ["toy", *words.split(), str(tmp_path), "--name", name, "--total-steps", "80", *option]
        assert main(toy) == 0
        capsys.readouterr()
        assert wanted in refused(tmp_path / name, low_run)


def test_what_a_run_told_of_itself_is_enough_to_find_its_families(toy_run: Path, low_run: Path):
    """D10, D16: ids are shared by the stages, whatever order they name their groups in."""
    parts = reused(toy_run, low_run)
    assert parts.limits == {"goal": 1.5, "velocity": 2.5}
    assert parts.stack.inference.families == tuple(sorted(parts.stack.inference.families))
    assert [Family(int(f)) for f in np.unique(parts.tasks().family)] == [0, 2, 3]
