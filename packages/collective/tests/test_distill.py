"""Distillation: what each policy is told, exact resumption, codes of another encoder, refusals."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from collective_datasets import made
from stopped_runs import final, same

from collective import data as datasets
from collective import experts
from collective.agent import Collective, network
from collective.cli import main
from collective.codes import encode, stored_codes
from collective.config_distill import DistillConfig
from collective.distiller import Distiller, Rows, Steps, constants
from collective.encoder import Encoder
from collective.envs.single import Plan
from collective.envs.slots import goal_of
from collective.rollout import copies_of
from collective.run import distill as run_distill
from collective.run.told import Told
from collective.windows import Rolling, compress
from rlcore.errors import DataError, UsageError

DEBUG = "distill --preset debug --quiet".split()


def distil(root: Path, name: str, data: Path, encoder: Path, *options: str) -> int:
    return main([*DEBUG, "--dir", str(root), "--name", name, "--data", str(data), "--encoder", str(encoder), *options])


@pytest.mark.parametrize("at", [10, 40, 65])  # before the round, after it, among the critics' updates
def test_a_stopped_run_ends_in_the_same_bits(
    at: int, toy_data: Path, toy_encoder: Path, toy_collective: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    draw, calls = Distiller.draw, []

    def stopping(self: Distiller, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == at:
            signal.raise_signal(signal.SIGTERM)
        return draw(self, *arguments)

    monkeypatch.setattr(Distiller, "draw", stopping)
    assert distil(tmp_path, "half", toy_data, toy_encoder) == 85
    monkeypatch.undo()
    assert distil(tmp_path, "half", toy_data, toy_encoder) == 0
    same(final(tmp_path / "half"), final(toy_collective))


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_stop_in_an_evaluation_does_not_wait_for_it(
    workers: str, toy_data: Path, toy_encoder: Path, toy_collective: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    """Nor do the processes that step its envs stay behind."""
    acted, act = [], Told.act

    def stop(self: Told, *arguments: Any) -> Any:
        acted.append(0)
        if len(acted) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return act(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Told, "act", stop)
        assert distil(tmp_path, "half", toy_data, toy_encoder, "--rounds", "0", "--workers", workers) == 85
    assert len(acted) == 3
    assert multiprocessing.active_children() == []
    assert distil(tmp_path, "half", toy_data, toy_encoder, "--rounds", "0", "--workers", workers) == 0
    assert distil(tmp_path, "whole", toy_data, toy_encoder, "--rounds", "0") == 0
    same(final(tmp_path / "half"), final(tmp_path / "whole"))
    assert evaluations(tmp_path / "half") == evaluations(tmp_path / "whole") != []


def evaluations(folder: Path) -> list[dict[str, Any]]:
    found = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in row.items() if k not in ("wall_s", "cpu_s")} for row in found if row["kind"] == "eval"]


def test_evaluations_leave_training_as_it_is(toy_data: Path, toy_encoder: Path, toy_collective: Path, tmp_path: Path):
    assert distil(tmp_path, "other", toy_data, toy_encoder, "--eval-every", "7") == 0
    same(final(tmp_path / "other"), final(toy_collective))


class TestCodes:
    def test_codes_of_another_encoder_are_refused_until_computed_anew(
        self, toy_data: Path, toy_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        folder = datasets.Writer(tmp_path / "d", ("toy-reach", "toy-push", "toy-lift"), {"horizon": 60})
        folder.append(datasets.load(toy_data))
        data = datasets.load(tmp_path / "d")
        encoder = Encoder.load(toy_encoder)
        first = stored_codes(tmp_path / "d", data, encoder, reencode=False)
        np.testing.assert_array_equal(first, stored_codes(tmp_path / "d", data, encoder, reencode=False))
        state = encoder.state_dict()
        name = next(key for key, value in state["weights"].items() if value.ndim == 2)
        state = {**state, "weights": {**state["weights"], name: state["weights"][name] + 0.1}}
        other = Encoder.from_state(state)
        assert other.fingerprint != encoder.fingerprint
        with pytest.raises(DataError, match="--reencode"):
            stored_codes(tmp_path / "d", data, other, reencode=False)
        again = stored_codes(tmp_path / "d", data, other, reencode=True)
        assert not np.array_equal(first, again)

    def test_codes_of_data_are_those_that_acting_would_have_had(self, toy_data: Path, toy_encoder: Path):
        data, encoder = datasets.load(toy_data), Encoder.load(toy_encoder)
        codes = encode(data, encoder)
        begin, end = data.offsets[1:3]
        rolling = Rolling(1)
        rolling.begin(data.obs[begin : begin + 1])
        for row in range(begin, end - 1):
            np.testing.assert_allclose(encoder.codes(*rolling.arrays())[0], codes[row], atol=1e-5)
            rolling.advance(data.action[row : row + 1], data.reward[row : row + 1], data.obs[row + 1 : row + 2])

    def test_a_missing_encoder_is_an_error(self, toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        words = [*DEBUG, "--dir", str(tmp_path), "--name", "x", "--data", str(toy_data)]
        assert main(words) == 4
        assert "collective train-encoder" in capsys.readouterr().err
        assert main([*words, "--encoder", str(tmp_path / "nowhere")]) == 4
        assert "collective train-encoder" in capsys.readouterr().err
        assert main([*words, "--arms", "task-id", "zero"]) == 0  # which need none


class TestPolicies:
    def test_what_it_is_told(self, toy_collective: Path):
        zero, number = (Collective.load(toy_collective, arm) for arm in ("zero", "task-id"))
        obs, rolling = np.zeros((2, 39), np.float32), Rolling(2)
        codes = number.codes(rolling, np.array([2, 0]))
        assert codes.tolist() == [[0, 0, 1], [1, 0, 0]]
        assert not zero.codes(rolling, np.array([0, 1])).any()
        a, b = zero.act(zero.inputs(obs, rolling, np.array([0, 2])))
        np.testing.assert_array_equal(a, b)

    def test_a_task_number_cannot_be_made_up(self, toy_collective: Path):
        policy = Collective.load(toy_collective, "task-id")
        with pytest.raises(UsageError, match="not trained on"):
            policy.codes(Rolling(1), np.array([-1]))

    def test_one_forward_for_all_envs_is_that_of_each(self, toy_collective: Path):
        policy, rng = Collective.load(toy_collective, "cls"), np.random.default_rng(0)
        rolling = Rolling(5)
        rolling.begin(rng.normal(size=(5, 39)).astype(np.float32))
        for t in range(25):
            ended = np.arange(5) == t % 7
            rolling.advance(rng.normal(size=(5, 4)), rng.normal(size=5), rng.normal(size=(5, 39)), ended)
        obs = rng.normal(size=(5, 39)).astype(np.float32)
        together = policy.inputs(obs, rolling, np.zeros(5, int))
        for i in range(5):
            own = Rolling(1)
            own.load_state_dict({name: value[i : i + 1] for name, value in rolling.state_dict().items()})
            np.testing.assert_allclose(policy.inputs(obs[i : i + 1], own, np.zeros(1, int))[0], together[i], atol=1e-5)

    def test_means_are_deterministic_and_draws_are_not(self, toy_collective: Path):
        policy = Collective.load(toy_collective, "zero")
        inputs = np.zeros((3, policy.code_dim + 21), np.float32)
        np.testing.assert_array_equal(policy.act(inputs), policy.act(inputs))
        assert not np.array_equal(policy.act(inputs, deterministic=False), policy.act(inputs, deterministic=False))
        np.testing.assert_allclose(policy.proposal(inputs)[0], policy.act(inputs), atol=1e-6)

    def test_no_policy_is_made_of_random_weights(self, tmp_path: Path, toy_data: Path, toy_encoder: Path):
        with pytest.raises(DataError, match="collective distill"):
            Collective.load(tmp_path)
        with pytest.raises(DataError, match="no collective policy"):
            Collective.load(toy_encoder)

    def test_a_saved_policy_carries_its_encoder(self, toy_collective: Path, toy_encoder: Path):
        policy = Collective.load(toy_collective)
        assert policy.encoder is not None
        assert policy.encoder.fingerprint == Encoder.load(toy_encoder).fingerprint


class TestUpdates:
    def cfg(self, **changes: Any) -> DistillConfig:
        base = DistillConfig(data=(Path(),), hidden=(32, 32), batch_size=64, updates=400, lr=3e-3, arms=("zero",))
        return replace(base, **changes)

    def distiller(self, cfg: DistillConfig, data: datasets.Dataset) -> Distiller:
        policy = Collective(data.tasks, "zero", None, cfg=network(cfg.hidden))
        made_of = Distiller(cfg, {"zero": policy}, np.random.default_rng(0))
        made_of.use(Rows.of(data, None, data.tasks))
        return made_of

    @pytest.mark.parametrize(("loss", "share"), [("distil", 0.5), ("kl", 0.9)])  # kl is slow: it widens first
    def test_a_policy_comes_to_do_what_its_labels_say(self, loss: str, share: float):
        data = made([40] * 10)
        data = replace(data, expert_mean=np.tanh(2 * compress(data.obs)[:, :4]).astype(np.float32))
        data = replace(data, expert_log_std=np.full_like(data.expert_mean, -2.0))
        learner = self.distiller(self.cfg(loss=loss), data)
        losses = [float(learner.actor_update()["loss_zero"]) for _ in range(400)]
        assert np.mean(losses[-20:]) < 0.1 * losses[0]
        mean, log_std = learner.policies["zero"].proposal(
            learner.rows.inputs_of(learner.policies["zero"], np.arange(50))
        )
        assert np.abs(mean - data.expert_mean[:50]).mean() < share * np.abs(data.expert_mean[:50]).mean()
        assert loss == "kl" or np.abs(log_std + 2.0).mean() < 0.8  # from -9

    def test_tasks_are_drawn_alike_however_much_data_they_have(self):
        data = made([1, 99] * 3)  # toy-reach has 3 rows, toy-push 297
        learner = self.distiller(self.cfg(batch_size=4_000), data)
        row, task = learner.draw(learner.rows.starts, learner.rows.counts)
        assert task.float().mean() == pytest.approx(0.5, abs=0.03)
        number = data.task_of_rows[learner.rows.order[row.numpy()]]
        np.testing.assert_array_equal(number, task.numpy())

    def test_critics_are_fitted_to_the_value_of_this_state_and_action(self):
        """D9: where experts gave values, q* itself is the target, not that of the next state."""
        data = made([20] * 10)
        data = replace(data, q_target=(3.0 + data.obs[:, 0]).astype(np.float32))
        learner = self.distiller(self.cfg(lr=1e-2), data)
        for _ in range(600):
            learner.critic_update()
        policy = learner.policies["zero"]
        x = learner.rows.inputs_of(policy, np.arange(200))
        with torch.inference_mode():
            q = policy.sac.q(policy.sac.critic, torch.from_numpy(x)[None], torch.from_numpy(data.action[:200])[None])[0]
        assert np.abs(q.mean(0).numpy() - data.q_target[:200]).mean() < 0.5

    def test_without_values_a_critic_comes_to_the_discounted_sum(self):
        """A reward of 1 for ever is worth 1 / (1 - gamma)."""
        data = made([20] * 10)
        data = replace(data, reward=np.ones_like(data.reward), q_target=np.full_like(data.reward, np.nan))
        learner = self.distiller(self.cfg(gamma=0.9), data)
        for _ in range(300):
            learner.critic_update()
        policy = learner.policies["zero"]
        value = policy.value(learner.rows.inputs_of(policy, np.arange(100)))
        assert value.mean() == pytest.approx(10.0, rel=0.15)

    def test_several_data_sets_are_one(self, toy_data: Path, toy_encoder: Path, tmp_path: Path):
        """D10."""
        words = [*DEBUG, "--dir", str(tmp_path), "--name", "x", "--encoder", str(toy_encoder), "--data"]
        more = tmp_path / "more"
        assert main(f"record --preset debug --quiet --seed 5 --dir {tmp_path} --name more".split()) == 0
        assert main([*words, str(toy_data), str(more), "--rounds", "0"]) == 0

    def test_a_policy_of_a_nan_is_never_saved(
        self, toy_data: Path, toy_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ):  # fmt: skip
        update, calls = Distiller.actor_update, []

        def poisoned(self: Distiller) -> Any:
            calls.append(1)
            found = update(self)
            return {key: value * float("nan") for key, value in found.items()} if len(calls) == 45 else found

        monkeypatch.setattr(run_distill.Distiller, "actor_update", poisoned)
        assert distil(tmp_path, "x", toy_data, toy_encoder) == 3
        assert "last good checkpoint: step 30" in capsys.readouterr().err


def test_a_round_is_labelled_by_the_scripts_and_split_among_the_arms(toy_collective: Path):
    from collective import envs

    data = datasets.load(toy_collective / "rounds" / "1")
    np.testing.assert_array_equal(data.expert_mean, envs.script_actions(data.tasks, data.task_of_rows, data.obs))
    assert not data.executed_expert.any()
    assert len(data.obs) == 3 * 6 * 7  # tasks, envs of each, turns


def test_rounds_of_trained_experts_have_their_values(toy_data: Path, toy_encoder: Path, tmp_path: Path):
    worker = "train-worker --preset debug --tasks toy-reach toy-push toy-lift --quiet --name sac --dir"
    assert main([*worker.split(), str(tmp_path)]) == 0
    assert distil(tmp_path, "x", toy_data, toy_encoder, "--expert", str(tmp_path / "sac")) == 0
    data = datasets.load(tmp_path / "x" / "rounds" / "1")
    following = data.next_obs()
    for expert, rows in zip(experts.load_all(tmp_path / "sac", data.tasks), data.rows_of_task(), strict=True):
        np.testing.assert_allclose(data.expert_mean[rows], expert.proposal(data.obs[rows])[0], atol=1e-5)
        np.testing.assert_allclose(data.q_target[rows], expert.label(data.reward[rows], following[rows]), rtol=1e-5)


@pytest.mark.parametrize("gamma", ["0.99", "0.5"])
def test_experts_of_another_discount_are_refused(
    gamma: str, toy_data: Path, toy_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    worker = "train-worker --preset debug --tasks toy-reach toy-push toy-lift --quiet --name sac --gamma 0.5 --dir"
    assert main([*worker.split(), str(tmp_path)]) == 0
    same_discount = gamma == "0.5"
    for known in (toy_data, tmp_path / "sac"):
        options = ("--expert", str(tmp_path / "sac"), "--gamma", gamma, "--reencode", "--overwrite")
        assert distil(tmp_path, "x", known, toy_encoder, *options) == (0 if same_discount else 4)
        assert ("give --gamma 0.5" in capsys.readouterr().err) != same_discount


def test_critics_begin_near_the_known_values():
    """A reward of 1 and a value of 5 there, 1 / (1 - 0.9) where no value is known."""
    data = made([20] * 10)
    half = np.arange(len(data.obs)) < 100
    data = replace(data, reward=np.ones_like(data.reward), q_target=np.where(half, 5.0, np.nan).astype(np.float32))
    steps = Steps.of(Rows.of(data, None, data.tasks))
    known = int(steps.known.sum())
    assert steps.typical(0.9) == pytest.approx((5 * known + 10 * (len(steps.kept) - known)) / len(steps.kept))


def test_a_run_says_how_far_off_its_critics_are(toy_collective: Path):
    """On rows that were held out, once the critics have been fitted."""
    rows = [json.loads(line) for line in (toy_collective / "metrics.jsonl").read_text().splitlines()]
    found = [row for row in rows if "val_critic_mse_cls" in row]
    assert [row["step"] for row in found] == [80]
    assert all(0 < found[0][f"val_critic_mse_{arm}"] < 1e6 for arm in ("cls", "task-id", "zero"))


def test_processes_that_step_envs_change_nothing(
    toy_data: Path, toy_encoder: Path, toy_collective: Path, tmp_path: Path
):
    assert distil(tmp_path, "x", toy_data, toy_encoder, "--workers", "2") == 0
    same(final(tmp_path / "x"), final(toy_collective))


@pytest.mark.parametrize(("episodes", "tasks"), [(50, 5), (50, 11), (50, 25), (50, 50), (15, 5), (7, 3), (1, 1)])
def test_episodes_are_shared_out_so_that_each_goal_is_met_alike(episodes: int, tasks: int):
    copies = copies_of(episodes, tasks)
    assert copies * tasks <= 100
    plan = Plan(("toy-reach",) * tasks, copies, 0, 0, "cycle", 0, 10)
    goals = [goal_of(plan, env, episode) for env in range(copies) for episode in range(episodes // copies)]
    assert len(goals) == episodes
    if episodes == 50:
        assert sorted(goals) == [*range(50)]


def test_a_column_that_never_changes_is_only_shifted():
    states = np.full((200_000, 2), 0.6, np.float32)
    states[:, 1] = np.random.default_rng(0).normal(size=200_000)
    shift, scale = constants(np.zeros((200_000, 1), np.float32), states)
    np.testing.assert_allclose(shift, [0, 0.6, 0], atol=1e-2)
    np.testing.assert_allclose(scale, [1, 1, 1], atol=1e-2)


def test_a_run_does_not_go_on_with_other_data(
    toy_data: Path, toy_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "d"
    writer = datasets.Writer(folder, ("toy-reach", "toy-push", "toy-lift"), {"horizon": 60})
    writer.append(datasets.load(toy_data))
    assert distil(tmp_path, "x", folder, toy_encoder, "--rounds", "0") == 0
    assert main(["dataset", "split", str(folder), "--seed", "9"]) == 0
    assert distil(tmp_path, "x", folder, toy_encoder, "--rounds", "0") == 4
    assert "not what" in capsys.readouterr().err


def test_rounds_of_data_of_trained_experts_need_these_experts(
    toy_data: Path, toy_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    writer = datasets.Writer(tmp_path / "d", ("toy-reach", "toy-push", "toy-lift"), {"horizon": 60, "expert": "sac"})
    writer.append(datasets.load(toy_data))
    assert distil(tmp_path, "x", tmp_path / "d", toy_encoder) == 4
    assert "--expert" in capsys.readouterr().err
    assert distil(tmp_path, "x", tmp_path / "d", toy_encoder, "--expert", str(tmp_path / "nobody")) == 4
    assert "collective train-worker" in capsys.readouterr().err


def test_the_seed_decides_drawn_actions(toy_collective: Path, capsys: pytest.CaptureFixture[str]):
    words = f"evaluate --run {toy_collective} --episodes 2 --horizon 8 --quiet --json --arms zero --stochastic --seed"
    found = []
    for seed in (1, 2, 1):
        assert main([*words.split(), str(seed)]) == 0
        found.append(json.loads(capsys.readouterr().out)["policies"]["zero"]["tasks"]["toy-push"]["return_mean"])
    assert found[0] == found[2] != found[1]


def test_evaluation_scores_every_arm_on_every_goal_once(toy_collective: Path, capsys: pytest.CaptureFixture[str]):
    words = f"evaluate --run {toy_collective} --episodes 50 --horizon 12 --quiet --json --arms zero task-id"
    assert main(words.split()) == 0
    found = json.loads(capsys.readouterr().out)
    assert [*found["policies"]] == ["zero", "task-id"]
    assert found["actions"] == "means"
    assert found["seen_goals"] is False
    for result in found["policies"].values():
        for row in result["tasks"].values():
            assert row["episodes"] == 50
            assert row["low"] <= row["success"] <= row["high"]
    text = (toy_collective / "eval.csv").read_text()
    assert text.count("\n") == 1 + 2 * 3


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("evaluate", 2, "collective distill"),
        ("evaluate --run nowhere", 4, "collective distill"),
        ("evaluate --policy expert --run nowhere", 4, "collective train-worker"),
        ("evaluate --policy scripted", 2, "--tasks"),
        ("evaluate --run RUN --arms best", 2, "not best"),
        ("evaluate --run RUN --tasks reach-v3 --arms task-id", 2, "task-id knows"),
    ],
)
def test_what_cannot_be_scored_is_said(
    words: str, code: int, said: str, toy_collective: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(words.replace("RUN", str(toy_collective)).split()) == code
    assert said in capsys.readouterr().err
