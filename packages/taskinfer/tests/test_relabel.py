"""Other targets for episodes that were lived: the rewards are the toy's own, and nothing else is changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from taskinfer import relabel
from taskinfer import tasks as task_rules
from taskinfer.context import Episodes
from taskinfer.data import EpisodeRing
from taskinfer.envs.toy import VectorToy
from taskinfer.relabel import draw_specs, other_targets
from taskinfer.run.rollout import Rollout, roll
from taskinfer.tasks import SIGN, TOY_RANGES, Family, Tasks, families_of, make_task_sets

TOYS = {"toy1d": "goal,velocity,direction_forward,velocity_plain", "toy1d-multi": "goal,velocity,stand,jump",
        "toy2d": "goal,velocity"}  # fmt: skip


def lived(toy: str, num: int = 24, noise_std: float = 0.0) -> Rollout:
    tasks, _ = make_task_sets(families_of(TOYS[toy], toy), num, 0, 0)
    env = VectorToy(toy, tasks, 0, horizon=30, noise_std=noise_std)
    rng = np.random.default_rng(1)
    return roll(env, None, aimless=lambda: rng.uniform(-1, 1, (num, env.action_dim)).astype(np.float32))


def as_episodes(rollout: Rollout) -> Episodes:
    return Episodes(**{k: torch.as_tensor(v) for k, v in rollout.fields().items()})


@pytest.mark.parametrize("toy", TOYS)
def test_the_rewards_are_what_the_toy_pays(toy: str, monkeypatch: pytest.MonkeyPatch):
    """Given the targets that the points had, every reward comes back as it was, to the bit."""
    rollout = lived(toy)
    monkeypatch.setattr(relabel, "draw_specs", lambda family, rng: rollout.tasks.spec)
    episodes = as_episodes(rollout)
    blank = episodes._replace(reward=torch.zeros_like(episodes.reward))
    same = other_targets(blank, None, np.random.default_rng(0), toy=toy, share=1.0)
    assert torch.equal(same.reward, episodes.reward)


@pytest.mark.parametrize("toy", TOYS)
def test_an_episode_with_another_target_is_one_of_that_task(toy: str):
    episodes = as_episodes(rollout := lived(toy))
    other = other_targets(episodes, None, np.random.default_rng(0), toy=toy, share=1.0)
    env = VectorToy(toy, Tasks.of(family=other.family.numpy(), spec=other.spec.numpy()), 0, horizon=30)
    env.reset()
    paid = np.stack([env.step(rollout.action[:, t])[1] for t in range(30)], 1)
    np.testing.assert_allclose(other.reward.numpy(), paid, atol=1e-6)
    for name in ("obs", "action", "length", "family", "task_id"):
        assert getattr(other, name) is getattr(episodes, name)
    assert torch.equal(episodes.spec, torch.as_tensor(rollout.tasks.spec))  # the drawn rows were not written to


def test_about_that_share_of_them_changes():
    episodes = as_episodes(lived("toy2d", 400))
    for share, low, high in ((0.0, 0, 0), (0.5, 160, 240), (1.0, 390, 400)):
        other = other_targets(episodes, None, np.random.default_rng(0), toy="toy2d", share=share)
        changed = int((other.spec != episodes.spec).sum())
        assert low <= changed <= high
        assert torch.equal((other.reward != episodes.reward).any(1), other.spec != episodes.spec)


@pytest.mark.parametrize("family", sorted(TOY_RANGES))
def test_targets_are_in_the_familys_range_with_its_sign(family: Family):
    specs = draw_specs(np.full(4000, int(family)), np.random.default_rng(0))
    low, high = TOY_RANGES[family]
    assert specs.min() >= low - 1e-5
    assert specs.max() <= high + 1e-5
    assert (specs * (SIGN[family] or 1) > 0).all()


def test_half_of_the_targets_are_even_and_half_even_in_the_logarithm():
    """Goals of 1 to 25 m below 5 m: one in six of the even ones, half of the others."""
    specs = draw_specs(np.full(40_000, int(Family.goal_backward)), np.random.default_rng(0))
    assert (specs > -5.0).mean() == pytest.approx((4 / 24 + 0.5) / 2, abs=0.01)


def test_rewards_of_many_moments_are_those_of_each():
    rollout = lived("toy1d-multi")
    states = [task_rules.State(*np.random.default_rng(t).normal(size=(8, 24)).astype(np.float32)) for t in range(5)]
    many = task_rules.State(*(np.stack(columns) for columns in zip(*states)))
    for rule in (task_rules.achieved, task_rules.error, task_rules.reward):
        np.testing.assert_array_equal(rule(rollout.tasks, many), np.stack([rule(rollout.tasks, s) for s in states]))


@pytest.mark.parametrize("toy", TOYS)
def test_noise_on_what_is_observed_is_none_on_rewards(toy: str, monkeypatch: pytest.MonkeyPatch):
    """Through a ring: other targets are paid by where points were, not by where they seemed to be."""
    noisy, drawn = lived(toy, noise_std=0.3), list[int]()

    def again(episodes: Episodes, place: torch.Tensor | None, rng: np.random.Generator) -> Episodes:
        drawn.extend(episodes.task_id.tolist())
        return other_targets(episodes, place, rng, toy=toy, share=1.0)

    monkeypatch.setattr(relabel, "draw_specs", lambda family, rng: noisy.tasks.spec[drawn])
    sizes = noisy.obs.shape[-1], noisy.action.shape[-1]
    ring = EpisodeRing(24, 30, *sizes, np.random.default_rng(3), relabel=again, noisy=True)
    ring.add(**noisy.fields(), place=noisy.place)
    np.testing.assert_array_equal(ring.sample(50).reward.numpy(), noisy.reward[drawn])
    assert not np.allclose(noisy.place, noisy.obs[:, 1:], atol=0.1)


def test_a_ring_draws_other_targets_and_keeps_what_it_has():
    fields = lived("toy1d").fields()

    def ring() -> EpisodeRing:
        made = EpisodeRing(24, 30, 2, 1, np.random.default_rng(3), relabel=lambda e, place, rng: other_targets(
            e, place, rng, toy="toy1d", share=1.0))  # fmt: skip
        made.add(**fields)
        return made

    one, two = ring(), ring()
    for a, b in zip(one.sample(50), two.sample(50)):
        assert torch.equal(a, b)  # by the ring's own stream
    one.relabel = None
    kept = one.sample(50)
    assert set(kept.spec.tolist()) <= set(fields["spec"].tolist())
