"""`collective online-distill` on the toy: phases, labels, the data it leaves, runs that stop and go on."""

from __future__ import annotations

import math
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from collective_experts import stops_at
from collective_students import run
from stopped_runs import final, killed_ends_the_same, rows, same, signal_saves_the_step

from collective import experts
from collective.config_worker import OnlineConfig
from collective.data import Dataset, load
from collective.envs import script_actions
from collective.experts import stack
from collective.losses import distil_loss
from collective.run import online_distill
from rlcore import checkpoint
from rlcore.errors import DataError

TWO = ("--tasks", "toy-reach", "toy-push")


def collect(root: Path, name: str, *options: str, code: int = 0) -> Path:
    return run("online-distill", root, name, *options, code=code)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two experts, in the other order than they will be asked for."""
    root = tmp_path_factory.mktemp("experts")
    return run("train-worker", root, "two", "--tasks", "toy-push", "toy-reach", "--steps", "120")


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return collect(tmp_path_factory.mktemp("scripted"), "run", *TWO)


@pytest.fixture(scope="module")
def taught(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return collect(tmp_path_factory.mktemp("sac"), "run", *TWO, "--expert", "sac", "--experts", str(trained))


def by_step(data: Dataset, task: int) -> np.ndarray[Any, Any]:
    """(C, T) the rows of each env of a task, by step: envs follow each other, and each one's episodes."""
    own = np.flatnonzero(data.task_of_rows == task)
    return own.reshape(2, -1)


# --- what is recorded -------------------------------------------------------------------------------------------------
def test_chance_the_copy_and_the_expert_act_in_turn(scripted: Path):
    data = load(scripted)
    assert len(data.obs) == 2 * 240
    assert data.executed_expert.mean() == pytest.approx(80 / 240)
    for task in range(2):
        steps = by_step(data, task)  # 120 vector steps: 20 random, 60 by the copy, 40 by the expert
        assert not data.executed_expert[steps[:, :80]].any()
        assert data.executed_expert[steps[:, 80:]].all()
        acted, said = data.action[steps[:, 80:]], data.expert_mean[steps[:, 80:]]
        assert np.array_equal(acted, said)
        assert np.abs(data.action[steps[:, :80]] - data.expert_mean[steps[:, :80]]).max() > 0.5


def test_labels_are_those_of_each_rows_own_task(scripted: Path):
    """D12: neither what was done nor what another task's script would do. Script labels are sigma = 0.1, no values."""
    data = load(scripted)
    said = script_actions(data.tasks, data.task_of_rows, data.obs)
    assert np.array_equal(data.expert_mean, said)
    assert np.abs(data.expert_mean).max() <= 1.0
    swapped = script_actions(data.tasks, 1 - data.task_of_rows, data.obs)
    assert np.abs(said - swapped).max() > 0.5
    np.testing.assert_allclose(data.expert_log_std, math.log(0.1), rtol=1e-6)
    assert np.isnan(data.q_target).all()


def test_labels_of_trained_experts_have_spreads_and_values(taught: Path, trained: Path):
    data = load(taught)
    following = data.next_obs()
    for i, task in enumerate(data.tasks):
        expert, own = experts.load(trained, task), data.task_of_rows == i
        mean, log_std = expert.proposal(data.obs[own])
        np.testing.assert_allclose(data.expert_mean[own], mean, atol=1e-5)
        np.testing.assert_allclose(data.expert_log_std[own], log_std, atol=1e-4)
        label = data.reward[own] + 0.99 * expert.value(following[own])  # D9
        np.testing.assert_allclose(data.q_target[own], label, rtol=1e-4, atol=1e-4)


def test_trained_experts_draw_their_actions(taught: Path):
    data = load(taught)
    acting = data.executed_expert
    assert acting.mean() == pytest.approx(80 / 240)
    z = (np.arctanh(data.action[acting]) - np.arctanh(data.expert_mean[acting])) / np.exp(data.expert_log_std[acting])
    seen = np.isfinite(z)
    assert seen.mean() > 0.9
    assert 0.7 < np.std(z[seen]) < 1.5  # in float32, of deviations that may be small


def test_data_hold_whole_episodes_their_goals_and_their_ends(scripted: Path):
    data = load(scripted)
    assert data.lengths.tolist() == [20] * 24
    assert len(np.unique(data.goal_id)) > 5
    assert np.array_equal(data.next_obs()[:, 18:36], data.obs[:, :18])  # an observation shows the frame before
    assert set(data.meta["tasks"]) == {"toy-reach", "toy-push"}
    assert (data.meta["expert"], data.meta["horizon"]) == ("scripted", 20)


def test_an_episode_that_the_end_cuts_is_kept_as_far_as_it_went(tmp_path: Path):
    """D19: lengths are what they are."""
    data = load(collect(tmp_path, "run", "--horizon", "50", "--expert-steps", "60"))
    assert sorted(np.unique(data.lengths).tolist()) == [10, 50]
    assert np.array_equal(data.next_obs()[:, 18:36], data.obs[:, :18])


def test_a_run_says_what_happened(scripted: Path):
    trained, evaluated = rows(scripted), rows(scripted, "eval")
    assert [row["phase"] for row in trained] == ["random"] + ["network"] * 3 + ["expert"] * 2
    assert [row["updates"] for row in trained] == [0, 39, 59, 79, 80, 80]  # 20 to catch up, then one every two steps
    assert {"mu_div", "log_std_div", "actor_loss", "mu_div/toy-push", "executed_expert"} <= trained[1].keys()
    assert [row["executed_expert"] for row in trained] == [0.0] * 4 + [1.0] * 2
    assert [row["step"] for row in evaluated] == [160, 320]  # while the copy learns
    assert {"success", "success/toy-push", "return_mean", "deterministic"} <= evaluated[0].keys()


def test_a_small_budget_is_a_tenth(tmp_path: Path):
    cfg = OnlineConfig(budget="small")
    assert cfg.phases == (800, 4_000, 6_000)
    assert OnlineConfig().phases == (8_000, 40_000, 60_000)
    assert (cfg.scaled(8_000), cfg.scaled(5), cfg.scaled(0)) == (800, 1, 0)
    options = ("--budget", "small", "--random-steps", "400", "--network-steps", "800", "--expert-steps", "400")
    data = load(collect(tmp_path, "run", *options, "--catch-up", "100"))
    assert len(data.obs) == 160
    assert data.executed_expert.sum() == 40


# --- the temporary network --------------------------------------------------------------------------------------------
def test_the_copy_learns_what_its_expert_does():
    cfg = replace(OnlineConfig().sac, hidden=(32, 32))
    net, rng = stack(cfg, ("toy-reach", "toy-push"), 0), np.random.default_rng(0)
    obs = torch.from_numpy(rng.normal(size=(2, 64, 39)).astype(np.float32))
    target = torch.tanh(obs[..., :4] * torch.tensor([1.0, -1.0])[:, None, None])  # the tasks want opposite things
    batch = {"obs": obs, "expert_mean": target, "expert_log_std": torch.full_like(target, math.log(0.1))}
    before = online_distill.imitate(net, batch)
    for _ in range(150):
        after = online_distill.imitate(net, batch)
    assert after["mu_div"].shape == (2,)
    assert (after["mu_div"] < 0.6 * before["mu_div"]).all()
    assert (after["log_std_div"] < 0.1 * before["log_std_div"]).all()
    assert net.updates == 151


def test_stacked_copies_learn_what_each_alone_would():
    cfg = replace(OnlineConfig().sac, hidden=(16, 16))
    both, alone = stack(cfg, ("toy-reach", "toy-push"), 0), stack(cfg, ("toy-push",), 0)
    rng = torch.Generator().manual_seed(0)
    for _ in range(10):
        obs, target = torch.randn(2, 32, 39, generator=rng), torch.rand(2, 32, 4, generator=rng) - 0.5
        batch = {"obs": obs, "expert_mean": target, "expert_log_std": target - 3}
        online_distill.imitate(both, batch)
        one = online_distill.imitate(alone, {name: value[1:] for name, value in batch.items()})
    torch.testing.assert_close(both.actor.parameters[1:], alone.actor.parameters, atol=1e-5, rtol=1e-5)
    now = alone.policy(obs[1:], torch.zeros(1, 32, 4))
    loss = distil_loss(now.mean, now.log_std, target[1:], target[1:] - 3)
    assert float(one["actor_loss"]) == pytest.approx(loss.item(), rel=0.1)  # an update before


# --- faults, stopping and going on ------------------------------------------------------------------------------------
def test_the_labels_stay_those_of_one_expert(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A run keeps its experts: theirs may go on, or go away."""
    options = (*TWO, "--expert", "sac", "--experts", str(trained))
    whole = collect(tmp_path, "whole", *options)
    with monkeypatch.context() as patch:
        stops_at(patch, online_distill, "imitate", 40)
        collect(tmp_path, "run", *options, code=85)
    monkeypatch.setattr(online_distill, "load_all", lambda *arguments: pytest.fail("asked for the experts again"))
    halves = collect(tmp_path, "run", *TWO, "--expert", "sac", "--experts", str(tmp_path / "nowhere"))
    same(final(whole), final(halves))
    one, two = load(whole), load(halves)
    for name in ("obs", "action", "expert_mean", "expert_log_std", "q_target"):
        assert np.array_equal(getattr(one, name), getattr(two, name)), name
    checkpoint.save(halves / "experts.pt", {"experts": [{"sac": {}}]})
    cfg = OnlineConfig(dir=tmp_path, name="run", expert="sac", tasks=("toy-reach",))
    with pytest.raises(DataError, match="holds no experts"):
        online_distill.open_experts(cfg)


@pytest.mark.parametrize(("owner", "method", "count"), [
    (online_distill, "imitate", 7), (online_distill, "imitate", 35), (online_distill.Teachers, "act", 20),
])  # fmt: skip
def test_half_and_half_is_whole(
    owner: Any, method: str, count: int, scripted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Bit for bit: stopped while the copy catches up, while it acts, and while the expert does."""
    with monkeypatch.context() as patch:
        stops_at(patch, owner, method, count)
        collect(tmp_path, "halves", *TWO, code=85)
    halves = collect(tmp_path, "halves", *TWO)
    assert rows(halves) == rows(scripted)
    assert rows(halves, "eval") == rows(scripted, "eval")
    same(final(scripted), final(halves))
    one, two = load(scripted), load(halves)
    for name in ("obs", "action", "reward", "expert_mean", "goal_id", "executed_expert"):
        assert np.array_equal(getattr(one, name), getattr(two, name)), name


def test_evaluations_and_saving_do_not_touch_the_record(scripted: Path, tmp_path: Path):
    often = collect(tmp_path, "often", *TWO, "--eval-every", "20", "--save-every", "10")
    same(final(scripted), final(often))
    assert np.array_equal(load(scripted).action, load(often).action)


@pytest.mark.slow
def test_killed_again_and_again_it_ends_the_same(tmp_path: Path):
    words = ["online-distill", "--preset", "debug", *TWO, "--save-every", "10", "--eval-every", "100000"]
    killed_ends_the_same(["collective", *words], tmp_path, (80, 160, 400))
    one, two = load(tmp_path / "whole"), load(tmp_path / "killed")
    assert np.array_equal(one.action, two.action)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 85), (signal.SIGINT, 130)])
def test_a_signal_saves_the_very_step(number: signal.Signals, code: int, tmp_path: Path):
    endless = ["online-distill", "--preset", "debug", "--network-steps", "200000", "--save-every", "40"]
    assert signal_saves_the_step(["collective", *endless, "--eval-every", "1000000"], tmp_path, number, 80) == code
