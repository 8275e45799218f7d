"""`collective finetune` on the toy: where it begins, what it stores, what stays as it was, stopping and going on."""

from __future__ import annotations

import math
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from collective_students import collective, run
from stopped_runs import final, killed_ends_the_same, rows, same

from collective.agent import Collective
from collective.config_student import FinetuneConfig
from collective.encoder import Encoder
from collective.envs import TaskVec
from collective.run.finetune import start_from
from collective.run.lesson import Learner
from collective.windows import Rolling
from rlblocks.sac import SAC
from rlcore import checkpoint
from rlcore.config import from_dict
from rlcore.files import read_json


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return collective(tmp_path_factory.mktemp("network"))


@pytest.fixture(scope="module")
def tuned(network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tune(tmp_path_factory.mktemp("tuned"), "run", network)


def tune(root: Path, name: str, network: Path, *options: str, code: int = 0) -> Path:
    return run("finetune", root, name, "--collective", str(network), *options, code=code)


def config(**options: Any) -> FinetuneConfig:
    return from_dict(FinetuneConfig, {"collective": "x", **FinetuneConfig.PRESETS["debug"], **options}, "test")


def policy(folder: Path) -> dict[str, Any]:
    """The network's part of a final checkpoint."""
    found: dict[str, Any] = final(folder)["policies"]["cls"]
    return found


def test_critics_of_another_discount_are_remarked_upon(
    network: Path, toy_collective: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The network of the tests has no record of a discount; a distilled one does."""
    for name, folder in (("silent", network), ("warned", toy_collective)):
        tune(tmp_path, name, folder, "--gamma", "0.5", "--steps", "2")
        assert ("--gamma 0.99 goes on with them" in capsys.readouterr().err) == (name == "warned")


# --- the beginning ----------------------------------------------------------------------------------------------------
def test_it_begins_as_the_network(network: Path):
    before, made = Collective.load(network), Collective.load(network)
    start_from(made, config(alpha=0.25, actor_lr=1e-3), 7, "cpu")
    for name in ("actor", "critic", "target"):
        assert torch.equal(made.sac.tensors()[name], before.sac.tensors()[name])
    assert float(made.sac.log_alpha.detach()) == pytest.approx(math.log(0.25))
    assert made.sac.actor_adam.lrs[0] == 1e-3
    assert (made.sac.cfg.log_std_map, made.sac.cfg.init) == ("tanh", "xavier")
    x = np.random.default_rng(0).normal(size=(5, 27)).astype(np.float32)
    assert np.array_equal(made.act(x), before.act(x))
    assert np.array_equal(made.value(x), before.value(x))


def test_the_first_evaluation_is_the_networks(network: Path, tmp_path: Path):
    first = rows(tune(tmp_path, "a", network), "eval")[0]
    assert first == rows(tune(tmp_path, "b", network, "--actor-lr", "1e-2", "--warmup", "0"), "eval")[0]


# --- what is stored ---------------------------------------------------------------------------------------------------
def test_each_end_of_a_transition_has_its_own_code(network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """D16: recomputed from what was done, one episode at a time, over ends of episodes."""
    told: list[Any] = []
    step = TaskVec.step

    def saw(self: TaskVec, action: Any, stop: Any = None) -> Any:
        obs = self.current_obs.copy()
        moved = step(self, action, stop)
        if self.num_envs == 2:  # evaluations have three
            told.append((obs, action.copy(), moved.reward.copy(), moved.obs.copy(), moved.final_obs.copy()))
        return moved

    monkeypatch.setattr(TaskVec, "step", saw)
    learners: list[Learner] = []
    close = Learner.close
    monkeypatch.setattr(Learner, "close", lambda self: (learners.append(self), close(self)))
    tune(tmp_path, "run", network, "--warmup", "240")
    buffer = learners[0].experience.buffer
    assert len(told) == 120
    begun, shown = Collective.load(network), np.full(1, -1)
    for env in range(2):
        rolling = Rolling(1)
        for t, (obs, action, reward, after, last) in enumerate(told):
            one = slice(env, env + 1)
            if t % 20 == 0:
                rolling.begin(obs[one])
            kept = buffer.windows(np.array([t]), np.array([env]), 1)
            here = begun.inputs(obs[one], rolling, shown)
            arrived = last if t % 20 == 19 else after
            rolling.advance(action[one], reward[one], arrived[one])
            there = begun.inputs(arrived[one], rolling, shown)
            for name, expected in (("obs", here), ("next_obs", there)):
                np.testing.assert_allclose(kept[name][0].numpy(), expected, atol=1e-5)
            assert not np.array_equal(here[0, :6], there[0, :6])


def test_goals_are_drawn_anew_each_episode(network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """D16."""
    goals, step = set[tuple[int, ...]](), TaskVec.step

    def saw(self: TaskVec, action: Any, stop: Any = None) -> Any:
        if self.num_envs == 2:
            goals.add(tuple(self.goal_id.tolist()))
        return step(self, action, stop)

    monkeypatch.setattr(TaskVec, "step", saw)
    tune(tmp_path, "run", network)
    assert len(goals) == 6


# --- what is learnt ---------------------------------------------------------------------------------------------------
def test_updates_are_made_up_for_and_the_actor_waits(network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """40 steps of the loaded policy, then 10 updates at once, the first 8 of them of the critics alone."""
    begun, seen = Collective.load(network), list[tuple[int, bool]]()
    update = SAC.update

    def saw(self: SAC, *arguments: Any, **options: Any) -> Any:
        metrics = update(self, *arguments, **options)
        seen.append((self.updates, torch.equal(self.actor.parameters, begun.sac.actor.parameters)))
        return metrics

    monkeypatch.setattr(SAC, "update", saw)
    folder = tune(tmp_path, "run", network, "--critic-warmup", "8", "--log-every", "2", "--steps", "80")
    by_step = {row["step"]: row["updates"] for row in rows(folder)}
    assert (by_step[38], by_step[40], by_step[44], by_step[80]) == (0, 10, 11, 20)
    assert [updates for updates, _ in seen] == list(range(1, 21))
    assert [still for _, still in seen[:9]] == [True] * 9  # the tenth is the first even one after eight
    assert not seen[9][1]


def test_many_missed_updates_are_made_up_for_in_portions(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """So that a signal is heard in between; env steps, evaluations and rows are not made twice."""
    monkeypatch.setattr("collective.run.lesson.CATCH_UP", 7)
    portions = tune(tmp_path, "portions", network, "--warmup", "120", "--updates-per-step", "0.5")
    monkeypatch.undo()
    at_once = tune(tmp_path, "once", network, "--warmup", "120", "--updates-per-step", "0.5")
    assert [row["step"] for row in rows(portions)] == [row["step"] for row in rows(at_once)]
    assert [row["step"] for row in rows(portions, "eval")] == [0, 120, 240]
    assert final(portions)["policies"]["cls"]["sac"]["updates"] == final(at_once)["policies"]["cls"]["sac"]["updates"]


def test_the_encoder_stays_as_it_was(network: Path, tuned: Path):
    before, after = Collective.load(network), Collective.load(tuned)
    assert before.encoder is not None
    assert after.encoder is not None
    assert after.encoder.fingerprint == before.encoder.fingerprint
    assert not torch.equal(after.sac.actor.parameters, before.sac.actor.parameters)
    assert np.array_equal(after.shift, before.shift)


def test_what_was_learnt_is_a_collective_network(tuned: Path, tmp_path: Path):
    """It can be fine-tuned in its turn, and teach."""
    again = tune(tmp_path, "again", tuned, "--task", "toy-lift")
    assert read_json(again / "env.json")["known"]
    trained = run("train-student", tmp_path, "taught", "--teacher", str(again), "--steps", "240", "--task", "toy-lift")
    assert rows(trained)[0]["bonus"] > 0


def test_one_forward_of_the_encoder_a_step(network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """D27. Where episodes end there are two states to look at."""
    count: list[int] = []
    codes = Encoder.codes
    monkeypatch.setattr(Encoder, "codes", lambda self, *a: (count.append(len(a[0])), codes(self, *a))[1])
    tune(tmp_path, "run", network, "--eval-every", "100000", "--warmup", "240")
    assert count[20:] == [2] * (120 + 6)  # the first twenty are of the evaluation at step 0


# --- refusals ---------------------------------------------------------------------------------------------------------
def test_a_missing_network_is_an_error(tmp_path: Path, network: Path, capsys: pytest.CaptureFixture[str]):
    """D3."""
    tune(tmp_path, "run", tmp_path / "nowhere", code=4)
    said = capsys.readouterr().err
    assert "there is no collective network" in said
    assert "collective distill" in said
    assert not (tmp_path / "run").exists()


def test_options_are_checked(tmp_path: Path, network: Path, capsys: pytest.CaptureFixture[str]):
    for options, text in {
        ("--tau", "2"): "tau: must be in (0, 1]",
        ("--alpha", "0"): "alpha: must be positive",
        ("--critic-warmup", "-1"): "critic_warmup: must be in 0 ..",
    }.items():
        tune(tmp_path, "run", network, *options, code=2)
        assert text in capsys.readouterr().err


def test_another_network_does_not_take_over(tmp_path: Path, network: Path, capsys: pytest.CaptureFixture[str]):
    mine = shutil.copytree(network, tmp_path / "network")
    tune(tmp_path, "run", mine)
    shutil.rmtree(mine)
    collective(tmp_path, "network", seed=1)
    tune(tmp_path, "run", mine, "--steps", "300", code=2)
    assert "another encoder" in capsys.readouterr().err


# --- stopping and going on --------------------------------------------------------------------------------------------
def test_half_and_half_is_whole(network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Stopped while it makes up for updates, and later: windows, codes and the temperature go on, to the bit."""
    whole = tune(tmp_path, "whole", network)
    monkeypatch.setattr("collective.run.lesson.CATCH_UP", 4)
    portions = tune(tmp_path, "portions", network)
    update, calls = SAC.update, list[int]()

    def counted(self: SAC, *arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) in (5, 40):
            os.kill(os.getpid(), signal.SIGTERM)
        return update(self, *arguments, **options)

    monkeypatch.setattr(SAC, "update", counted)
    tune(tmp_path, "halves", network, code=85)
    saved = checkpoint.load(tmp_path / "halves" / "checkpoints" / "last.pt")
    assert (saved["step"], saved["parts"]["policies"]["cls"]["sac"]["updates"]) == (40, 8)
    tune(tmp_path, "halves", network, code=85)
    halves = tune(tmp_path, "halves", network)
    assert rows(halves) == rows(portions)
    same(final(portions), final(halves))
    assert policy(halves)["sac"]["log_alpha"] != math.log(0.1)
    assert rows(halves)[-1]["step"] == rows(whole)[-1]["step"]


@pytest.mark.slow
def test_killed_again_and_again_it_ends_the_same(network: Path, tmp_path: Path):
    words = ["finetune", "--preset", "debug", "--collective", str(network), "--save-every", "20", "--steps", "400"]
    killed_ends_the_same(["collective", *words], tmp_path, (20, 60, 220))
