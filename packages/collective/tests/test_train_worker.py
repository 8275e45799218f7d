"""`collective train-worker` on the toy: what it writes, what it refuses, runs that stop and go on."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from collective_experts import stops_at
from collective_students import run
from stopped_runs import evaluation_is_given_up, final, killed_ends_the_same, rows, same, signal_saves_the_step

from collective import experts
from collective.cli import main
from collective.config_worker import OnlineConfig, WorkerConfig
from collective.data import load
from collective.run import many, train_worker
from rlblocks.sac import SAC
from rlcore import checkpoint
from rlcore.config import from_dict
from rlcore.errors import UsageError
from rlcore.files import read_json

TWO = ("--tasks", "toy-reach", "toy-push")


def train(root: Path, name: str, *options: str, code: int = 0) -> Path:
    return run("train-worker", root, name, *options, code=code)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("experts"), "two", *TWO)


# --- what a run leaves ------------------------------------------------------------------------------------------------
def test_a_run_says_what_happened_by_task_and_over_all(folder: Path):
    facts = read_json(folder / "env.json")
    assert (facts["stage"], facts["tasks"], facts["goal_seed"]) == ("experts", ["toy-reach", "toy-push"], 0)
    trained, evaluated = rows(folder), rows(folder, "eval")
    assert [row["step"] for row in trained] == [80, 160, 240, 320, 400, 480]  # over all envs
    assert [row["task_step"] for row in trained] == [40, 80, 120, 160, 200, 240]
    assert [row["step"] for row in evaluated] == [240, 480]
    last = trained[-1]
    for key in ("success", "success_final", "episode_reward", "actor_loss", "critic_loss", "alpha", "entropy"):
        halves = [last[f"{key}/toy-{task}"] for task in ("reach", "push")]
        np.testing.assert_allclose(last[key], np.mean(halves), rtol=1e-4, err_msg=key)
    assert last["updates"] == 50  # of each expert, one for each 4 steps of its task after the random ones
    assert last["unstable"] == 0
    row = evaluated[-1]
    assert row["deterministic"] == 1  # D15: said, and so
    assert row["episodes"] == 6
    assert row["success_env_index_1"] == row["success/toy-push"]
    assert {"success", "success_final", "return_mean", "return_mean/toy-reach"} <= row.keys()


def test_evaluations_act_without_noise_and_training_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """D15, in every evaluation and not only the first."""
    asked: list[bool] = []
    act = SAC.act
    monkeypatch.setattr(SAC, "act", lambda self, obs, deterministic=False: (
        asked.append(deterministic), act(self, obs, deterministic)
    )[1])  # fmt: skip
    train(tmp_path, "run", "--eval-every", "60")
    assert asked.count(True) == 4 * 3 * 20  # evaluations, episodes, steps
    assert asked.count(False) == (240 - 40) // 2  # vector steps after the random ones


@pytest.mark.parametrize("number", [1, 3])
def test_num_envs_are_parallel_envs_of_each_task(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """D20."""
    seen: list[Any] = []
    open_envs = many.open_envs
    monkeypatch.setattr(train_worker, "open_envs", lambda cfg, seed: (seen.append(open_envs(cfg, seed)), seen[-1])[1])
    train(tmp_path, "run", *TWO, "--num-envs", str(number), "--steps", "120", "--eval-every", "1000")
    envs = seen[0]
    assert envs.num_envs == 2 * number
    assert envs.task_index.tolist() == [0] * number + [1] * number
    assert len(np.unique(envs.board.goal_id)) > 1 or number == 1


def test_an_expert_does_not_depend_on_who_is_trained_beside_it(tmp_path: Path):
    """Env 0 of a stack is env 0 alone, and learners share nothing."""
    options = ("--num-envs", "1", "--steps", "120", "--eval-every", "1000")
    both = train(tmp_path, "both", *TWO, *options)
    alone = train(tmp_path, "alone", "--task", "toy-reach", *options)
    one, two = (experts.load(where, "toy-reach", "final").sac for where in (alone, both))
    for name, value in one.tensors().items():
        torch.testing.assert_close(value, two.tensors()[name], atol=1e-5, rtol=1e-5)


def test_snapshots_are_whole_episodes_labelled_by_the_final_experts(folder: Path):
    """Three snapshots, at 80, 160 and 240 env steps of a task: the newest 50 transitions, made up to whole episodes."""
    data = load(folder)
    assert data.tasks == ("toy-reach", "toy-push")
    assert data.lengths.tolist() == [20] * data.trajectories
    assert np.bincount(data.task_id).tolist() == [9, 9]  # three episodes make 60 transitions
    following = data.next_obs()
    for i, task in enumerate(data.tasks):
        expert, own = experts.load(folder, task, "final"), data.task_of_rows == i
        mean, log_std = expert.proposal(data.obs[own])
        np.testing.assert_allclose(data.expert_mean[own], mean, atol=1e-5)
        np.testing.assert_allclose(data.expert_log_std[own], log_std, atol=1e-4)
        label = data.reward[own] + 0.99 * expert.value(following[own])  # D9
        np.testing.assert_allclose(data.q_target[own], label, rtol=1e-4, atol=1e-4)
        assert np.abs(data.expert_mean[own] - data.action[own]).max() > 0.01  # D12
    assert not data.executed_expert.any()
    goals = data.goal_id[data.task_id == 0]
    assert len(np.unique(goals)) > 3  # a new goal of the 50 in each episode


def test_a_run_that_goes_on_labels_anew(folder: Path, tmp_path: Path):
    """Old snapshots get the labels of the expert that there is now."""
    train(tmp_path, "run")
    before = load(tmp_path / "run")
    train(tmp_path, "run", "--steps", "320")
    after = load(tmp_path / "run")
    assert after.trajectories == before.trajectories + 3
    assert np.array_equal(after.obs[: len(before.obs)], before.obs)
    assert not np.allclose(after.expert_mean[: len(before.obs)], before.expert_mean, atol=1e-5)


def test_learners_bootstrap_at_time_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Discounts are gamma in every row, and the state after a cut is the episode's own."""
    batches: list[dict[str, torch.Tensor]] = []
    update = SAC.update
    monkeypatch.setattr(SAC, "update", lambda self, batch: (
        batches.append({k: v.clone() for k, v in batch.items()}), update(self, batch)
    )[1])  # fmt: skip
    train(tmp_path, "run", "--steps", "200", "--eval-every", "1000")
    assert all((batch["discount"] == torch.tensor(0.99)).all() for batch in batches)
    cut = [(b["obs"][b["over"]], b["next_obs"][b["over"]]) for b in batches]
    obs, following = (torch.cat(column) for column in zip(*cut))
    assert len(obs) > 20
    # the frame before, which an observation shows, is the one that was acted on; an episode's start shows itself
    torch.testing.assert_close(following[:, 18:36], obs[:, :18])


def test_rewards_are_raw_unless_asked_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    largest: list[float] = []
    update = SAC.update
    monkeypatch.setattr(SAC, "update", lambda self, batch: (
        largest.append(float(batch["reward"].max())), update(self, batch)
    )[1])  # fmt: skip
    options = ("--steps", "120", "--eval-every", "1000", "--task", "toy-reach")
    train(tmp_path, "raw", *options)
    raw, largest[:] = list(largest), []
    train(tmp_path, "normed", *options, "--reward-norm")
    scale = experts.load(tmp_path / "normed", "toy-reach").scale
    assert scale == pytest.approx(final(tmp_path / "normed")["tally"]["norm"]["scale"][0])
    assert scale != 1.0
    assert experts.load(tmp_path / "raw", "toy-reach").scale == 1.0
    assert largest[0] / raw[0] == pytest.approx(1.0, abs=0.2)  # the variance begins at 1
    assert largest != raw
    data = load(tmp_path / "normed")
    assert data.reward.max() == pytest.approx(load(tmp_path / "raw").reward.max(), rel=0.5)  # data keep raw ones


# --- refusals and faults ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--tasks", "toy-reech"), "did you mean toy-reach?"),
        (("--tasks", "toy-reach,reach-v3"), "cannot be mixed"),
        (("--steps", "0"), "steps: must be in 1 .. "),
        (("--gamma", "1"), "gamma: must be in (0, 1)"),
        (("--replay", "1"), "replay: must be at least num_envs"),
        (("--updates-per-step", "-1"), "updates_per_step"),
        (("--goals", "reandom"), "goals"),
        (("--goal", "random"), "did you mean --goal"),
        (("--sac.tau", "2"), "tau: must be in"),
    ],
)
def test_bad_options_leave_no_run(
    options: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    train(tmp_path, "run", *options, code=2)
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_tasks_may_be_listed_with_commas():
    cfg = WorkerConfig(tasks=("toy-push,toy-reach", "toy-push"))
    assert cfg.chosen == ("toy-push", "toy-reach")
    with pytest.raises(UsageError, match="no task"):
        _ = WorkerConfig().chosen


@pytest.mark.parametrize("cls", [WorkerConfig, OnlineConfig])
def test_presets_are_whole(cls: Any):
    for name, preset in cls.PRESETS.items():
        from_dict(cls, {"tasks": ["reach-v3"], **preset}, name)


def test_the_defaults_are_the_papers():
    """Section 3.1: what is not said otherwise is as published."""
    cfg = WorkerConfig()
    sac = cfg.sac
    assert (sac.hidden, sac.init, sac.log_std_map) == ((256, 256), "xavier", "tanh")
    assert (sac.log_std_min, sac.log_std_max, sac.target_entropy) == (-20.0, 2.0, -4.0)
    assert (sac.actor_lr, sac.critic_lr, sac.alpha_lr) == (3e-4, 3e-4, 1e-4)
    assert (sac.alpha, sac.tau, sac.target_every, sac.critics) == (0.1, 0.005, 2, 2)
    assert (cfg.steps, cfg.random_steps, cfg.batch_size, cfg.horizon) == (100_000, 2_000, 512, 500)
    assert (cfg.gamma, cfg.updates_per_step, cfg.reward_norm, cfg.replay) == (0.99, 1.0, False, 140_000)
    reference = from_dict(WorkerConfig, WorkerConfig.PRESETS["reference"], "reference")
    assert (reference.sac.alpha, reference.horizon, reference.random_steps) == (0.01, 400, 0)
    assert (reference.replay, reference.batch_size, reference.sac.alpha_lr) == (140_000, 512, 1e-4)


def test_a_stop_in_an_evaluation_does_not_wait_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It is given up, and made when the run goes on."""
    command = lambda name, code: train(tmp_path, name, code=code)  # noqa: E731
    evaluation_is_given_up(command, "collective.run.train_worker.score", monkeypatch)


def test_memory_is_told_before_it_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    said: list[str] = []
    monkeypatch.setattr("rlcore.logger.Console.say", lambda self, text: said.append(text))
    train(tmp_path, "run", "--steps", "40", "--replay", "1000000")
    assert any("1 x 1,000,000 transitions: " in text and "MiB free on cpu" in text for text in said)
    train(tmp_path, "large", "--steps", "40", "--replay", "100000000000", code=2)


@pytest.mark.parametrize("sick", ["nan", "huge"])
def test_experts_that_diverge_are_stopped(
    sick: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The task is named, the last good checkpoint stays, the batch can be looked at."""
    update = SAC.update

    def infected(self: SAC, *arguments: Any) -> Any:
        metrics = update(self, *arguments)
        if self.updates == 33:
            metrics["critic_loss"][1] = float("nan") if sick == "nan" else 2e8
        return metrics

    monkeypatch.setattr(SAC, "update", infected)
    folder = train(tmp_path, "run", *TWO, "--save-every", "80", code=3)
    error = capsys.readouterr().err
    assert "critic loss of toy-push" in error
    assert "is not finite" in error
    assert "last good checkpoint: step 320" in error
    dump = next((folder / "analysis").glob("nonfinite_step_*.pt"))
    assert checkpoint.load(dump)["batch"]["obs"].shape == (2, 16, 39)
    assert read_json(folder / "status.json")["state"] == "failed"


# --- stopping and going on --------------------------------------------------------------------------------------------
def test_evaluations_and_saving_do_not_touch_training(tmp_path: Path):
    often = train(tmp_path, "often", *TWO, "--eval-every", "40", "--save-every", "20")
    seldom = train(tmp_path, "seldom", *TWO, "--eval-every", "100000", "--save-every", "100000")
    same(final(often), final(seldom))
    assert rows(often) == rows(seldom)


@pytest.mark.parametrize("options", [(), (*TWO, "--reward-norm"), ("--num-envs", "1", "--replay", "90")])
def test_half_and_half_is_whole(options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Bit for bit, in the middle of an episode and between two rows; the ring may have wrapped."""
    whole = train(tmp_path, "whole", *options)
    with monkeypatch.context() as patch:
        stops_at(patch, SAC, "update", 33)
        train(tmp_path, "halves", *options, code=85)
    halves = train(tmp_path, "halves", *options)
    assert rows(halves) == rows(whole)
    assert rows(halves, "eval") == rows(whole, "eval")
    same(final(whole), final(halves))
    one, two = load(whole), load(halves)
    for name in ("obs", "action", "expert_mean", "q_target", "goal_id"):
        assert np.array_equal(getattr(one, name), getattr(two, name)), name


def test_without_saved_replay_a_resumed_run_refills_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        stops_at(patch, SAC, "update", 26)
        train(tmp_path, "run", "--no-save-replay", code=85)
    before = checkpoint.load(tmp_path / "run" / "checkpoints" / "last.pt")
    said: list[str] = []
    monkeypatch.setattr("rlcore.logger.Console.say", lambda self, text: said.append(text))
    folder = train(tmp_path, "run", "--no-save-replay")
    assert any("no replay was saved: 40 env steps" in text for text in said)
    assert not list((folder / "replay").iterdir())
    refilled = [row for row in rows(folder) if before["step"] < row["step"] <= before["step"] + 40]
    assert {row["updates"] for row in refilled} == {before["parts"]["agent"]["updates"]}
    assert load(folder).lengths.tolist()[-1] == 20  # a snapshot has no episode whose beginning is lost


def test_more_steps_may_be_asked_for_but_not_other_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    train(tmp_path, "run", "--steps", "120")
    train(tmp_path, "run", "--steps", "160")
    assert rows(tmp_path / "run")[-1]["step"] == 160
    capsys.readouterr()
    train(tmp_path, "run", "--steps", "160", "--gamma", "0.9", code=2)
    assert "gamma: 0.99 -> 0.9" in capsys.readouterr().err


def test_the_record_is_json_without_surprises(folder: Path):
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        assert {"kind", "step", "wall_s", "cpu_s"} <= json.loads(line).keys()


def test_help_needs_no_task(capsys: pytest.CaptureFixture[str]):
    assert main(["train-worker", "--help"]) == 0
    assert "Env steps of each task." in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_killed_again_and_again_it_ends_the_same(tmp_path: Path):
    words = ["train-worker", "--preset", "debug", *TWO, "--save-every", "20", "--eval-every", "100000"]
    killed_ends_the_same(["collective", *words], tmp_path, (80, 240, 400))
    one, two = load(tmp_path / "whole"), load(tmp_path / "killed")
    assert np.array_equal(one.expert_mean, two.expert_mean)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 85), (signal.SIGINT, 130)])
def test_a_signal_saves_the_very_step(number: signal.Signals, code: int, tmp_path: Path):
    endless = ["train-worker", "--preset", "debug", "--steps", "800000", "--save-every", "40", "--eval-every", "100000"]
    assert signal_saves_the_step(["collective", *endless, "--replay", "2000"], tmp_path, number, 80) == code
