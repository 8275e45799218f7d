"""The ring of episodes, learning from it, and resuming."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_inference import FOUR, KINDS, SMALL, fill, filled, make

from rlcore.errors import DataError, UsageError
from rlcore.seeding import numpy_generator
from taskinfer.config import InferenceConfig
from taskinfer.data import EpisodeRing, draw_batch
from taskinfer.inference import Inference
from taskinfer.tasks import Family


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
