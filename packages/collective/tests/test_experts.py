"""Experts: a stack does what each alone would, what values and labels are, artifacts that are missing."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from collective_experts import fill
from collective_students import run

from collective import experts
from collective.cli import main
from collective.config_worker import WorkerConfig
from collective.experience import Experience, Span, unlabelled
from collective.experts import Expert, RewardNorm, relabel, stack, unstack
from rlcore import checkpoint
from rlcore.errors import DataError
from rlcore.seeding import numpy_generator

TASKS = ("toy-reach", "toy-push", "toy-lift")
CFG = replace(WorkerConfig(tasks=TASKS).sac, hidden=(16, 16))


def expert(seed: int = 0, scale: float = 1.0, index: int = 1) -> Expert:
    return Expert.of(TASKS[index], CFG, stack(CFG, TASKS, seed).tensors(), index, 3, 0.99, scale, "cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two experts."""
    return run("train-worker", tmp_path_factory.mktemp("experts"), "two", "--tasks", "toy-push", "toy-reach")


# --- stacked or alone -------------------------------------------------------------------------------------------------
def experience(tasks: tuple[str, ...]) -> Experience:
    """Every task lives through the same, but its learner's draws are its own."""
    made = Experience(500, 1, [numpy_generator(0, "replay", task) for task in tasks])
    fill(made, 300, alike=True)
    return made


def learn(tasks: tuple[str, ...], updates: int = 10) -> list[dict[str, torch.Tensor]]:
    """The experts after some updates."""
    sac, lived = stack(CFG, tasks, seed=3), experience(tasks)
    discount = torch.full((len(tasks), 32), 0.99)
    for _ in range(updates):
        sac.update(unstack({**lived.sample(32), "discount": discount}, sac.agents))
    found = sac.tensors()
    each = {name: len(value) // len(tasks) for name, value in found.items()}
    return [{k: v[i * each[k] : (i + 1) * each[k]] for k, v in found.items()} for i in range(len(tasks))]


def test_stacked_experts_learn_what_each_alone_would():
    """The same streams for each task, whatever it is stacked with: equal within 1e-5 after ten updates."""
    filler, one = experience(TASKS), experience(TASKS[:1])
    assert np.array_equal(filler.rows(Span(2, 0, 299))["obs"], one.rows(Span(0, 0, 299))["obs"])
    together, apart = learn(TASKS), [learn((task,))[0] for task in TASKS]
    before = stack(CFG, TASKS, seed=3).tensors()
    for i, (stacked, alone) in enumerate(zip(together, apart)):
        for name, value in stacked.items():
            torch.testing.assert_close(value, alone[name], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(stacked["actor"], before["actor"][i : i + 1], atol=1e-4)  # and it learnt something
    assert not torch.allclose(together[0]["actor"], together[1]["actor"], atol=1e-3)


def test_an_expert_is_its_slice_of_the_stack():
    sac, rng = stack(CFG, TASKS, 0), np.random.default_rng(0)
    obs, action = rng.normal(size=(5, 39)).astype(np.float32), rng.uniform(-1, 1, (5, 4)).astype(np.float32)
    states, actions = torch.from_numpy(obs).expand(3, -1, -1), torch.from_numpy(action).expand(3, -1, -1)
    many = sac.policy(states, torch.zeros_like(actions))
    for i in range(3):
        single = expert(index=i)
        mean, log_std = single.proposal(obs)
        np.testing.assert_allclose(mean, many.mean[i].tanh().detach(), atol=1e-6)
        np.testing.assert_allclose(log_std, many.log_std[i].detach(), atol=1e-5)
        np.testing.assert_allclose(single.act(obs), mean, atol=1e-6)  # D15: without noise unless asked for
        smaller = sac.q(sac.critic, states, actions)[i].min(0).values.detach()
        np.testing.assert_allclose(single.q(obs, action), smaller, atol=1e-5)
    noisy = expert()
    noisy.sac.actor.views[-1][-1][1][4:] = 5.0  # the noise of a policy that has just begun is too small to see
    drawn = noisy.act(obs, deterministic=False)
    assert np.abs(drawn - noisy.act(obs)).max() > 0.1


# --- values and labels ------------------------------------------------------------------------------------------------
def test_a_soft_value_is_the_mean_over_the_policy():
    """V = E[min Q - alpha log pi], here beside 20,000 plain draws."""
    single, rng = expert(), np.random.default_rng(1)
    single.sac.actor.views[0][-1][1][4:] = 0.8  # log-std about -1.7: draws that differ
    obs = rng.normal(size=(3, 39)).astype(np.float32)
    states = torch.from_numpy(obs).unsqueeze(1).expand(-1, 20_000, -1).reshape(1, -1, 39)
    with torch.no_grad():
        sample = single.sac.policy(states, torch.randn(1, 60_000, 4, generator=torch.Generator().manual_seed(0)))
        q = single.sac.q(single.sac.critic, states, sample.action).min(1).values
        plain = (q - 0.1 * sample.log_prob).view(3, -1).mean(1).numpy()
    np.testing.assert_allclose(single.value(obs), plain, atol=0.15)


def test_a_value_does_not_depend_on_who_else_is_asked_about():
    single, obs = expert(), np.random.default_rng(1).normal(size=(5_000, 39)).astype(np.float32)
    np.testing.assert_allclose(single.value(obs)[4_000:4_003], single.value(obs[4_000:4_003]), atol=1e-5)


def test_a_label_is_the_reward_and_the_discounted_value_of_the_next_state(monkeypatch: pytest.MonkeyPatch):
    """Oracle 9, D9: r = 1, gamma = 0.99, V(s') = 10 give 10.9, not 10."""
    single = expert()
    monkeypatch.setattr(single, "value", lambda obs: np.full(len(obs), 10.0, np.float32))
    label = single.label(np.ones(2, np.float32), np.zeros((2, 39), np.float32))
    np.testing.assert_allclose(label, [10.9, 10.9], rtol=1e-6)


def test_values_are_in_the_rewards_of_the_env():
    """An expert that learnt from rewards ten times as small has values ten times as small."""
    obs = np.random.default_rng(1).normal(size=(4, 39)).astype(np.float32)
    action = np.zeros((4, 4), np.float32)
    np.testing.assert_allclose(expert(scale=0.1).value(obs), expert().value(obs) * 10, rtol=1e-5)
    np.testing.assert_allclose(expert(scale=0.1).q(obs, action), expert().q(obs, action) * 10, rtol=1e-5)


def test_every_row_is_labelled_by_its_own_tasks_expert():
    """D12: not by the last task's."""
    lived = Experience(100, 1, [np.random.default_rng(i) for i in range(3)])
    fill(lived, 40)
    spans = [(task, lived.rows(span)) for task in (2, 0, 1) for span in lived.episodes(task)]
    data, each = unlabelled(spans, TASKS), [expert(index=i) for i in range(3)]
    found = relabel(data, each)
    following = data.next_obs()
    for row in range(0, len(data.obs), 7):
        own = each[data.task_of_rows[row]]
        mean, log_std = own.proposal(data.obs[row : row + 1])
        np.testing.assert_allclose(found.expert_mean[row], mean[0], atol=1e-6)
        np.testing.assert_allclose(found.expert_log_std[row], log_std[0], atol=1e-5)
        value = own.value(following[row : row + 1])[0]
        np.testing.assert_allclose(found.q_target[row], data.reward[row] + 0.99 * value, rtol=1e-5)
    assert np.array_equal(found.action, data.action)  # what was done is another array than what is taught
    values = relabel(data, [each[0], None, None], q_only=True)
    assert np.isnan(values.q_target[data.task_of_rows > 0]).all()
    assert not values.expert_mean.any()


def test_rewards_are_normalised_as_published():
    """Oracle 10: c = 0.001, first reward 10."""
    norm = RewardNorm(2, on=True)
    norm.update(np.array([[10.0], [0.0]]))
    np.testing.assert_allclose(norm.mean, [0.01, 0.0])
    np.testing.assert_allclose(norm.var, [1.0988001, 0.999])
    np.testing.assert_allclose(10.0 * norm.scale[0], 9.5399, atol=1e-4)
    again = RewardNorm(2, on=True)
    again.load_state_dict(norm.state_dict())
    again.update(np.array([[1.0, 2.0], [3.0, 4.0]]))
    for c in ([1.0, 3.0], [2.0, 4.0]):
        norm.update(np.array(c)[:, None])
    np.testing.assert_allclose(again.scale, norm.scale)
    off = RewardNorm(1, on=False)
    off.update(np.array([[10.0]]))
    assert off.scale == 1.0


# --- artifacts --------------------------------------------------------------------------------------------------------
def test_an_expert_is_found_by_its_task(folder: Path):
    state = checkpoint.load(folder / "checkpoints" / "best.pt")["parts"]
    assert state["tally"]["tasks"] == ["toy-push", "toy-reach"]
    for where in (folder, folder.parent):
        found = experts.load(where, "toy-reach")
        assert (found.task, found.gamma, found.scale) == ("toy-reach", 0.99, 1.0)
        assert torch.equal(found.sac.actor.parameters, state["agent"]["actor"][1:])
        assert torch.equal(found.sac.critic.parameters, state["agent"]["critic"][2:])
        assert torch.equal(found.sac.log_alpha, state["agent"]["log_alpha"][1:])
    again = Expert.from_state(found.sac.cfg, found.state_dict())
    obs = np.random.default_rng(0).normal(size=(4, 39)).astype(np.float32)
    assert np.array_equal(again.value(obs), found.value(obs))


def test_a_stack_is_read_once_for_all_its_experts(folder: Path, monkeypatch: pytest.MonkeyPatch):
    read: list[Path] = []
    load = checkpoint.load
    monkeypatch.setattr(experts.checkpoint, "load", lambda path: (read.append(path), load(path))[1])
    found = experts.load_all(folder.parent, ["toy-reach", "toy-push"])
    assert [each.task for each in found] == ["toy-reach", "toy-push"]
    assert len(read) == 1


def test_a_missing_expert_is_an_error_that_says_how_to_make_one(folder: Path, tmp_path: Path):
    """D3."""
    with pytest.raises(DataError, match=r"none for toy-lift: `collective train-worker --task toy-lift` makes one"):
        experts.load(folder, "toy-lift")
    with pytest.raises(DataError, match=r"no expert for toy-lift: `collective train-worker --task toy-lift`"):
        experts.load(tmp_path / "nowhere", "toy-lift")
    shutil.copytree(folder, tmp_path / "a", symlinks=True)
    shutil.copytree(folder, tmp_path / "b", symlinks=True)
    with pytest.raises(DataError, match=r"several experts for toy-push \(a, b\)"):
        experts.load(tmp_path, "toy-push")
    for name in ("best.pt", "final.pt", "last.pt"):
        (tmp_path / "a" / "checkpoints" / name).unlink()
    with pytest.raises(DataError, match="no checkpoint named"):
        experts.load(tmp_path / "a", "toy-push")


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path, folder: Path):
    foreign = tmp_path / "foreign.pt"
    checkpoint.save(foreign, {"config": {}, "parts": {}, "step": 0})
    with pytest.raises(DataError, match="is not one of experts"):
        experts.load(folder, "toy-push", str(foreign))


def test_the_verbs_say_so_in_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["online-distill", "--preset", "debug", "--task", "toy-lift", "--expert", "sac", "--dir", str(tmp_path)]
    assert main([*words, "--name", "x", "--experts", str(folder)]) == 4
    error = capsys.readouterr().err
    assert "`collective train-worker --task toy-lift` makes one" in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "x").exists()
