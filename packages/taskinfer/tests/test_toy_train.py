"""The toy's agent and its training loop, end to end on a handful of points."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from stopped_runs import evaluation_is_given_up, final, same

from rlcore.checkpoint import load
from rlcore.config import from_dict
from rlcore.errors import UsageError
from rlcore.run import Run
from taskinfer.agent import Agent, Aimless
from taskinfer.cli import main
from taskinfer.config import ToyConfig
from taskinfer.context import Episodes
from taskinfer.data import EpisodeRing
from taskinfer.envs.toy import VectorToy
from taskinfer.play import play
from taskinfer.relabel import other_targets
from taskinfer.run.rollout import Rollout, roll, score
from taskinfer.run.toy import annealed
from taskinfer.run.toy import learn as learn_epoch
from taskinfer.run.toy import train as learn
from taskinfer.tasks import Family, Task, Tasks, parse_families

ARMS = ("inferred", "oracle", "none")


def tiny(**changes) -> ToyConfig:
    return from_dict(ToyConfig, {**ToyConfig.PRESETS["debug"], **changes}, "test")


def two() -> Tasks:
    return Tasks.of([Task(Family.goal_forward, 2.0), Task(Family.velocity_backward, -1.0)])


def agent(arm: str, seed: int = 0, **changes) -> Agent:
    cfg = tiny(arm=arm, **changes)
    return Agent(cfg, 2, 1, parse_families("goal,velocity"), seed, torch.device("cpu"))


def train(folder: Path, *options: str) -> int:
    return main(["toy", "train", "--preset", "debug", "--dir", str(folder), "--quiet", *options])


@pytest.mark.parametrize("arm", ARMS)
def test_each_arm_trains_and_writes_what_users_look_for(arm: str, tmp_path: Path):
    assert train(tmp_path, "--name", "a", "--arm", arm) == 0
    folder = tmp_path / "a"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if row["kind"] == "eval"][-1]
    assert {"train_return", "test_return", "test_success", "test_return_goal_forward"} <= set(last)
    assert ("test_family_acc_5" in last) == ("purity" in last) == (arm == "inferred")
    header = (folder / "progress.csv").read_text().splitlines()[0].split(",")
    assert {"critic_loss", "alpha", "test_return"} <= set(header)
    assert ("loss_reward" in header) == (arm == "inferred")
    tasks = json.loads((folder / "task_dict.json").read_text())
    assert [len(tasks[split]) for split in ("train", "eval")] == [4, 4]
    assert load(folder / "checkpoints" / "best.pt")["parts"]["agent"]["arm"] == arm


def test_what_a_policy_is_told_is_the_arms():
    for arm, size in zip(ARMS, (8, 8, 0)):
        a = agent(arm)
        belief = a.inference.stream(2).belief
        code = a.code(belief, torch.tensor([2, 1]), torch.tensor([2.0, -1.0]))
        assert code.shape == (2, size)
        if arm == "oracle":
            ln = float(np.log(2))
            assert code[1].tolist() == pytest.approx([0, 1, 0, 0, 0, -ln, 0, 0])
        if arm == "inferred":
            assert torch.equal(code, belief.params())


def test_the_policys_inputs_are_those_it_acted_on():
    """What is learnt from at step t is what was acted on there; the next input holds the next belief."""
    a = agent("inferred")
    seen: list[np.ndarray] = []
    act = a.sac.act
    a.sac.act = lambda x, d: (seen.append(x), act(x, d))[1]  # type: ignore[method-assign]
    env = VectorToy("toy1d", two(), 0, horizon=20)
    rollout = roll(env, a)
    inputs, *_ = a.experience(Episodes(**{k: torch.as_tensor(v) for k, v in rollout.fields().items()}))
    np.testing.assert_allclose(inputs[:, :-1, : a.sac.seen].numpy(), np.stack(seen, 1), atol=1e-5)
    given: list[dict] = []
    a.sac.update = lambda batch: given.append(batch) or {}  # type: ignore[method-assign, func-returns-value]
    a.learn_policy(a.experience(Episodes(**{k: torch.as_tensor(v) for k, v in rollout.fields().items()})))
    flat = inputs.flatten(0, 1)
    at = (given[0]["obs"][:, None] == flat).all(-1).int().argmax(1)  # which row of which episode
    assert torch.equal(flat[at + 1], given[0]["next_obs"])
    lived = torch.as_tensor(rollout.reward)[at // 21, at % 21]
    torch.testing.assert_close(given[0]["reward"], -(1 - lived).log())  # symlog of what is never above 0
    plain = agent("inferred", symlog_reward=False)
    plain.sac.update = given.append  # type: ignore[method-assign, assignment]
    plain.learn_policy(plain.experience(Episodes(**{k: torch.as_tensor(v) for k, v in rollout.fields().items()})))
    assert torch.equal(given[-1]["reward"], lived)  # the same rows: the same seed draws them
    assert (at % 21 < 20).all()
    assert rollout.family[:, 0].tolist() == [0, 0]
    assert set(rollout.family[:, 1:].flatten().tolist()) <= {0, 1, 2, 3}


def test_critics_know_the_true_task_and_the_policy_does_not():
    """Asymmetric: the truth comes last in the inputs, for critics alone; off, they see what the policy sees."""
    a, plain, oracle = agent("inferred"), agent("inferred", informed_critics=False), agent("oracle")
    assert (a.sac.seen, a.sac.obs_dim) == (10, 18)
    assert plain.sac.seen == plain.sac.obs_dim == oracle.sac.seen == oracle.sac.obs_dim == 10
    rollout = roll(VectorToy("toy1d", two(), 0, horizon=20), a)
    episodes = Episodes(**{k: torch.as_tensor(v) for k, v in rollout.fields().items()})
    inputs = a.experience(episodes)[0]
    told = oracle.code(None, episodes.family, episodes.spec)
    assert torch.equal(inputs[..., 10:], told[:, None].expand(-1, 21, -1))
    assert torch.equal(inputs[..., :10], plain.experience(episodes)[0])
    lied = a.experience(episodes._replace(spec=2 * episodes.spec))[0]
    noise = torch.zeros(1, 2 * 21, 1)
    actions = [a.sac.policy(x.flatten(0, 1)[None], noise).action for x in (inputs, lied)]
    assert torch.equal(*actions)


def test_other_targets_reach_beliefs_critics_and_rewards():
    a = agent("inferred")
    rollout = roll(VectorToy("toy1d", two(), 0, horizon=20), a)
    lived = Episodes(**{k: torch.as_tensor(v) for k, v in rollout.fields().items()})
    other = other_targets(lived, None, np.random.default_rng(0), toy="toy1d", share=1.0)
    inputs, _, reward, _ = a.experience(other)
    told = agent("oracle").code(None, lived.family, other.spec)
    assert torch.equal(inputs[..., 10:], told[:, None].expand(-1, 21, -1))
    assert torch.equal(inputs[..., 2:10], a.inference.encode(other).params())
    assert not torch.equal(inputs[:, 1:, 2:10], a.experience(lived)[0][:, 1:, 2:10])
    assert torch.equal(reward, other.reward)


@pytest.mark.parametrize(
    "options",
    ["--toy toy1d-multi --tasks goal,velocity,stand,jump,velocity_plain --num-train 8 --num-eval 8",
     "--toy toy2d --num-train 8 --noise-std 0.1 --inference.prior gmm",
     "--no-informed-critics --no-symlog-reward --relabel 0",
     "--inference.no-symlog --inference.encoder mlp --inference.window 50", "--inference.context recurrent",
     "--inference.encoder gru --inference.context recurrent --inference.prior gauss"],
)  # fmt: skip
def test_options_train(options: str, tmp_path: Path):
    assert train(tmp_path, "--name", "a", "--total-steps", "600", *options.split()) == 0
    assert main(["toy", "eval", "--name", "a", "--dir", str(tmp_path), "--repeats", "1"]) == 0


@pytest.mark.parametrize("arm", ["inferred", "oracle"])
def test_other_targets_are_for_the_arm_that_infers(arm: str, tmp_path: Path):
    for share in ("0", "0.5"):
        assert train(tmp_path, "--name", share, "--arm", arm, "--relabel", share) == 0
    one, two = (final(tmp_path / share)["agent"]["sac"]["actor"] for share in ("0", "0.5"))
    assert torch.equal(one, two) == (arm == "oracle")


def test_the_policys_loss_never_reaches_the_encoder():
    """D7, too: target critics begin as the critics, and follow them slowly."""
    a = agent("inferred")
    assert torch.equal(a.sac.target.parameters, a.sac.critic.parameters)
    rollout = roll(VectorToy("toy1d", two(), 0, horizon=20), a)
    episodes = Episodes(**{k: torch.as_tensor(v) for k, v in rollout.fields().items()})
    before = [p.clone() for p in a.inference.model.parameters()]
    target = a.sac.target.parameters.clone()
    a.learn_policy(a.experience(episodes))
    assert all(torch.equal(p, q) for p, q in zip(a.inference.model.parameters(), before))
    moved = (a.sac.target.parameters - target).norm() / (a.sac.critic.parameters - target).norm()
    assert float(moved.detach()) == pytest.approx(a.cfg.policy.tau, rel=1e-3)


def test_aimless_points_travel():
    env = VectorToy("toy1d", Tasks.of([Task(Family.goal_forward, 2.0)] * 200), 0)
    rollout = roll(env, None, aimless=Aimless(200, 1, np.random.default_rng(0)).act)
    assert np.abs(rollout.obs[:, :, 0]).max(1).mean() > 8.0
    assert np.abs(rollout.action).max() <= 1.0


def test_scores_by_hand():
    tasks = two()
    obs, error = np.full((2, 11, 2), 9.0, np.float32), np.array([[0.2] * 10, [0.5] * 10], np.float32)
    reward = np.array([[-1.0] * 10, [-2.0] * 10], np.float32)
    family = np.zeros((2, 11), np.int64)
    family[:, 5] = [2, 0]
    row = score(Rollout(tasks, obs, np.zeros((2, 10, 1)), reward, error, family), "test", believed=True)
    assert row["test_return"] == -15.0
    assert row["test_return_velocity_backward"] == -20.0
    assert row["test_success"] == 0.5
    assert row["test_family_acc_5"] == 0.5
    assert "test_family_acc_20" not in row


@pytest.mark.parametrize("arm", ARMS)
def test_training_and_evaluation_play_alike(arm: str):
    """Two loops, `roll` and `play`: the same episodes. Errors are of where the points are, not of what they observe."""
    player, tasks = agent(arm, noise_std=0.3), two()
    lived = play(player, lambda t: tasks, 20, 5)
    rolled = roll(VectorToy("toy1d", tasks, 5, horizon=20, noise_std=0.3), player, deterministic=True)
    for name in ("obs", "action", "reward", "error"):
        np.testing.assert_array_equal(getattr(rolled, name), getattr(lived, name), name)
    np.testing.assert_allclose(rolled.error, -rolled.reward * tasks.normaliser[:, None], rtol=1e-5)
    if arm == "inferred":
        np.testing.assert_array_equal(rolled.family[:, 1:], lived.believed()[:, 1:])


def test_beliefs_are_encoded_once_an_epoch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """However many updates the policy makes; those that infer nothing never encode."""
    calls = {name: count_encodings(name, monkeypatch, tmp_path) for name in ARMS}
    assert calls == {"inferred": [(True, 8)], "oracle": [], "none": []}


def count_encodings(arm: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[tuple[bool, int]]:
    """(by the slow encoder, episodes) of each call in one epoch of learning, the prior's fit apart."""
    player = agent(arm)
    ring = EpisodeRing(player.cfg.ring, 20, 2, 1, np.random.default_rng(0), torch.device("cpu"))
    env = VectorToy("toy1d", two(), 0, horizon=20)
    ring.add(**roll(env, None, aimless=Aimless(2, 1, np.random.default_rng(0)).act).fields())
    seen: list[tuple[bool, int]] = []
    encode = player.inference.encode
    player.inference.encode = lambda e, slow=True: (seen.append((slow, len(e.length))), encode(e, slow))[1]  # type: ignore
    with Run.open(replace(player.cfg, name=arm, dir=folder), program="test", total=1) as run:
        learn_epoch(run, 0, 2, player, ring)
    return [call for call in seen if call[0]]


@pytest.mark.parametrize("arm", ["inferred", "oracle"])
def test_a_run_that_stopped_goes_on_bit_for_bit(arm: str, tmp_path: Path):
    options = ("--arm", arm, "--toy", "toy1d", "--noise-std", "0.1")
    assert train(tmp_path, "--name", "whole", *options) == 0
    assert train(tmp_path, "--name", "parts", *options, "--total-steps", "320") == 0
    assert train(tmp_path, "--name", "parts", *options, "--total-steps", "600") == 0
    same(final(tmp_path / "whole"), final(tmp_path / "parts"))


def test_a_stop_in_an_evaluation_does_not_wait_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def command(name: str, code: int) -> Path:
        assert train(tmp_path, "--name", name) == code
        return tmp_path / name

    evaluation_is_given_up(command, "taskinfer.run.toy.score", monkeypatch, at=2)


def test_evaluating_more_often_changes_nothing(tmp_path: Path):
    assert train(tmp_path, "--name", "often", "--eval-every", "80") == 0
    assert train(tmp_path, "--name", "rarely", "--eval-every", "480") == 0
    a, b = (load(tmp_path / n / "checkpoints" / "last.pt")["parts"]["agent"]["sac"] for n in ("often", "rarely"))
    assert torch.equal(a["actor"], b["actor"])


@pytest.mark.parametrize(
    ("options", "said"),
    [(("--toy", "toy1"), "did you mean toy1d"), (("--tasks", "gaol"), "did you mean goal"),
     (("--tasks", "jump"), "toy1d has no vz"), (("--num-train", "2"), "cannot cover 4 families"),
     (("--inference.encoder", "gruu"), "invalid choice"),
     (("--inference.encoder", "mlp", "--inference.context", "recurrent"), "add --inference.context window"),
     (("--relabel", "2"), "relabel"), (("--gamma", "1.5"), "gamma")],
)  # fmt: skip
def test_mistakes_are_one_line(options: tuple[str, ...], said: str, tmp_path: Path, capsys):
    assert train(tmp_path, "--name", "x", *options) == 2
    text = capsys.readouterr().err
    assert said in text
    assert text.count("\n") == 1
    assert not list(tmp_path.iterdir())  # nothing that would be in the way of the corrected command


@pytest.mark.learn
def test_the_truth_is_worth_something(tmp_path: Path):
    """Fifteen epochs of the oracle's arm; standing still is -200 on every task."""
    cfg = replace(
        ToyConfig(), arm="oracle", total_steps=15 * 16_000, warmup_rounds=2, dir=tmp_path, name="o", quiet=True,
        eval_every=120_000,
    )  # fmt: skip
    folder = learn(cfg)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row for row in rows if row["kind"] == "eval"][-1]["test_return"] > -60


def test_a_run_is_scored_on_its_held_out_tasks_from_fresh_starts(tmp_path: Path, capsys):
    assert train(tmp_path, "--name", "a") == 0
    capsys.readouterr()
    argv = ["toy", "eval", "--name", "a", "--dir", str(tmp_path), "--repeats", "2"]
    assert main([*argv, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((tmp_path / "a" / "eval.json").read_text())
    assert len(report["returns"]) == 8
    assert report["return"] == pytest.approx(np.mean(report["returns"]), abs=1e-3)
    held_out = json.loads((tmp_path / "a" / "task_dict.json").read_text())["eval"]
    assert report["tasks_played"][:4] == [str(Task(Family[t["family"]], t["spec"])) for t in held_out]
    assert {"success", "family_acc_5", "purity", "return_goal_forward"} <= set(report)
    assert main([*argv, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == report
    assert main([*argv, "--seed-base", "5"]) == 0
    assert "family known" in capsys.readouterr().out
    assert json.loads((tmp_path / "a" / "eval.json").read_text())["returns"] != report["returns"]


def test_the_encoder_comes_to_rest():
    """By hand; and a run that is past the end changes no weight of the encoder any more."""
    assert [annealed(step, 100, 300) for step in (0, 100, 200, 300, 400)] == [1.0, 1.0, 0.5, 0.0, 0.0]
    with pytest.raises(UsageError, match="anneal"):
        ToyConfig(name="x", anneal=(5, 5))


def test_a_run_past_the_end_of_the_descent_leaves_the_encoder_as_it_is(tmp_path: Path):
    saved = {}
    for total in (400, 600):
        learn(tiny(name="rest", dir=tmp_path, total_steps=total, anneal=(80, 240), save_every=80, quiet=True))
        saved[total] = final(tmp_path / "rest")["agent"]
    before, after = saved[400]["inference"], saved[600]["inference"]
    assert after["updates"] > before["updates"]
    same(before["model"], after["model"])


def test_some_may_act_without_noise_beside_others_with_it():
    player, obs = agent("none"), np.ones((3, 2), np.float32)
    code = torch.zeros(3, 0)
    greedy = player.act(obs, code, True)
    mixed = player.act(obs, code, np.array([True, False, True]))
    np.testing.assert_array_equal(mixed[[0, 2]], greedy[[0, 2]])
    assert (mixed[1] != greedy[1]).all()
