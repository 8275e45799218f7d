"""Beliefs: encoders, priors, losses, learning and resuming."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlblocks.gaussians import product
from rlcore.errors import DataError, UsageError
from rlcore.seeding import numpy_generator
from taskinfer import context, losses
from taskinfer.config import InferenceConfig
from taskinfer.data import Batch, EpisodeRing, draw_batch
from taskinfer.inference import Belief, Inference
from taskinfer.priors import Prior, purity
from taskinfer.tasks import Family

FOUR = list(Family)[:4]
SMALL = InferenceConfig(context="recurrent", window=6, hidden=16, batch=32, targets=5, latent_dim=3)
KINDS = {
    "deepset": {},
    "deepset window": {"context": "window", "times": 1},
    "mlp": {"encoder": "mlp", "context": "window"},
    "gru": {"encoder": "gru", "context": "window", "times": 2},
    "recurrent": {"encoder": "gru"},
    "gmm": {"prior": "gmm"},
    "plain": {"symlog": False, "layer_norm": False, "predict_delta": True, "context": "window"},
    "whole": {"ema": 0.0, "window": 30},
}


def make(seed: int = 0, **changes) -> Inference:
    return Inference(replace(SMALL, **changes), 2, 1, FOUR, seed)


def fill(ring: EpisodeRing, num: int, seed: int = 0, length: np.ndarray | None = None, junk: float = 0.0) -> None:
    """Random episodes whose reward depends on their family; after their end lies `junk`."""
    rng, h = np.random.default_rng(seed), ring.horizon
    obs = rng.normal(size=(num, h + 1, 2)).astype(np.float32) * 3
    family = np.arange(num) % 4
    reward = (obs[:, 1:, 0] * np.array([1, -1, 0, 0])[family, None] - family[:, None]).astype(np.float32)
    length = np.full(num, h) if length is None else length
    for i, n in enumerate(length):
        obs[i, n + 1 :], reward[i, n:] = junk, junk
    action = rng.uniform(-1, 1, (num, h, 1)).astype(np.float32)
    ring.add(obs, action, reward, length, family, np.ones(num, np.float32), np.arange(num))


def filled(num: int = 12, horizon: int = 20, **more) -> EpisodeRing:
    ring = EpisodeRing(num, horizon, 2, 1, numpy_generator(0, "ring"))
    fill(ring, num, **more)
    return ring


def some_episodes(lengths: list[int], horizon: int = 20, seed: int = 0, junk: float = 0.0) -> context.Episodes:
    """One of each length."""
    g = torch.Generator().manual_seed(seed)
    n = len(lengths)
    obs, reward = torch.randn(n, horizon + 1, 2, generator=g) * 4, torch.randn(n, horizon, generator=g) * 2
    for i, length in enumerate(lengths):
        obs[i, length + 1 :], reward[i, length:] = junk, junk
    which = torch.arange(n)
    action = torch.rand(n, horizon, 1, generator=g)
    return context.Episodes(obs, action, reward, torch.tensor(lengths), which % 4, torch.ones(n), which)


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


@settings(max_examples=40, deadline=None)
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


# --- losses -----------------------------------------------------------------------------------------------------------
def test_divergences_by_hand_and_beside_torch():
    """Oracles 4 and 6."""
    by_hand = losses.kl_to_standard(torch.tensor([[1.0]]), torch.tensor([[0.25]]).log())
    assert by_hand.item() == pytest.approx(0.5 * (math.log(4) + 0.25), abs=1e-6)
    g = torch.Generator().manual_seed(0)
    mean, log_var, means = (torch.randn(n, 3, generator=g) for n in (9, 9, 4))
    variances = torch.rand(4, 3, generator=g) + 0.1
    normal = torch.distributions.Normal
    theirs = torch.distributions.kl_divergence(
        normal(mean[:, None], (0.5 * log_var[:, None]).exp()), normal(means, variances.sqrt())
    ).sum(-1)
    ours = losses.kl_matrix(mean, log_var, means, variances)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    unit = losses.kl_matrix(mean, log_var, torch.zeros(1, 3), torch.ones(1, 3))[:, 0]
    torch.testing.assert_close(unit, losses.kl_to_standard(mean, log_var))
    torch.testing.assert_close(losses.mixture_kl(torch.ones(9, 1), unit[:, None]), unit)
    resp = torch.rand(9, 4, generator=g).softmax(1)
    twice = losses.mixture_kl(resp, ours) * 2
    torch.testing.assert_close(losses.mixture_kl(2 * resp, ours), twice)
    best = ours.gather(1, resp.argmax(1, keepdim=True))[:, 0]
    torch.testing.assert_close(losses.mixture_kl(resp, ours, hard=True), best)


def test_divergences_never_fall_below_zero():
    """D24: rounding near equality is cut off, nothing is asserted."""
    mean, log_var = torch.full((64, 3), 1e-4), torch.linspace(-1e-4, 1e-4, 64)[:, None].expand(64, 3)
    assert (losses.kl_to_standard(mean, log_var) >= 0).all()
    assert (losses.kl_matrix(mean, log_var, mean[:1], log_var[:1].exp()) >= 0).all()


def test_products_of_evidence():
    """Oracle 5."""
    mean, var = torch.tensor([[0.0], [2.0], [99.0]]), torch.tensor([[1.0], [1.0], [1.0]])
    m, v = product(mean, var, torch.tensor([True, True, False]))
    assert (m.item(), v.item()) == pytest.approx((1.0, 0.5))


def test_separation_leaves_out_a_class_and_itself():
    means, stds = torch.tensor([[[0.0, 0.0], [2.0, 0.0]]]), torch.tensor([[[1.0, 1.0], [0.5, 0.5]]])
    assert losses.separation(means, stds).item() == pytest.approx(0.5 * (2.0 + 1.0) / 4.0, rel=1e-5)


def test_classes_mix_to_the_gaussian_that_sampling_gives():
    g = torch.Generator().manual_seed(1)
    logits, means, log_vars = torch.randn(1, 3, generator=g), torch.randn(1, 3, 2, generator=g), torch.zeros(1, 3, 2)
    mean, log_var = losses.combine_classes(logits, means, log_vars)
    z = (logits.softmax(1)[..., None] * (means + torch.randn(200_000, 3, 2, generator=g))).sum(1)
    torch.testing.assert_close(z.mean(0), mean[0], atol=0.01, rtol=0.0)
    torch.testing.assert_close(z.var(0), log_var[0].exp(), atol=0.01, rtol=0.0)


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


# --- the ring ---------------------------------------------------------------------------------------------------------
def test_drawn_contexts_and_targets_stay_in_their_episode():
    """D9, D20: every row of an episode carries its number; nothing drawn ever mixes two, however short or wrapped."""
    ring = EpisodeRing(9, 20, 2, 1, numpy_generator(0, "ring"))
    rng = np.random.default_rng(0)
    for first in range(0, 60, 6):  # wraps several times
        number = np.arange(first, first + 6)
        length = rng.integers(1, 21, 6)
        obs = np.broadcast_to(number[:, None, None], (6, 21, 2)) + np.arange(21)[None, :, None] / 100
        for i, n in enumerate(length):
            obs[i, n + 1 :] = np.nan
        reward = np.broadcast_to(number[:, None], (6, 20)).astype(np.float32)
        action = np.broadcast_to(number[:, None, None], (6, 20, 1)).astype(np.float32)
        ring.add(obs.astype(np.float32), action, reward, length, number % 4, number.astype(np.float32), number)
    assert len(ring) == 9
    for times in (1, 4):
        cfg = replace(SMALL, context="window", symlog=False, batch=400, times=times, targets=7)
        b = draw_batch(ring, cfg)
        number = b.action[:, :1]
        assert (b.action == number).all()
        assert (b.reward == number).all()
        assert set(number.flatten().tolist()) == set(range(51, 60))
        assert (b.state.floor() == number).all()
        torch.testing.assert_close(b.next_state - b.state, torch.full_like(b.state, 0.01), atol=1e-4, rtol=0)
        for i in range(400):
            shown = b.features[i, SMALL.window - int(b.known[i]) :, 2]
            assert (shown == number[i]).all()
        assert (b.known == 0).any()
        assert (b.family == number[:, 0, 0] % 4).all()
    whole = draw_batch(ring, replace(SMALL, symlog=False, batch=400, times=4, targets=7))
    number = whole.action[:, :1].view(100, 4)
    for features, of, times in zip(whole.features, number, whole.known.view(100, 4)):
        assert (of == of[0]).all()
        assert (features[: int(times.max()), 2] == of[0]).all()


def test_lengths_outside_the_horizon_are_refused():
    ring = EpisodeRing(4, 20, 2, 1, numpy_generator(0, "ring"))
    for bad in (0, 21):
        with pytest.raises(UsageError, match="lengths"):
            fill(ring, 2, length=np.array([5, bad]))


def test_the_ring_comes_back_from_its_files(tmp_path: Path):
    ring, twin = (EpisodeRing(12, 20, 2, 1, numpy_generator(s, "ring")) for s in (0, 1))
    fill(ring, 5)
    ring.save(tmp_path)
    fill(ring, 6, seed=1)
    cursor = ring.save(tmp_path)
    twin.load(tmp_path, cursor)
    for a, b in zip(draw_batch(ring, SMALL), draw_batch(twin, SMALL)):
        assert torch.equal(a, b)
    piece = next(tmp_path.glob("segment_*.bin"))
    piece.write_bytes(piece.read_bytes()[:-1] + b"\1")
    with pytest.raises(DataError):
        twin.load(tmp_path, cursor)


# --- priors -----------------------------------------------------------------------------------------------------------
def test_the_prior_is_a_unit_gaussian_until_it_is_fitted_and_then_finds_blobs():
    """D19: fitted on latents of the whole ring, and by ourselves."""
    prior = Prior(replace(SMALL, latent_dim=2), 0, torch.device("cpu"))
    g = torch.Generator().manual_seed(0)
    mean, log_var = torch.randn(5, 2, generator=g), torch.randn(5, 2, generator=g)
    torch.testing.assert_close(prior.kl(mean, log_var, mean), losses.kl_to_standard(mean, log_var))
    centres = torch.tensor([[-4.0, 0.0], [3.0, 1.0], [0.0, 5.0], [1.0, -4.0]])
    label = torch.arange(800) % 4
    points = centres[label] + 0.3 * torch.randn(800, 2, generator=g)
    assert prior.fit(points).components == 4
    assert purity(prior.assign(points), label) == 1.0
    divergence = prior.kl(centres, torch.full((4, 2), 0.09).log(), centres)
    assert float(divergence.max()) < 0.2 < float(losses.kl_to_standard(centres, torch.zeros(4, 2)).min())
    ours = prior.kl(mean, log_var, mean)
    torch.testing.assert_close(ours, prior.mixture.kl(mean, log_var), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(
    ("points", "reason"),
    [(torch.randn(63, 2), "at least 64"), (torch.ones(200, 2), "alike"), (torch.full((99, 2), torch.nan), "finite")],
)
def test_a_fit_that_makes_no_sense_leaves_the_prior(points, reason):
    prior = Prior(replace(SMALL, latent_dim=2), 0, torch.device("cpu"))
    fit = prior.fit(points)
    assert reason in fit.kept_gaussian
    assert prior.components == 0


def test_no_gradient_flows_through_responsibilities():
    prior = Prior(replace(SMALL, latent_dim=2), 0, torch.device("cpu"))
    g = torch.Generator().manual_seed(0)
    prior.fit(torch.cat((torch.randn(200, 2, generator=g) - 4, torch.randn(200, 2, generator=g) + 4)))
    mean, z = torch.zeros(3, 2, requires_grad=True), torch.zeros(3, 2, requires_grad=True)
    prior.kl(mean, torch.zeros(3, 2), z).sum().backward()
    assert mean.grad is not None
    assert z.grad is None
    resp, divergences = torch.rand(3, 2, requires_grad=True), torch.rand(3, 2, requires_grad=True)
    losses.mixture_kl(resp, divergences).sum().backward()
    assert resp.grad is None
    assert divergences.grad is not None


# --- learning ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["deepset", "deepset window", "mlp", "gmm", "recurrent"])
def test_it_learns_the_family_and_the_reward(kind: str):
    ring = filled(200)
    inference = make(**{**KINDS[kind], "lr": 5e-3, "batch": 96})
    losses_seen = []
    for i in range(200 if kind == "mlp" else 150):  # its input has 48 numbers, theirs 8
        metrics = inference.learn(draw_batch(ring, inference.cfg))
        losses_seen.append(float(metrics["loss_task"]) + float(metrics["loss_reward"]))
        if i == 60 and inference.cfg.prior == "dpmm":
            assert inference.fit_prior(ring).components >= 1
    first, last = np.mean(losses_seen[:5]), np.mean(losses_seen[-20:])
    assert last < 0.75 * first, (first, last)
    belief = inference.encode(episodes := ring.sample(200), slow=False)
    guessed = torch.tensor(inference.families)[belief.family_logits[:, -1].argmax(-1)]
    assert (guessed == episodes.family).float().mean() > 0.6


def test_the_order_of_families_does_not_matter():
    """Oracle 16, D10: classes are sorted by id, whatever list they came in."""
    one = Inference(SMALL, 2, 1, [Family.jump, Family.goal_forward], 0)
    two = Inference(SMALL, 2, 1, [Family.goal_forward, Family.jump], 0)
    assert one.families == two.families == (Family.goal_forward, Family.jump)
    assert torch.equal(one.stream(1).belief.family_logits, two.stream(1).belief.family_logits)
    assert int(one.family_ids(one.stream(1).belief)) in (2, 6)


def test_an_update_that_is_not_finite_changes_nothing():
    """D24: one check an update, without waiting for the device."""
    inference, ring = make(), filled()
    batch = draw_batch(ring, inference.cfg)
    before = {k: v.clone() for k, v in inference.model.state_dict().items()}
    inference.learn(batch._replace(reward=batch.reward * torch.nan))
    assert int(inference.skipped) == 1
    assert all(torch.equal(v, before[k]) for k, v in inference.model.state_dict().items())
    inference.learn(batch)
    assert any(not torch.equal(v, before[k]) for k, v in inference.model.state_dict().items())


def test_the_slow_encoder_follows():
    inference, ring = make(ema=0.9), filled()
    slow, fast = inference.slow.family_head[0].weight, inference.model.family_head[0].weight
    assert torch.equal(slow, fast)
    before = slow.clone()
    inference.learn(draw_batch(ring, inference.cfg))
    torch.testing.assert_close(slow, before.lerp(fast.detach(), 0.1))
    at_once = make(ema=0.0)
    at_once.learn(draw_batch(ring, at_once.cfg))
    assert torch.equal(at_once.slow.family_head[0].weight, at_once.model.family_head[0].weight)


@pytest.mark.parametrize("kind", ["deepset", "deepset window", "gmm", "recurrent"])
def test_going_on_is_never_having_stopped(kind: str, tmp_path: Path):
    ring = filled(80)
    inference = make(**KINDS[kind])

    def some(model: Inference, data: EpisodeRing) -> dict[str, torch.Tensor]:
        for _ in range(4):
            metrics = model.learn(draw_batch(data, model.cfg))
        model.fit_prior(data)
        return metrics

    some(inference, ring)
    state, cursor = inference.state_dict(), ring.save(tmp_path)
    torch.save(state, tmp_path / "state.pt")
    some(inference, ring)
    wanted = some(inference, ring)
    again, data = make(seed=9, **KINDS[kind]), EpisodeRing(80, 20, 2, 1, numpy_generator(5, "ring"))
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    data.load(tmp_path, cursor)
    some(again, data)
    for name, value in some(again, data).items():
        assert torch.equal(value, wanted[name]), name
    for a, b in zip(again.slow.parameters(), inference.slow.parameters()):
        assert torch.equal(a, b)


def test_another_model_is_refused():
    state = make().state_dict()
    with pytest.raises(DataError, match="families"):
        Inference(SMALL, 2, 1, FOUR[:2], 0).load_state_dict(state)


def test_the_seed_decides_and_nothing_global_does():
    torch.manual_seed(1)
    one = make(3)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    two, other = make(3), make(4)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.model.family_head[0].weight, two.model.family_head[0].weight)
    assert not torch.equal(one.model.family_head[0].weight, other.model.family_head[0].weight)


@pytest.mark.parametrize(
    "wrong",
    [
        {"context": "recurrent", "encoder": "mlp"}, {"times": 3}, {"lr": 0.0}, {"ema": 1.0}, {"window": 0},
        {"kl_weight": -1.0},
    ],
)  # fmt: skip
def test_wrong_options_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        InferenceConfig(**wrong)
