"""`collective train-student` on the toy: what it writes, what changes nothing, refusals, stopping and going on."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from collective_students import collective, plain_names, run
from stopped_runs import evaluation_is_given_up, final, killed_ends_the_same, rows, same, signal_saves_the_step

from collective.config_student import StudentConfig
from collective.encoder import Encoder
from collective.rollout import Played
from collective.run import exam
from collective.run.exam import Exam
from collective.students import Learnt, Script
from rlblocks.sac import SAC
from rlcore import checkpoint
from rlcore.config import from_dict
from rlcore.files import read_json

ARMS = {
    "none": ("--teacher", "none"),
    "bonus": ("--teacher", "scripted"),
    "mix": ("--teacher", "scripted", "--mix", "0.5", "--mix-by", "episode", "--shaping", "none"),
    "clone": ("--teacher", "scripted", "--clone", "0.5"),
    "kept": ("--teacher", "scripted", "--clone", "0.5", "--clone-kept", "0.5", "--shaping", "none"),
}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return collective(tmp_path_factory.mktemp("network"))


def train(root: Path, name: str, *options: str, code: int = 0) -> Path:
    return run("train-student", root, name, *options, code=code)


# --- what a run leaves ------------------------------------------------------------------------------------------------
def test_a_run_says_what_happened(tmp_path: Path):
    folder = train(tmp_path, "run", "--teacher", "scripted", "--mix", "0.5", "--clone", "0.2")
    facts = read_json(folder / "env.json")
    assert (facts["stage"], facts["method"]) == ("student", "scripted: bonus 1, clone 0.2, mix 0.5")
    evaluated, trained = rows(folder, "eval"), rows(folder)
    assert [row["step"] for row in evaluated] == [0, 120, 240]
    assert {"success", "success_final", "return_mean", "episodes"} <= evaluated[0].keys()
    assert [row["updates"] for row in trained] == [max(row["step"] - 40, 0) // 4 for row in trained]
    assert [row["bonus_weight"] for row in trained] == pytest.approx([1, 1, 2 / 3, 1 / 3, 0, 0], abs=1e-5)
    assert [row["mix"] for row in trained] == pytest.approx([0.5, 0.5, 1 / 3, 1 / 6, 0, 0], abs=1e-5)
    assert 0 < trained[0]["bonus"] < 1
    assert trained[-1]["episodes"] == 12
    assert {"success_last20", "critic_loss", "alpha"} <= trained[-1].keys()
    for name in ("last", "best", "final"):
        assert (folder / "checkpoints" / f"{name}.pt").exists()


def test_every_episode_has_a_goal_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """D16."""
    goals: list[list[int]] = []
    pay = Script.advance

    def saw(self: Script, action: Any, reward: Any, obs: Any) -> None:
        goals.append(obs[:, 36:39].round(4).tolist())
        pay(self, action, reward, obs)

    monkeypatch.setattr(Script, "advance", saw)
    train(tmp_path, "run", "--teacher", "scripted")
    assert len({tuple(goal) for step in goals for goal in step}) > 6


def test_evaluations_are_greedy_and_always_the_same_episodes(tmp_path: Path):
    """With the policy as it was: nothing is learnt before the warm-up is over."""
    folder = train(tmp_path, "run", "--teacher", "none", "--warmup", "140", "--eval-every", "60")
    found = [{k: v for k, v in row.items() if k != "step"} for row in rows(folder, "eval")]
    assert found[0] == found[1] == found[2]
    assert found[4] != found[0]


def test_fifty_episodes_have_a_goal_each(monkeypatch: pytest.MonkeyPatch):
    """However many of them there are at once; and an evaluation leaves no trace in the next one."""
    preset = {"teacher": "none", **StudentConfig.PRESETS["debug"], "eval_episodes": 50}
    cfg = from_dict(StudentConfig, preset, "test")
    policy = exam.Plain(SAC(cfg.sac, 39, 4, seeds=[3]))
    made = Exam(cfg, 1)
    first, again = made.take(policy), made.take(policy)
    assert sorted(first.goal) == list(range(50))
    assert np.array_equal(first.returns, again.returns)
    monkeypatch.setattr(exam, "MAX_ENVS", 10)
    other = Exam(cfg, 1).take(policy)
    np.testing.assert_allclose(other.returns[np.argsort(other.goal)], first.returns[np.argsort(first.goal)], rtol=1e-6)


# --- what changes nothing ---------------------------------------------------------------------------------------------
def test_a_teacher_that_pays_nothing_and_never_acts_is_none(tmp_path: Path, network: Path):
    """Plain soft actor-critic, to the bit."""
    plain = train(tmp_path, "plain", "--teacher", "none")
    nothing = ("--bonus-scale", "0", "--mix", "0")
    for name, teacher in (("script", "scripted"), ("network", str(network))):
        other = train(tmp_path, name, "--teacher", teacher, *nothing)
        same(plain_names(final(plain)), plain_names(final(other)))
        assert rows(plain) == rows(other)
        assert rows(plain, "eval") == rows(other, "eval")


def test_the_teacher_is_not_asked_after_he_has_expired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    count: list[int] = []
    advise = Script.advise
    monkeypatch.setattr(Script, "advise", lambda self: (count.append(1), advise(self))[1])
    train(tmp_path, "run", "--teacher", "scripted", "--steps", "480")
    assert len(count) == 100  # one in each of the first 200 env steps of two envs


def test_evaluations_and_saving_do_not_touch_training(tmp_path: Path, network: Path):
    for name, options in {"mix": ARMS["mix"], "network": ("--teacher", str(network))}.items():
        often = train(tmp_path, f"{name}-often", *options, "--eval-every", "40", "--save-every", "20")
        seldom = train(tmp_path, f"{name}-seldom", *options, "--eval-every", "100000", "--save-every", "100000")
        same(final(often), final(seldom))
        assert rows(often) == rows(seldom)


def test_one_forward_of_the_encoder_a_step(tmp_path: Path, network: Path, monkeypatch: pytest.MonkeyPatch):
    """D27. Ten episodes of each env end while the teacher is asked: with potentials, these are two states."""
    count: list[int] = []
    codes = Encoder.codes
    monkeypatch.setattr(Encoder, "codes", lambda self, *a: (count.append(len(a[0])), codes(self, *a))[1])
    train(tmp_path, "bonus", "--teacher", str(network), "--mix", "0.5", "--clone", "1")
    assert count == [2] * 100
    count.clear()
    train(tmp_path, "potential", "--teacher", str(network), "--shaping", "potential")
    assert count == [2] * (100 + 5)  # and one for where the last paid step led


# --- stopping early ---------------------------------------------------------------------------------------------------
def test_evaluations_that_all_succeed_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    take, results = Exam.take, iter([True, False, True, True, True])

    def told(self: Exam, policy: Any) -> Played:
        played = take(self, policy)
        played.success[:] = next(results)
        return played

    monkeypatch.setattr(Exam, "take", told)
    options = ("--teacher", "none", "--eval-every", "40", "--steps", "400", "--early-stop", "2")
    folder = train(tmp_path, "run", *options)
    assert rows(folder, "eval")[-1]["step"] == checkpoint.load(folder / "checkpoints" / "final.pt")["step"] == 120
    train(tmp_path, "run", *options)  # does not go on
    assert rows(folder, "eval")[-1]["step"] == 120
    train(tmp_path, "run", *options[:-2], "--early-stop", "3")  # does
    assert rows(folder, "eval")[-1]["step"] == 160


# --- refusals ---------------------------------------------------------------------------------------------------------
def test_a_missing_teacher_is_an_error_and_never_random_weights(
    tmp_path: Path, network: Path, capsys: pytest.CaptureFixture[str]
):
    """D3."""
    train(tmp_path, "run", "--teacher", str(network.with_name("collectiv")), code=4)
    said = capsys.readouterr().err
    assert "there is no collective network" in said
    assert "collective distill" in said
    assert not (tmp_path / "run").exists()
    (tmp_path / "empty").mkdir()
    train(tmp_path, "run", "--teacher", str(tmp_path / "empty"), code=4)
    assert "collective distill" in capsys.readouterr().err


def test_another_teacher_does_not_take_over(tmp_path: Path, network: Path, capsys: pytest.CaptureFixture[str]):
    """And leaves no trace: whoever began the run goes on with it."""
    mine = shutil.copytree(network, tmp_path / "network")
    train(tmp_path, "run", "--teacher", str(mine))
    before = [(tmp_path / "run" / name).read_bytes() for name in ("config.json", "env.json")]
    shutil.rmtree(mine)
    collective(tmp_path, "network", seed=1)
    for other in (str(mine), "scripted", "none"):
        train(tmp_path, "run", "--teacher", other, "--steps", "300", code=2)
        assert "the teacher is another" in capsys.readouterr().err
    assert [(tmp_path / "run" / name).read_bytes() for name in ("config.json", "env.json")] == before
    train(tmp_path, "run", "--teacher", str(network), "--steps", "300")
    train(tmp_path, "script", "--teacher", "scripted")
    train(tmp_path, "script", "--teacher", str(network), "--steps", "300", code=2)
    assert "the teacher is another (scripted -> " in capsys.readouterr().err
    train(tmp_path, "script", "--teacher", "scripted", "--steps", "300")


def test_a_teacher_may_move(tmp_path: Path, network: Path, stop_at: Any):
    """What he knows is what must not change, not where he lies; he still has much to say when he is found again."""
    whole = train(tmp_path, "whole", "--teacher", str(network), "--clone", "1")
    stop_at(SAC, "update", 9)
    train(tmp_path, "moved", "--teacher", str(network), "--clone", "1", code=85)
    there = shutil.copytree(network, tmp_path / "elsewhere")
    moved = train(tmp_path, "moved", "--teacher", str(there), "--clone", "1")
    assert rows(moved) == rows(whole)
    same(final(whole), final(moved))


def test_advice_that_is_remembered_counts_when_the_teacher_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A mean over the rows with advice, weighed as clone_kept says however few they are; others weigh nothing."""
    seen: list[tuple[int, Any]] = []
    update = SAC.update

    def saw(self: SAC, batch: Any, *arguments: Any) -> Any:
        seen.append((self.updates, dict(batch)))
        return update(self, batch, *arguments)

    monkeypatch.setattr(SAC, "update", saw)
    folder = train(tmp_path, "run", *ARMS["kept"], "--steps", "480", "--replay", "1000")
    late = [batch for updates, batch in seen if updates > 60]  # after 280 env steps; he has been gone for 80
    assert len(late) > 20
    for batch in late:
        count, told = batch["clone"], batch["advice"].any(-1)  # a script's action is never 0 in all dimensions
        assert 0 < told.sum() < len(count)
        torch.testing.assert_close(count, torch.where(told, 0.5 * len(count) / int(told.sum()), 0.0))
    for batch in [batch for updates, batch in seen if updates < 30]:
        torch.testing.assert_close(batch["clone"], torch.full_like(batch["clone"], 0.5))
    assert [row["advised"] for row in rows(folder) if row["step"] in (80, 200)] == [1.0, 1.0]
    assert 0.3 < rows(folder)[-1]["advised"] < 0.7


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--mix", "1.5"), "mix: must be in [0, 1]"),
        (("--expire", "80"), "expire: must come after warmup + constant, 80"),
        (("--sigma-min", "2"), "sigma_min, sigma_max: need 0 < min <= max"),
        (("--shaping", "potential"), "no critics"),
        (("--clone-filter",), "nothing is imitated"),
        (("--clone", "0.5", "--clone-kept", "0.6"), "clone_kept: must be in [0, clone], [0, 0.5], got 0.6"),
        (("--clone", "1", "--clone-kept", "1", "--replay", "100"), "clone_kept: the advice must stay in memory"),
        (("--clone", "1", "--clone-kept", "1", "--no-save-replay"), "clone_kept: the advice must stay in memory"),
        (("--clone", "1", "--shaping", "potential"), "use one of them"),
        (("--gamma", "1.5"), "gamma: must be in (0, 1]"),
        (("--task", "toy-reech"), "did you mean toy-reach"),
        (("--sac.alpha", "-1"), "alpha: must be positive"),
        (("--bonus-scal", "1"), "did you mean --bonus-scale"),
        (("--config", "nowhere.yaml"), "nowhere.yaml"),
    ],
)
def test_bad_options_leave_no_run(
    options: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    train(tmp_path, "run", "--teacher", "scripted", *options, code=2)
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", StudentConfig.PRESETS)
def test_presets_are_whole(name: str):
    cfg = from_dict(StudentConfig, {"task": "reach-v3", "teacher": "none", **StudentConfig.PRESETS[name]}, name)
    assert cfg.sac.log_std_map == "tanh"
    assert cfg.warmup < cfg.expire <= cfg.steps


def test_critics_that_explode_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    update = SAC.update

    def sick(self: SAC, *arguments: Any) -> Any:
        metrics = update(self, *arguments)
        return metrics | {"critic_loss": torch.tensor(1e9)} if self.updates > 20 else metrics

    monkeypatch.setattr(SAC, "update", sick)
    folder = train(tmp_path, "run", "--teacher", "none", code=3)
    assert "toy-reach: critic_loss is 1e+09 at step 160; last good checkpoint: step 120" in capsys.readouterr().err
    state = checkpoint.load(folder / "checkpoints" / "last.pt")
    assert checkpoint.nonfinite(state["parts"], "parts") is None


# --- stopping and going on --------------------------------------------------------------------------------------------
@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch):
    """Have the next run send itself SIGTERM at the n-th call of a method."""

    def arrange(cls: type, method: str, count: int) -> None:
        original, sent = getattr(cls, method), []

        def counted(self: Any, *arguments: Any) -> Any:
            sent.append(1)
            if len(sent) == count:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(self, *arguments)

        monkeypatch.setattr(cls, method, counted)

    return arrange


@pytest.mark.parametrize("arm", [*ARMS, "network", "potential"])
def test_half_and_half_is_whole(arm: str, network: Path, tmp_path: Path, stop_at: Any):
    """Bit for bit, stopped in the middle of an episode and of a window; again after the teacher has expired."""
    options = {**ARMS, "network": ("--teacher", str(network), "--mix", "0.3", "--clone", "0.5")}.get(
        arm, ("--teacher", str(network), "--shaping", "potential")
    )
    whole = train(tmp_path, "whole", *options)
    for at in (9, 36):
        stop_at(SAC, "update", at)
        train(tmp_path, "halves", *options, code=85)
    halves = train(tmp_path, "halves", *options)
    assert rows(halves) == rows(whole)
    assert rows(halves, "eval") == rows(whole, "eval")
    same(final(whole), final(halves))


def test_a_stop_in_an_evaluation_does_not_wait_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    evaluation_is_given_up(
        lambda name, code: train(tmp_path, name, "--teacher", "scripted", code=code),
        "collective.run.exam.play", monkeypatch, at=2,
    )  # fmt: skip


def test_stopped_while_random_actions_are_collected(network: Path, tmp_path: Path, stop_at: Any):
    whole = train(tmp_path, "whole", "--teacher", str(network))
    stop_at(Learnt, "advise", 7)
    train(tmp_path, "halves", "--teacher", str(network), code=85)
    assert checkpoint.load(tmp_path / "halves" / "checkpoints" / "last.pt")["step"] == 14
    same(final(whole), final(train(tmp_path, "halves", "--teacher", str(network))))


def test_without_saved_replay_a_resumed_run_collects_first(tmp_path: Path, stop_at: Any):
    options = ("--teacher", "none", "--no-save-replay")
    stop_at(SAC, "update", 25)
    train(tmp_path, "run", *options, code=85)
    before = checkpoint.load(tmp_path / "run" / "checkpoints" / "last.pt")
    folder = train(tmp_path, "run", *options)
    assert not list((folder / "replay").iterdir())
    done, left = before["parts"]["agent"]["updates"], 240 - before["step"]
    assert rows(folder)[-1]["updates"] == done + (left - 16) // 4


def test_a_run_may_be_made_longer(tmp_path: Path):
    long = train(tmp_path, "long", "--teacher", "scripted", "--steps", "280")
    train(tmp_path, "short", "--teacher", "scripted")
    same(final(long), final(train(tmp_path, "short", "--teacher", "scripted", "--steps", "280")))


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["bonus", "network"])
def test_killed_again_and_again_it_ends_the_same(arm: str, network: Path, tmp_path: Path):
    options = {**ARMS, "network": ("--teacher", str(network), "--mix", "0.3")}[arm]
    words = ["train-student", "--preset", "debug", *options, "--save-every", "20", "--steps", "400"]
    killed_ends_the_same(["collective", *words], tmp_path, (20, 100, 220))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 85), (signal.SIGINT, 130)])
def test_a_signal_saves_the_very_step(number: signal.Signals, code: int, tmp_path: Path):
    words = ["train-student", "--preset", "debug", "--teacher", "scripted", "--steps", "8000000"]
    assert signal_saves_the_step(["collective", *words], tmp_path, number, 120) == code
