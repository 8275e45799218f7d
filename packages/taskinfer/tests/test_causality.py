"""The causality tests themselves, on agents whose beliefs are planted: they must tell a cause from a coincidence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rlcore.errors import UsageError
from taskinfer.agent import Agent
from taskinfer.analysis import causality
from taskinfer.cli import main
from taskinfer.config import ToyConfig
from taskinfer.play import code_of, play
from taskinfer.run.saved import open_toy
from taskinfer.tasks import Family, Tasks, parse_families, parse_tasks


@pytest.fixture
def agent(toy_run: Path) -> Agent:
    return open_toy(toy_run).agent


@pytest.fixture
def planted(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> Agent:
    """Goes forward for a step; then believes the task's sign, by what that step earned, and goes that way."""
    update = agent.inference.update

    def believe(stream, s, r, s2, alive=None):
        first, mean = stream.belief.count[:, None] == 0, stream.belief.mean
        belief = update(stream, s, r, s2, alive)
        sign = torch.as_tensor(np.sign(1.0 + r), dtype=torch.float32)[:, None]
        stream.belief = belief._replace(mean=torch.where(first, sign.expand_as(mean), mean))
        return stream.belief

    monkeypatch.setattr(agent.inference, "update", believe)
    begin = agent.inference.stream

    def stream(num: int):
        made = begin(num)
        made.belief = made.belief._replace(mean=torch.ones_like(made.belief.mean))
        return made

    monkeypatch.setattr(agent.inference, "stream", stream)
    monkeypatch.setattr(agent, "act", lambda obs, code, deterministic: 0.1 * code[:, :1].numpy())
    return agent


def test_a_belief_that_steers_is_found_to(planted: Agent):
    found = causality.swapped_contexts(planted, 5, 0)
    assert found == {"swapped": 1.0, "apart": 1.0, "pairs": 10, "swapped_goal": 1.0, "swapped_velocity": 1.0}
    returns = causality.zeroed_belief(planted, parse_tasks("goal:2,-2;velocity:0.5,-0.5"), 0)
    assert returns["zeroed_return"] == pytest.approx(-planted.cfg.horizon, rel=0.05)  # it stands still
    assert returns["zeroed_worse_by"] > 5
    assert returns["zeroed_worse_by"] == returns["return"] - returns["zeroed_return"]


def test_a_policy_that_peeks_at_the_truth_is_not_found_to_swap(planted: Agent, monkeypatch: pytest.MonkeyPatch):
    """It goes the right ways whatever it is told."""
    first = causality.opposite_tasks(planted.inference.families, 5)[0]
    way = np.sign(first.spec)[:, None].astype(np.float32)
    monkeypatch.setattr(planted, "act", lambda obs, code, deterministic: 0.1 * way)
    found = causality.swapped_contexts(planted, 5, 0)
    assert (found["apart"], found["swapped"]) == (1.0, 0.0)
    monkeypatch.setattr(planted, "act", lambda obs, code, deterministic: -0.1 * way)  # ever the wrong way
    found = causality.swapped_contexts(planted, 5, 0)
    assert (found["apart"], found["swapped"]) == (0.0, 0.0)


def test_pairs_are_mirror_images():
    tasks, kinds = causality.opposite_tasks(parse_families("goal,velocity_forward,stand"), 3)
    assert kinds == ["goal"] * 3 + ["stand"] * 3
    assert (tasks.spec[:6] == -tasks.spec[6:]).all()
    assert (tasks.family[[0, 3, 6, 9]] == [2, 4, 3, 5]).all()
    assert tasks.spec[:3].tolist() == [7, 13, 19]
    with pytest.raises(UsageError, match="no two opposite families"):
        causality.opposite_tasks([Family.goal_forward, Family.jump], 3)


def test_beliefs_do_not_read_actions(agent: Agent, monkeypatch: pytest.MonkeyPatch):
    tasks = parse_tasks("goal:2,-2;velocity:1")
    lived = play(agent, lambda t: tasks, 30, 0)
    assert causality.actions_matter(agent.inference, lived, 0) == 0
    encode = agent.inference.encode

    def peeking(episodes):
        belief = encode(episodes)
        return belief._replace(mean=belief.mean + 1e-7 * episodes.action.sum(1, keepdim=True))

    monkeypatch.setattr(agent.inference, "encode", peeking)
    assert causality.actions_matter(agent.inference, lived, 0) > 100


def test_streamed_is_batched_whatever_ends_beside_it(agent: Agent, monkeypatch: pytest.MonkeyPatch):
    tasks = Tasks.of(parse_tasks("goal:2,-2;velocity:1").single() * 10)
    lived = play(agent, lambda t: tasks, 30, 0)
    assert causality.stream_gap(agent.inference, lived, 0) < 1e-5
    update = agent.inference.update

    def compacted(stream, s, r, s2, alive):  # D8: those that are left move up into the slots of the ended
        order = np.argsort(~alive, kind="stable")
        return update(stream, s[order], r[order], s2[order])

    monkeypatch.setattr(agent.inference, "update", compacted)
    assert causality.stream_gap(agent.inference, lived, 0) > 1e-3


def test_what_is_played_is_what_the_agents_own_rollout_is(agent: Agent):
    """Told what its arm tells it, the recorded episode is that of `toy train`'s evaluation, and its beliefs, too."""
    from taskinfer.envs.toy import VectorToy
    from taskinfer.run.rollout import roll

    tasks = parse_tasks("goal:2,-2;velocity:1")
    one = play(agent, lambda t: tasks, 25, 5)
    two = roll(VectorToy("toy1d", tasks, 5, horizon=25), agent, deterministic=True)
    for name in ("obs", "action", "reward"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    np.testing.assert_array_equal(one.believed()[:, 1:], two.family[:, 1:])
    assert one.known()[0].mean() == pytest.approx((two.family[:, 1:] == tasks.family[:, None]).mean())
    same = play(agent, lambda t: tasks, 25, 5, lambda belief, truth: code_of(agent, belief, truth))
    np.testing.assert_array_equal(same.obs, one.obs)


def test_the_command_writes_its_numbers(toy_run: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["eval", "causality", str(toy_run), "--pairs", "2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert json.loads((toy_run / "analysis" / "causality.json").read_text()) == report
    assert report["noise_changes"] == 0
    assert report["pairs"] == 4
    cfg = ToyConfig(arm="oracle")
    told = Agent(cfg, 2, 1, parse_families(cfg.tasks), 0, torch.device("cpu"))
    with pytest.raises(UsageError, match="one whose arm is oracle"):
        causality.causality(told, parse_tasks("goal:1"), 0)
