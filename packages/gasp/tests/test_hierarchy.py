"""Bookkeeping of skills (oracle 8, defects D1 to D3) and what is stored of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gasp.hierarchy import Experience, Rollout, discount_of
from rlcore.vecenv import VecStep

Rows = list[dict[str, Any]]


class Scripted:
    """N envs that observe their step number t, from 100 k in episode k, and pay t at step t, from 0.

    ends: step after which an episode ends, by env; `terminates` says how.
    """

    def __init__(self, ends: list[int], terminates: list[bool]) -> None:
        self.ends, self.terminates = np.array(ends), np.array(terminates)
        self.t, self.episode = np.zeros((2, len(ends)), int)

    @property
    def obs(self) -> np.ndarray[Any, Any]:
        return (100.0 * self.episode + self.t)[:, None].astype(np.float32)

    def step(self) -> VecStep:
        reward = self.t.astype(np.float32)
        self.t += 1
        final, done = self.obs, self.t == self.ends
        self.episode[done] += 1
        self.t[done] = 0
        return VecStep(self.obs, reward, done & self.terminates, done & ~self.terminates, final, {})


def play(env: Scripted, steps: int, horizon: int = 3, gamma: float = 1.0) -> Rows:
    """Skill number i of an env is i; rows of all envs in the order they came."""
    n = len(env.ends)
    rollout, decisions, rows = Rollout(n, 1, 1, horizon, gamma), np.zeros(n), []
    for _ in range(steps):
        if (envs := rollout.asking()).size:
            rollout.begin(envs, env.obs[envs], decisions[envs, None])
            decisions[envs] += 1
        if (ended := rollout.advance(env.step())) is not None:
            rows += [{k: v[i] for k, v in ended.items()} for i in range(len(ended["env"]))]
    return rows


@pytest.mark.parametrize("terminates", [False, True])
def test_oracle_8(terminates: bool):
    """Reward t at step t, H = 3, seven steps: R = (0+1+2, 3+4+5, 6); only a termination ends the bootstrap."""
    rows = play(Scripted([7], [terminates]), steps=7)
    assert [row["reward"] for row in rows] == [3, 12, 6]
    assert [float(row["obs"][0]) for row in rows] == [0, 3, 6]  # D1: the state at the decision,
    assert [float(row["next_obs"][0]) for row in rows] == [3, 6, 7]  # at the next one, and the true last one
    assert [float(row["z"][0]) for row in rows] == [0, 1, 2]
    assert [bool(row["terminated"]) for row in rows] == [False, False, terminates]  # D2
    assert [int(row["steps"]) for row in rows] == [3, 3, 1]  # D3
    assert [bool(row["done"]) for row in rows] == [False, False, True]
    terminated, steps = (torch.tensor(np.array([row[k] for row in rows])) for k in ("terminated", "steps"))
    expected = torch.tensor([0.9, 0.9, 0.0 if terminates else 0.9 ** (1 / 3)])
    torch.testing.assert_close(discount_of(terminated, steps, 0.9, 3), expected)


def test_an_episode_that_ends_with_a_skill():
    rows = play(Scripted([6], [True]), steps=8)
    assert [float(row["reward"]) for row in rows] == [3, 12]
    assert [bool(row["terminated"]) for row in rows] == [False, True]


def test_the_next_episode_begins_with_a_skill_of_its_own():
    rows = play(Scripted([4], [False]), steps=8)
    assert [float(row["obs"][0]) for row in rows] == [0, 3, 100, 103]
    assert [float(row["next_obs"][0]) for row in rows] == [3, 4, 103, 104]


def test_envs_keep_their_own_time():
    """Each env of several has the transitions that it has alone."""
    ends, terminates = [7, 3, 5], [True, False, True]
    together = play(Scripted(ends, terminates), steps=20)
    for i in range(3):
        alone = play(Scripted([ends[i]], [terminates[i]]), steps=20)
        mine = [row for row in together if row["env"] == i]
        assert [{k: str(v) for k, v in row.items() if k != "env"} for row in mine] == [
            {k: str(v) for k, v in row.items() if k != "env"} for row in alone
        ]


def test_semi_markov_rewards_are_discounted_within_a_skill():
    rows = play(Scripted([7], [False]), steps=7, gamma=0.5)
    assert [float(row["reward"]) for row in rows] == [0 + 0.5 + 0.25 * 2, 3 + 0.5 * 4 + 0.25 * 5, 6]
    torch.testing.assert_close(
        discount_of(torch.tensor([False]), torch.tensor([3]), 0.5, 1), torch.tensor([0.125])
    )  # gamma^n


def test_a_skill_cannot_be_begun_in_the_middle_of_another():
    rollout = Rollout(1, 1, 1, 3)
    rollout.begin(rollout.asking(), np.zeros((1, 1)), np.zeros((1, 1)))
    with pytest.raises(AssertionError):
        rollout.begin(np.array([0]), np.zeros((1, 1)), np.zeros((1, 1)))
    rollout.over[:] = True
    with pytest.raises(AssertionError, match="missing"):
        rollout.advance(Scripted([7], [False]).step())


def test_a_saved_rollout_goes_on():
    env, whole = Scripted([7], [True]), Rollout(1, 1, 1, 3)
    whole.begin(whole.asking(), env.obs, np.ones((1, 1)))
    assert whole.advance(env.step()) is None
    halves = Rollout(1, 1, 1, 3)
    halves.load_state_dict(whole.state_dict())
    for _ in range(2):
        step = env.step()
        one, two = whole.advance(step), halves.advance(step)
    assert one is not None
    assert two is not None
    assert {k: v.tolist() for k, v in one.items()} == {k: v.tolist() for k, v in two.items()}


def filled(guided: bool) -> tuple[Experience, Rows]:
    rows = play(Scripted([7, 4], [True, False]), steps=40)
    made = Experience(64, 1, 1, gamma=0.9, horizon=3, guided=guided, rng=np.random.default_rng(0))
    for row in rows:
        one = {k: np.asarray(v)[None] for k, v in row.items()}
        said = {"proposal": np.full((1, 2), one["obs"]), "next_proposal": np.full((1, 2), one["next_obs"])}
        made.add({**one, **(said if guided else {})})
    return made, rows


@pytest.mark.parametrize("guided", [False, True])
def test_what_is_stored_comes_back(guided: bool, tmp_path: Path):
    made, rows = filled(guided)
    assert len(made) == len(rows)
    batch = {k: v.clone() for k, v in made.sample(200).items()}
    known = {(float(r["obs"][0]), float(r["next_obs"][0]), float(r["reward"])) for r in rows}
    assert set(zip(*(batch[k].flatten().tolist() for k in ("obs", "next_obs", "reward")))) == known
    assert (batch["discount"] == 0).any()
    if guided:
        assert torch.equal(batch["proposal"], batch["obs"].expand(-1, 2))
        assert torch.equal(batch["next_proposal"], batch["next_obs"].expand(-1, 2))
    cursor = made.save(tmp_path)
    after = {k: v.clone() for k, v in made.sample(50).items()}
    again, _ = filled(guided)
    again.load(tmp_path, cursor)
    assert all(torch.equal(v, after[k]) for k, v in again.sample(50).items())
    assert sorted(again.kept()["obs"][:, 0]) == sorted(float(r["obs"][0]) for r in rows)
