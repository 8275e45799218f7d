"""What encoders are shown, and the beliefs that they form: streamed and in one pass."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_inference import KINDS, SMALL, filled, make, some_episodes

from taskinfer import context, losses
from taskinfer.data import Batch
from taskinfer.inference import Belief


# --- context ----------------------------------------------------------------------------------------------------------
def test_symlog_by_hand():
    x = torch.tensor([0.0, math.e - 1, -(math.e - 1), 25.0])
    torch.testing.assert_close(context.symlog(x), torch.tensor([0.0, 1.0, -1.0, math.log(26)]))
    torch.testing.assert_close(context.symexp(context.symlog(x)), x)


def test_a_step_that_gets_nowhere_has_a_reward_feature_of_zero():
    """1 + r is compressed, so that rewards near -1 stay apart; without symlog all is as it is."""
    s, r, s2 = torch.tensor([[math.e - 1]]), torch.tensor([-1.0]), torch.tensor([[0.0]])
    torch.testing.assert_close(context.transition(s, r, s2, SMALL), torch.tensor([[1.0, 0.0, 0.0]]))
    quarter = replace(SMALL, reward_scale=4.0)
    torch.testing.assert_close(context.transition(s2, r / 2, s2, quarter)[0, 1].item(), math.log(3))
    plain = context.transition(s, r, s2, replace(SMALL, symlog=False))
    torch.testing.assert_close(plain, torch.tensor([[math.e - 1, -1.0, 0.0]]))


def test_a_feature_tells_what_changed():
    """Enlarged before it is compressed; the first step of an episode has no reward before it."""
    s, s2, r, before = (
        torch.tensor([[1.0, 0.0]]),
        torch.tensor([[1.5, 5.0]]),
        torch.tensor([-0.4]),
        torch.tensor([-0.5]),
    )
    made = context.feature(s, r, s2, before, replace(SMALL, change_scale=10.0))
    torch.testing.assert_close(made[:, :5], context.transition(s, r, s2, SMALL))
    torch.testing.assert_close(made[0, 5:], torch.tensor([math.log(6), math.log(51), math.log(2)]))
    plain = context.feature(s, r, s2, before, replace(SMALL, symlog=False))
    torch.testing.assert_close(plain[0, 5:], torch.tensor([0.5, 5.0, 0.1]))
    episodes = some_episodes([20])
    changes = context.all_features(episodes, replace(SMALL, symlog=False))[0, :, -1]
    assert changes[0] == 0.0
    torch.testing.assert_close(changes[1:], episodes.reward[0].diff())


@settings(max_examples=40)
@given(st.integers(1, 60), st.integers(1, 40), st.integers(0, 2**31))
def test_prefix_sums_are_naive_windows(horizon, size, seed):
    """Oracle 8: at every time, also before the window is full; the first mean depends on no data."""
    values = torch.randn(2, horizon, 3, generator=torch.Generator().manual_seed(seed)) * 10 + 50
    naive = [values[:, max(0, t - size) : t].mean(1) if t else torch.zeros(2, 3) for t in range(horizon + 1)]
    torch.testing.assert_close(context.window_means(values, size), torch.stack(naive, 1), atol=1e-5, rtol=1e-6)


def test_windows_are_the_steps_before_oldest_first():
    episodes = some_episodes([20, 7])
    times = torch.tensor([[0, 3, 20], [0, 1, 7]])
    features, known = context.windows(episodes, times, replace(SMALL, window=5))
    assert known.tolist() == [[0, 3, 5], [0, 1, 5]]
    every = context.all_features(episodes, SMALL)
    torch.testing.assert_close(features[0, 2], every[0, 15:20])
    torch.testing.assert_close(features[0, 1], torch.cat((torch.zeros(2, 8), every[0, :3])))
    assert not features[0, 0].any()
    assert not every[1, 7:].any()


# --- beliefs ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_streaming_is_encoding(kind: str):
    """D8: agents whose episodes end early keep their slot and their belief, and disturb nobody."""
    inference = make(**KINDS[kind])
    lengths = [20, 3, 11, 1, 20]
    episodes = some_episodes(lengths)
    whole = inference.encode(episodes)
    stream = inference.stream(5)
    seen = [stream.belief]
    for t in range(20):
        alive = np.array([t < n for n in lengths])
        row = (episodes.obs[:, t], episodes.reward[:, t], episodes.obs[:, t + 1])
        before = stream.memory
        seen.append(inference.update(stream, *(r.numpy() for r in row), alive))
        assert torch.equal(stream.memory[~torch.from_numpy(alive)], before[~torch.from_numpy(alive)])
    for name in Belief._fields:
        batched = getattr(whole, name)
        streamed = torch.stack([getattr(b, name) for b in seen], 1)
        torch.testing.assert_close(streamed, batched, atol=1e-5, rtol=1e-5)
    alone = inference.encode(episodes.rows([0]))
    torch.testing.assert_close(alone.mean, whole.mean[:1], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", ["deepset", "deepset window"])
def test_streaming_stays_encoding_for_long_and_with_any_weights(kind: str):
    """1,000 steps, half of them at rest, and weights from e^-8 to e^8."""
    inference = make(**KINDS[kind])
    with torch.no_grad():
        inference.slow.encoder.gate.weight *= 300.0
    episodes = some_episodes([1000], horizon=1000)
    episodes.obs[:, 500:], episodes.reward[:, 500:] = 3.0, -0.2
    weights = inference.slow.encoder.weigh(context.all_features(episodes, inference.cfg)).chunk(2, -1)[1]
    assert weights.max() / weights.min() == pytest.approx(math.exp(16), rel=1e-4)
    whole, stream = inference.encode(episodes).mean[0], inference.stream(1)
    for t in range(1000):
        belief = inference.update(stream, episodes.obs[:, t], episodes.reward[:, t], episodes.obs[:, t + 1])
        torch.testing.assert_close(belief.mean[0], whole[t + 1], atol=1e-5, rtol=1e-5)


def test_a_deep_set_is_a_network_of_weighted_means():
    """By hand, at one time of one episode: of the window, and of all steps before that time."""
    encoder = make().model.encoder
    features = context.all_features(some_episodes([20]), SMALL)
    embedded = encoder.embed(features[0])
    weight = encoder.gate(embedded).exp()
    means = [(weight[a:15] * embedded[a:15]).sum(0) / weight[a:15].sum(0) for a in (15 - SMALL.window, 0)]
    wanted = encoder.head(torch.cat((*means, torch.ones(1))))
    torch.testing.assert_close(encoder.episodes(features)[0, 15], wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_belief_depends_on_nothing(kind: str):
    inference = make(**KINDS[kind])
    belief = inference.encode(some_episodes([20, 5, 9]))
    first = inference.stream(1).belief
    torch.testing.assert_close(belief.mean[:, 0], first.mean.expand(3, -1))
    assert belief.count[:, :12].tolist() == [list(range(12)), [0, 1, 2, 3, 4, 5, 5, 5, 5, 5, 5, 5], [*range(10), 9, 9]]


@pytest.mark.parametrize("kind", KINDS)
def test_training_sees_what_acting_sees(kind: str):
    """The contexts of a batch give the beliefs that encoding whole episodes gives."""
    inference = make(**KINDS[kind])
    episodes = some_episodes([20, 7, 13, 20])
    times = torch.tensor([[4, 20], [0, 7], [13, 2], [9, 6]])
    every = inference.encode(episodes, slow=False)
    if inference.cfg.context == "recurrent":
        features, known = context.all_features(episodes, inference.cfg), times
    else:
        features, known = (part.flatten(0, 1) for part in context.windows(episodes, times, inference.cfg))
    batch = Batch(features, known.flatten(), *[torch.empty(0)] * 5)
    mean = inference.model.posterior(inference._raw(batch)).mean
    wanted = every.mean.gather(1, times[..., None].expand(-1, -1, 3)).flatten(0, 1)
    torch.testing.assert_close(mean, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("kind", "remembers"), [("deepset", True), ("deepset window", False), ("recurrent", True)])
def test_what_lies_before_the_window_counts_for_recurrent_ones(kind: str, remembers: bool):
    """Two episodes that differ in their first steps alone, long before the window of the last belief."""
    inference = make(**KINDS[kind])
    one, two = some_episodes([20]), some_episodes([20])
    two.obs[:, :3] += 5.0
    apart = (inference.encode(one).mean - inference.encode(two).mean)[0].norm(dim=-1)
    assert (apart[1:8] > 1e-4).all()
    assert bool(apart[-1] > 1e-5) == remembers


@pytest.mark.parametrize("kind", KINDS)
def test_actions_never_reach_a_belief(kind: str):
    inference = make(**KINDS[kind])
    episodes = some_episodes([20, 5])
    noisy = episodes._replace(action=torch.full_like(episodes.action, float("nan")))
    for a, b in zip(inference.encode(episodes), inference.encode(noisy)):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_what_lies_after_the_end_never_counts(kind: str):
    """D9: short episodes never read what is behind them, be it NaN."""
    inference = make(**KINDS[kind])
    clean, dirty = (some_episodes([20, 3, 11], junk=j) for j in (0.0, float("nan")))
    assert torch.equal(inference.encode(clean).mean, inference.encode(dirty).mean)


def test_a_belief_is_mean_and_log_variance():
    """D15: neither a sample nor a cluster's number."""
    inference = make()
    episodes = some_episodes([20])
    one, two = inference.encode(episodes), inference.encode(episodes)
    assert torch.equal(one.mean, two.mean)
    assert one.log_var.min() >= losses.LOG_VAR_MIN
    assert one.params().shape == (1, 21, 6)
    torch.testing.assert_close(one.params()[..., 3:].square().log(), one.log_var, atol=1e-5, rtol=1e-5)


def test_beliefs_ask_the_mixture_nothing(monkeypatch):
    """D18: assignments are made only when asked for."""
    inference, ring = make(), filled(64)
    assert inference.fit_prior(ring).components >= 1

    def never(*_):
        raise AssertionError("the mixture was asked")

    monkeypatch.setattr(inference.prior.mixture, "responsibilities", never)
    inference.update(inference.stream(2), np.zeros((2, 2)), np.zeros(2), np.zeros((2, 2)))
    inference.encode(ring.sample(4))
    with pytest.raises(AssertionError, match="asked"):
        inference.prior.assign(torch.zeros(1, 3))
