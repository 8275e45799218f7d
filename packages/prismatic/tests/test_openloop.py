"""The measures of `prismatic diagnose`, by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from prismatic.agent import Agent
from prismatic.analysis import openloop
from prismatic.analysis.gates import block_report, by_expert, usage
from prismatic.analysis.openloop import Episode, Rolled, add_up, measures, ratios, window_starts
from prismatic.analysis.rolling import roll
from prismatic.config import PRESETS, TaskSpec, TrainConfig

EPISODE = [0, 0, 1, 1]
SEEN = np.array([[0.0, 2.0, 4.0, 6.0], [1.0, 3.0, 5.0, 7.0]])  # (H, R) of one feature: variance 5 at both horizons
TRUTH = np.array([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 4.0]])  # rewards, of mean 2


def rolled(predicted: Any, reward: Any = TRUTH, start: Any = 0.0) -> Rolled:
    """Two windows in each of two episodes, of a model with one latent feature."""
    episode = np.array(EPISODE)
    z_sum = np.stack([SEEN[:, episode == e].sum(1) for e in (0, 1)])[..., None]
    z_square = np.stack([(SEEN[:, episode == e] ** 2).sum(1) for e in (0, 1)])
    error, static = (np.broadcast_to((x - SEEN) ** 2, SEEN.shape) for x in (predicted, start))
    return Rolled(episode, error, static, np.broadcast_to(reward, TRUTH.shape), TRUTH, z_sum, z_square, {})


def test_a_perfect_model_scores_0():
    found = measures(add_up(rolled(SEEN)))
    for key in ("latent_error", "reward_rmse", "return_rmse"):
        np.testing.assert_allclose(found[key], [0, 0], atol=1e-12)


def test_predicting_the_mean_scores_1():
    found = measures(add_up(rolled(SEEN.mean(1, keepdims=True), reward=2.0)))
    np.testing.assert_allclose(found["latent_error"], [1, 1])
    for key in ("reward", "return"):
        np.testing.assert_allclose(found[f"{key}_rmse"], found[f"{key}_mean"])


def test_the_guesses_to_beat_by_hand():
    found = measures(add_up(rolled(SEEN, start=np.array([[1.0, 1.0, 5.0, 5.0]]))))
    # horizon 1: (1 + 1 + 1 + 1) / 4 / 5; horizon 2: (0 + 4 + 0 + 4) / 4 / 5
    np.testing.assert_allclose(found["latent_static"], [0.2, 0.4])
    np.testing.assert_allclose(found["reward_mean"], [2, 2])  # the mean of all rewards is 2
    np.testing.assert_allclose(found["return_mean"], [2, 4])


def test_return_errors_are_errors_of_sums():
    wrong = TRUTH + np.array([[1.0, 1.0, 1.0, 1.0], [-1.0, -1.0, 1.0, 1.0]])
    found = measures(add_up(rolled(SEEN, reward=wrong)))
    np.testing.assert_allclose(found["reward_rmse"], [1, 1])
    np.testing.assert_allclose(found["return_rmse"], [1, math.sqrt((0 + 0 + 4 + 4) / 4)])


def test_weights_are_episodes_taken_so_often():
    sums = add_up(rolled(SEEN - 1))
    found = measures(sums, np.array([[1.0, 1.0], [2.0, 0.0]]))
    # episode 0 alone has the states 0 and 2: variance 1
    np.testing.assert_allclose(found["latent_error"], [[0.2, 0.2], [1, 1]])


def test_a_latent_state_that_never_changes_has_no_score():
    still = replace(rolled(SEEN), z_sum=np.full((2, 2, 1), 2.0), z_square=np.full((2, 2), 2.0))
    assert np.isnan(measures(add_up(still))["latent_error"]).all()


def test_ratios():
    one, double = add_up(rolled(SEEN - 1, TRUTH + 1)), add_up(rolled(SEEN - 2, TRUTH + 2))
    for second, latent, total in ((one, 1.0, 1.0), (double, 4.0, 2.0)):
        found = ratios(one, second, ("latent_error", "return_rmse"))
        for key, expected in (("latent_error", latent), ("return_rmse", total)):
            for name in ("ratio", "low", "high"):
                np.testing.assert_array_almost_equal_nulp(found[key][name], np.full(2, expected), 4)
    worse_in_one = TRUTH + np.array([1.0, 1.0, 3.0, 3.0])
    row = ratios(one, add_up(rolled(SEEN, worse_in_one)), ("return_rmse",))["return_rmse"]
    np.testing.assert_allclose(row["low"], [1, 1])  # two episodes: now and then the first one is drawn twice
    np.testing.assert_allclose(row["high"], [3, 3])
    np.testing.assert_allclose(row["ratio"], [math.sqrt(5)] * 2)
    perfect = add_up(rolled(SEEN))
    assert np.isnan(ratios(perfect, one, ("return_rmse",))["return_rmse"]["ratio"]).all()


def test_windows_stay_within_their_episodes():
    starts = window_starts([5, 2, 3], 3, 100)
    assert starts.tolist() == [[0, 0], [0, 1], [0, 2], [2, 0]]
    assert window_starts([5, 2, 3], 6, 100).shape == (0, 2)
    spaced = window_starts([100, 100], 10, 19)
    assert len(spaced) == 19
    assert spaced[0].tolist() == [0, 0]
    assert spaced[-1].tolist() == [1, 90]
    flat = spaced[:, 0] * 91 + spaced[:, 1]
    assert set(np.diff(flat)) <= {10, 11}


def episode_of(length: int, offset: float) -> Episode:
    steps = np.arange(length + 1, dtype=np.float32)[:, None] + offset
    return Episode(steps, -steps[:-1], 10 * steps[:-1, 0], "random")


def test_what_is_cut_is_one_stretch_of_an_episode():
    episodes = [episode_of(4, 0), episode_of(3, 100)]
    obs, action, reward = openloop.cut(episodes, window_starts([4, 3], 3, 100), 3)
    assert obs[:, :, 0].T.tolist() == [[0, 1, 2, 3], [1, 2, 3, 4], [100, 101, 102, 103]]
    assert action[:, :, 0].T.tolist() == [[0, -1, -2], [-1, -2, -3], [-100, -101, -102]]
    assert reward.T.tolist() == [[0, 10, 20], [10, 20, 30], [1000, 1010, 1020]]


TASKS = (TaskSpec("wide", 3, 2, 10, False), TaskSpec("narrow", 2, 1, 10, False))


@pytest.fixture(scope="module", params=["true", "false"])
def agent(request: pytest.FixtureRequest) -> Agent:
    cfg = TrainConfig(**{**PRESETS["debug"], "use_moe": request.param == "true", "task": "wide,narrow"})
    made = Agent(cfg, TASKS, torch.device("cpu"))
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():  # gates and rewards start at 0: make them say something
        for p in made.model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g))
    return made


@pytest.mark.parametrize("task", [0, 1])
def test_rolling_is_following_the_model_a_window_at_a_time(agent: Agent, task: int):
    spec, model, random = TASKS[task], agent.model, np.random.default_rng(1)
    episodes = [
        Episode(*(random.normal(size=shape).astype(np.float32) for shape in shapes), "random")
        for shapes in [((n + 1, spec.obs_dim), (n, spec.action_dim), (n,)) for n in (6, 2, 5)]
    ]
    starts = window_starts([6, 2, 5], 3, 100)
    found = roll(model, task, episodes, starts, 3, rows=3)
    assert found.episode.tolist() == [0, 0, 0, 0, 1, 1, 1]  # an episode without a window is not counted
    sums, ids, true = np.zeros((2, 3, model.latent_dim)), torch.tensor(task), []
    for row, (e, t) in enumerate(starts.tolist()):
        obs = torch.zeros(4, 3)
        obs[:, : spec.obs_dim] = torch.from_numpy(episodes[e].obs[t : t + 4])
        with torch.no_grad():
            seen = model.encode(obs, ids)
            z = seen[0]
            for h in range(3):
                action = torch.zeros(2)
                action[: spec.action_dim] = torch.from_numpy(episodes[e].action[t + h])
                if h == 0 and agent.cfg.use_moe:
                    p = model.dynamics.gate(model._join(ids, z, action))
                    np.testing.assert_allclose(found.gates["dynamics"][row], p, rtol=1e-4)
                    p = model.reward_net.gate(model._join(ids, z, action))
                    np.testing.assert_allclose(found.gates["reward"][row], p, rtol=1e-4)
                reward = model.value(model.reward(z, action, ids))
                np.testing.assert_allclose(found.reward[h, row], reward, rtol=1e-3, atol=1e-5)
                assert found.truth[h, row] == episodes[e].reward[t + h]
                z = model.next(z, action, ids)
                error, static = ((x - seen[h + 1]).square().mean() for x in (z, seen[0]))
                np.testing.assert_allclose(found.latent[h, row], error, rtol=1e-3)
                np.testing.assert_allclose(found.static[h, row], static, rtol=1e-3)
        sums[int(found.episode[row])] += seen[1:].double().numpy()
        true.append(seen[1:].double().numpy())
    np.testing.assert_allclose(found.z_sum, sums, rtol=1e-4)
    variance = openloop.latent_variance(add_up(found), np.ones(2))
    np.testing.assert_allclose(variance, np.stack(true).var(0).mean(1), rtol=1e-3)
    assert bool(found.gates) == agent.cfg.use_moe


def test_gates_by_hand():
    sure, torn = np.array([[1.0, 0.0]] * 3), np.array([[0.0, 1.0]])
    report = usage([sure, torn], 0.7)
    assert report["mi_task"] == pytest.approx(math.log(2))  # each task has its expert, whatever its number of rows
    assert report["load"].tolist() == [0.5, 0.5]
    assert (report["entropy"], report["dead"], report["tau"]) == (pytest.approx(0, abs=1e-6), [], 0.7)
    alike = usage([np.full((4, 2), 0.5), np.full((2, 2), 0.5)], 1.0)
    assert alike["entropy"] == pytest.approx(1)
    assert alike["mi_task"] == pytest.approx(0, abs=1e-6)
    gate = usage([np.array([[0.7, 0.1, 0.1, 0.1]])], 1.0)
    assert gate["entropy"] == pytest.approx(0.678390, abs=1e-5)
    assert gate["mi_task"] is None
    assert usage([np.array([[0.995, 0.005]])], 1.0)["dead"] == [1]


def test_errors_are_split_by_the_leading_expert():
    p = np.array([[0.6, 0.3, 0.1], [0.8, 0.1, 0.1], [0.4, 0.5, 0.1], [0.9, 0.0, 0.1]])
    found = by_expert(p, np.array([1.0, 2.0, 8.0, 3.0]), np.array([3.0, 4.0, -1.0, 0.0]))
    assert found["share"].tolist() == [0.75, 0.25, 0]
    np.testing.assert_allclose(found["latent_error"], [2, 8, np.nan])
    np.testing.assert_allclose(found["reward_rmse"], [math.sqrt(25 / 3), 1, np.nan])
    errors = np.array([1.0, 2.0, 8.0, 3.0]), np.zeros(4)
    row = block_report({"task": p}, 1.0, {"task": errors})["tasks"]["task"]
    assert {"entropy", "load", "share", "latent_error", "reward_rmse"} == set(row)
