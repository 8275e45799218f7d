"""One update of the learner, its windows, its scores."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from gasp import losses
from gasp.config_skills import ModelConfig, SkillsConfig
from gasp.data import Demos
from gasp.score import SOURCES, action_variance, data_facts, draw, errors, top_of
from gasp.skills import SkillLearner
from gasp.windows import WindowSampler, batches, evenly
from rlcore.errors import DataError

H = 4


def demos(episodes: int = 12, length: int = 30, seed: int = 0) -> Demos:
    """A point drifts one of four ways an episode; its action is the way, its label which."""
    rng = np.random.default_rng(seed)
    ways = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], np.float32)
    made, labels = [], []
    for e in range(episodes):
        action = np.tile(0.8 * ways[e % 4], (length, 1)) + 0.05 * rng.standard_normal((length, 2)).astype(np.float32)
        position = np.concatenate((np.zeros((1, 2), np.float32), np.cumsum(0.1 * action, 0)))
        made.append((position.astype(np.float32), action))
        labels.append(np.full(length + 1, e % 4))
    meta = {"task": "drift", "obs_mode": "point", "labels": ["right", "left", "up", "down"]}
    return Demos.of(made, meta, labels)


def config(**options: Any) -> SkillsConfig:
    small = ModelConfig(horizon=H, latent_dim=3, hidden=16, decoder_layers=1, prior_layers=1)
    return SkillsConfig(model=small, batch=32, warmup_updates=0, **options)


def learner(cfg: SkillsConfig, data: Demos, seed: int = 0) -> SkillLearner:
    made = SkillLearner(cfg, data_facts(data, H), 200, seed)
    made.model.normalize_by(torch.from_numpy(data.obs))
    return made


def sampler(cfg: SkillsConfig, data: Demos, seed: int = 0) -> WindowSampler:
    return WindowSampler(data, H, cfg.batch, np.random.default_rng(seed))


# --- windows ----------------------------------------------------------------------------------------------------------
def test_every_window_comes_once_a_round():
    data, cfg = demos(2, 9), config()
    source = sampler(replace(cfg, batch=4), data)
    assert len(source.starts) == 12
    firsts = torch.cat([source.sample()[0][:, 0] for _ in range(3)])
    expected = torch.from_numpy(data.obs[source.starts])
    assert sorted(map(tuple, firsts.tolist())) == sorted(map(tuple, expected.tolist()))


def test_no_window_crosses_an_episode():
    """D4: within a window the point moves as its actions say, which it does not from one episode to the next."""
    obs, action = sampler(config(), demos()).sample()
    torch.testing.assert_close(obs[:, 1:] - obs[:, :-1], 0.1 * action)


def test_a_sampler_goes_on_where_it_was():
    data, cfg = demos(), config()
    one, other = sampler(cfg, data), sampler(cfg, data, seed=5)
    one.sample()
    other.load_state_dict(one.state_dict())
    for _ in range(12):
        assert torch.equal(one.sample()[1], other.sample()[1])


def test_evenly_spaced_windows():
    data = demos(2, 9)
    assert evenly(data, H, 1_000).tolist() == data.starts(H).tolist()
    assert evenly(data, H, 2).tolist() == [0, data.starts(H)[-1]]
    assert sum(len(obs) for obs, _ in batches(data, data.starts(H), H)) == 12


# --- updates ----------------------------------------------------------------------------------------------------------
def test_the_loss_is_the_sum_of_its_parts():
    data, cfg = demos(), config(beta=0.5, prior_loss="nll")
    one = learner(cfg, data)
    obs, action = sampler(cfg, data).sample()
    noise = torch.randn(32, 3)
    total, parts = one.loss((obs, action), noise)
    torch.testing.assert_close(total, parts["reconstruction"] + 0.5 * parts["kl"] + parts["prior_loss"])
    mean, log_std = one.model.encode(obs, action)
    z = mean + log_std.exp() * noise
    torch.testing.assert_close(parts["prior_loss"], losses.prior_nll(z, *one.model.prior(obs[:, 0])))
    torch.testing.assert_close(parts["kl"], losses.kl_standard(mean, log_std).mean())


def test_the_step_size_warms_up_and_falls():
    cfg = config(epochs=1, updates_per_epoch=100, lr_end=0.1)
    one = learner(replace(cfg, warmup_updates=9), demos())
    rates = []
    for updates in (0, 4, 9, 50, 100):
        one.updates = updates
        rates.append(one.rate())
    assert rates == pytest.approx([0.1 * 1.0, 0.5 * 0.964, 0.919, 0.55, 0.1])


def test_beta_follows_its_target():
    data = demos()
    cfg = config(beta=0.1, target_kl=50.0, beta_lr=0.1)
    one, source = learner(cfg, data), sampler(cfg, data)
    first, *_, last = (float(one.update(source.sample())["beta"]) for _ in range(5))
    assert first == pytest.approx(0.1)
    assert last < first  # the divergence is below 50 nats a dimension: less weight
    fixed = learner(config(beta=0.1), data)
    assert float(fixed.update(source.sample())["beta"]) == float(fixed.update(source.sample())["beta"])


@pytest.mark.parametrize("optimizer", ["adam", "radam"])
def test_it_learns_to_reproduce_actions(optimizer: str):
    data = demos()
    cfg = config(optimizer=optimizer, lr=5e-3, beta=1e-3, lr_end=1.0)
    one, source = learner(cfg, data), sampler(cfg, data)
    before = errors(one.model, one.prior, data, data.starts(H))
    for _ in range(150):
        one.update(source.sample())
    after = errors(one.model, one.prior, data, data.starts(H))
    assert before["share"] > 0.9
    assert after["share"] < 0.1
    assert after["prior_kl"] < before["prior_kl"]


def test_fits_see_the_encoder_as_it_is_and_keep_no_graph():
    """D13: skills are encoded afresh, without a graph."""
    data, cfg = demos(), config()
    one, source = learner(cfg, data), sampler(cfg, data)
    before = one.draw(batches(data, data.starts(H), H))
    assert not before.requires_grad
    one.noise.manual_seed(0)
    first = one.draw(batches(data, data.starts(H), H))
    one.update(source.sample())
    one.noise.manual_seed(0)
    assert not torch.equal(first, one.draw(batches(data, data.starts(H), H)))


def test_a_learner_goes_on_bit_by_bit():
    data, cfg = demos(), config(target_kl=1.0, optimizer="radam")
    one, source = learner(cfg, data), sampler(cfg, data)
    for _ in range(3):
        one.update(source.sample())
    one.fit(batches(data, data.starts(H), H))
    other = learner(cfg, data, seed=9)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for _ in range(3):
        batch = source.sample()
        a, b = one.update(batch), other.update(batch)
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert (
        one.fit(batches(data, data.starts(H), H))["weights"] == other.fit(batches(data, data.starts(H), H))["weights"]
    )


def test_what_was_learnt_on_a_gpu_goes_on_here():
    """The state of its generator, 16 bytes, does not fit; all else does."""
    data, cfg = demos(), config()
    one, other = learner(cfg, data), learner(cfg, data, seed=1)
    other.load_state_dict({**copy.deepcopy(one.state_dict()), "noise": torch.zeros(16, dtype=torch.uint8)})
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name])
    other.update(sampler(cfg, data).sample())


def test_a_fit_is_charged_with_its_encoding(monkeypatch: pytest.MonkeyPatch):
    clock, made = [0.0], learner(config(), demos())

    def slow(batches: Any) -> torch.Tensor:
        clock[0] += 5.0
        return torch.randn(200, 3, generator=torch.Generator().manual_seed(0))

    monkeypatch.setattr("time.process_time", lambda: clock[0])
    monkeypatch.setattr(made, "draw", slow)
    assert made.fit([])["fit_cpu_s"] == 5.0


def test_other_demonstrations_are_refused():
    one = learner(config(), demos())
    state = learner(config(), demos(13)).state_dict()
    with pytest.raises(DataError, match="episodes is 12 in these demonstrations and 13"):
        one.load_state_dict(state)


# --- scores -----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def taught() -> tuple[SkillLearner, Demos]:
    data = demos()
    cfg = config(lr=5e-3, beta=1e-3, lr_end=1.0)
    one, source = learner(cfg, data), sampler(cfg, data)
    for i in range(120):
        one.update(source.sample())
        if i == 60:
            one.fit(batches(data, data.starts(H), H))
    return one, data


def test_to_score_draws_nothing_of_the_learners(taught: tuple[SkillLearner, Demos]):
    one, data = taught
    before = one.noise.get_state()
    assert errors(one.model, one.prior, data, data.starts(H)) == errors(one.model, one.prior, data, data.starts(H))
    assert torch.equal(before, one.noise.get_state())


def test_who_has_seen_the_window_is_best(taught: tuple[SkillLearner, Demos]):
    """D20: three sources apart. At the start no state says which way: only the posterior knows."""
    one, data = taught
    starts = data.offsets[:-1]
    rng = torch.Generator().manual_seed(0)
    found = top_of(one.model, one.prior, data, starts, 20, rng)
    assert set(found) == set(SOURCES)
    assert found["posterior"]["mean"] < 0.3 * found["mixture"]["mean"]
    assert found["posterior"]["mean"] < 0.3 * found["prior"]["mean"]
    assert all(row["best"] <= row["mean"] for row in found.values())
    variance = action_variance(data, starts, H)
    assert found["prior"]["best_share"] == pytest.approx(found["prior"]["best"] / variance)


def test_the_mixture_is_told_nothing_of_the_window(taught: tuple[SkillLearner, Demos]):
    """D20: its skills are the same whatever the window; the published ones came from the window's own component."""
    one, data = taught
    obs, action = next(batches(data, data.starts(H)[:6], H))
    there = draw(one.model, one.prior, "mixture", obs, action, 5, torch.Generator().manual_seed(1))
    elsewhere = draw(one.model, one.prior, "mixture", obs.flip(0), -action, 5, torch.Generator().manual_seed(1))
    assert torch.equal(there, elsewhere)


def test_top_of_n_by_hand(taught: tuple[SkillLearner, Demos]):
    """All windows at once are as one by one: the draws are the same, in the same order."""
    one, data = taught
    starts = data.starts(H)[::40]
    found = top_of(one.model, one.prior, data, starts, 7, torch.Generator().manual_seed(2))
    rng, best = torch.Generator().manual_seed(2), []
    obs, action = next(batches(data, starts, H))
    with torch.no_grad():
        z = draw(one.model, one.prior, "prior", obs, action, 7, rng)
        for b in range(len(starts)):
            tries = []
            for n in range(7):
                steps = [one.model.decode(obs[b, t], z[b, n]) for t in range(H)]
                tries.append(float((torch.stack(steps) - action[b]).square().mean()))
            best.append(min(tries))
    assert found["prior"]["best"] == pytest.approx(np.mean(best), rel=1e-4)
