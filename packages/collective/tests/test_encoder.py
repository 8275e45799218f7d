"""Encoders that learn and encoders that are used: losses, samplers, fingerprints, files."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from collective_encoders import CLOSE, dice, learner, sampler, some_encoder
from collective_windows import TASKS, made_up

from collective import losses
from collective.config_encoder import LossConfig, MaskConfig
from collective.data import Dataset
from collective.encoder import Encoder, fingerprint
from collective.masking import hide
from collective.model import Windows
from collective.prefixes import batch_of, groups_of
from collective.windows import compress, windows_of
from rlcore import checkpoint
from rlcore.errors import DataError


@pytest.fixture(scope="module")
def data() -> Dataset:
    return made_up()


# --- windows to learn from --------------------------------------------------------------------------------------------
class TestSampler:
    def test_every_task_comes_as_often_whatever_there_is_of_it(self):
        """Balanced, not in proportion to the data."""
        data = made_up(trajectories=10)
        few = data.take(np.flatnonzero((data.task_id > 0) | (np.arange(30) < 2)))
        draw = sampler(few, batch=10)
        counts = np.zeros(3, int)
        for _ in range(30):
            now = np.bincount(draw.sample().task.numpy(), minlength=3)
            assert now.max() - now.min() <= 2
            counts += now
        assert (counts == 100).all()

    def test_all_lengths_come(self, data: Dataset):
        """D4: an encoder that has seen full windows only does not know the beginning of an episode."""
        draw, lengths = sampler(data, batch=60), []
        starts = 0
        for _ in range(40):
            batch = draw.sample()
            lengths.append(batch.windows.lengths.numpy())
            first = batch.windows.states[torch.arange(60), 20 - batch.windows.lengths]
            begins = torch.from_numpy(compress(data.obs[data.offsets[:-1]]))
            starts += int((first[:, None] == begins).all(-1).any(1)[batch.windows.lengths < 20].sum())
        counts = np.bincount(np.concatenate(lengths), minlength=21)
        assert counts[20] / 2400 == pytest.approx(0.5, abs=0.04)
        assert (counts[1:20] > 30).all()
        assert 0.45 < starts / counts[:20].sum() < 0.65  # half of the short ones, and some that begin there by chance

    def test_windows_are_those_of_the_data(self, data: Dataset):
        batch = sampler(data, batch=40).sample()
        states = compress(data.obs)
        for i, length in enumerate(batch.windows.lengths.tolist()):
            newest = batch.windows.states[i, -1].numpy()
            row = int(np.flatnonzero((states == newest).all(1))[0])
            trajectory = data.trajectory_of_rows[row]
            assert data.task_id[trajectory] == batch.task[i]
            assert row - length + 1 >= data.offsets[trajectory]
            np.testing.assert_array_equal(
                batch.windows.states[i, 20 - length :].numpy(), states[row - length + 1 : row + 1]
            )
            between = slice(row - length + 1, row)
            np.testing.assert_array_equal(batch.windows.actions[i, 20 - length :].numpy(), data.action[between])
            np.testing.assert_array_equal(batch.windows.rewards[i, 20 - length :, 0].numpy(), data.reward[between])
            assert (batch.windows.states[i, : 20 - length] == 0).all()

    def test_trajectories_shorter_than_a_window(self):
        data = made_up(steps=8)
        batch = sampler(data, batch=60, full=1.0).sample()
        assert int(batch.windows.lengths.max()) == 8
        assert (np.diff(batch.windows.lengths.numpy()) <= 0).all()

    def test_it_goes_on_where_it_was(self, data: Dataset):
        one = sampler(data)
        one.sample()
        state = one.state_dict()
        expected = one.sample()
        other = sampler(data, seed=5)
        other.load_state_dict(state)
        for a, b in zip(expected.windows[:4], other.sample().windows[:4]):
            assert torch.equal(a, b)

    def test_groups_cover_a_batch(self):
        lengths = np.array([20, 20, 20, 19, 12, 7, 7, 1])
        groups = groups_of(lengths)
        assert [tuple(group) for group in groups] == [(3, 20, True), (2, 19, False), (3, 7, False)]
        assert [tuple(group) for group in groups_of(np.full(4, 20))] == [(4, 20, True)]
        assert sum(group.size for group in groups_of(np.array([20, 3]))) == 2


# --- what is learnt ---------------------------------------------------------------------------------------------------
class TestLoss:
    def test_it_is_what_its_parts_say(self, data: Dataset):
        made = learner(data, loss=LossConfig(state=2.0, action=0.5, reward=3.0, contrast=0.25))
        total, parts = made.loss(sampler(data).sample(), dice(), learning=False)
        told = 2.0 * parts["state"] + 0.5 * parts["action"] + 3.0 * parts["reward"]
        torch.testing.assert_close(parts["reconstruction"], told)
        torch.testing.assert_close(total, told + 0.25 * parts["contrast"])

    def test_by_a_plain_account_of_it(self, data: Dataset):
        """Two views, one after the other, without groups; the same hidden positions."""
        made = learner(data)
        batch = sampler(data).sample()
        total, parts = made.loss(batch, dice(3), learning=False)
        rng, windows = dice(3), made.model.normalized(batch.windows)
        valid = windows.valid, windows.valid_between, windows.valid_between
        sums, counts, codes = np.zeros(3), np.zeros(3), []
        for _ in range(2):
            views = [hide(x, there, MaskConfig(), rng) for x, there in zip(windows[:3], valid)]
            read = made.model(Windows(*(view.values for view in views), windows.lengths))
            codes.append(read.code)
            for m, (told, true, view) in enumerate(zip(read[:3], windows[:3], views)):
                sums[m] += float(((told - true).square().mean(-1) * view.chosen).sum().detach())
                counts[m] += int(view.chosen.sum())
        expected = (sums / counts).sum() + 0.25 * float(losses.info_nce(*codes, batch.task, 0.15).detach())
        assert float(total.detach()) == pytest.approx(expected, rel=1e-5)
        assert list(parts) == ["loss", "reconstruction", "state", "action", "reward", "contrast"]

    def test_rewards_do_not_drown_the_rest(self, data: Dataset):
        """D5: the first loss is a few units, with rewards of up to 10."""
        assert data.reward.max() > 9
        _, parts = learner(data).loss(sampler(data, batch=60).sample(), dice(), learning=False)
        assert float(parts["reconstruction"].detach()) < 6
        assert float(parts["reward"]) < 2 * float(parts["state"])

    def test_the_masks_of_the_configuration_are_used(self, data: Dataset, monkeypatch: pytest.MonkeyPatch):
        """D7"""
        seen = []

        def spy(values: Any, valid: Any, cfg: MaskConfig, rng: Any) -> Any:
            seen.append(cfg)
            return hide(values, valid, cfg, rng)

        monkeypatch.setattr("collective.encoder.hide", spy)
        mask = MaskConfig(share=0.3, zero=0.5, noise=0.2)
        learner(data, mask=mask).loss(sampler(data).sample(), dice(), learning=True)
        assert seen == [mask] * 6

    def test_what_must_differ_is_a_choice(self):
        """Windows that share the label are no negatives of each other: with one arm there is nothing to contrast."""
        data = made_up(arms=1)
        batch = sampler(data).sample()
        by = {
            name: learner(data, contrast_by=name).loss(batch, dice(), False)[1]["contrast"]
            for name in ("task", "arm", "none")
        }
        assert float(by["arm"]) == 0.0
        assert 0 < float(by["task"]) < float(by["none"])
        two = made_up(arms=2)
        assert float(learner(two, contrast_by="arm").loss(sampler(two).sample(), dice(), False)[1]["contrast"]) > 0

    def test_tasks_are_told_apart_by_logits(self, data: Dataset):
        """D8: the softmax belongs to the cross-entropy, once."""
        made, batch = learner(data, objective="classify"), sampler(data).sample()
        assert made.model.class_head is not None
        with torch.no_grad():
            made.model.class_head.weight.zero_()
            made.model.class_head.bias.copy_(torch.tensor([0.0, 30.0, 0.0]))
        _, parts = made.loss(batch, dice(), learning=False)
        wrong = float((batch.task != 1).float().mean())
        assert float(parts["cross_entropy"]) == pytest.approx(30 * wrong, rel=1e-4)  # a second softmax allows 1.55
        assert "contrast" not in parts

    def test_dropout_is_for_learning_only(self, data: Dataset):
        made, batch = learner(data), sampler(data).sample()
        quiet = [float(made.loss(batch, dice(), learning=False)[0]) for _ in range(2)]
        assert quiet[0] == quiet[1] != float(made.loss(batch, dice(), learning=True)[0])

    def test_a_batch_of_single_states(self, data: Dataset):
        """No action, no reward, perhaps nothing hidden: still a number."""
        made, rows = learner(data), data.offsets[:-1]
        batch = batch_of(data, rows, np.ones(len(rows), np.int64), 20)
        total, parts = made.loss(batch, dice(), learning=True)
        assert bool(torch.isfinite(total))
        assert float(parts["action"]) == float(parts["reward"]) == 0.0
        total.backward()
        assert all(bool(torch.isfinite(p.grad).all()) for p in made.model.parameters() if p.grad is not None)

    @pytest.mark.parametrize("share", [0.5, 1.0])
    def test_actions_can_be_kept_from_the_code(self, share: float, data: Dataset):
        made, batch = learner(data, action_dropout=share), sampler(data, batch=60).sample()
        seen = made._without_actions(batch.windows, dice())
        blind = (seen.actions == 0).all(2).all(1)[batch.windows.lengths > 1]
        assert float(blind.float().mean()) == pytest.approx(share, abs=0.2)
        if share == 1.0:  # then acting hides them, too
            encoder, (states, actions, rewards, lengths) = made.encoder(), windows_of(data, np.arange(30))
            np.testing.assert_array_equal(
                encoder.codes(states, actions, rewards, lengths), encoder.codes(states, 0 * actions, rewards, lengths)
            )
            assert encoder.fingerprint != fingerprint(made.model)


@pytest.mark.parametrize("encoder", ["transformer", "lstm", "gru"])
def test_learning_lowers_the_loss(encoder: str, data: Dataset):
    made, draw = learner(data, encoder=encoder, updates=40, lr=5e-3, warmup_updates=5), sampler(data, batch=24)
    rows = [made.update(draw.sample()) for _ in range(40)]
    assert made.updates == 40
    for name in ("reconstruction", "contrast"):
        first, last = (float(torch.stack([row[name] for row in part]).mean()) for part in (rows[:5], rows[-5:]))
        assert last < 0.7 * first, name


def test_a_saved_learner_goes_on_as_if_nothing_had_been(data: Dataset):
    one, draw = learner(data), sampler(data)
    one.update(draw.sample())
    state = copy.deepcopy(one.state_dict())
    batch = draw.sample()
    other = learner(data, dir=Path("elsewhere"))
    other.load_state_dict(state)
    one.update(batch)
    other.update(batch)
    for a, b in zip(one.model.state_dict().values(), other.model.state_dict().values()):
        assert torch.equal(a, b)


def test_a_learner_of_other_data_is_refused(data: Dataset):
    state = learner(data).state_dict()
    with pytest.raises(DataError, match=r"digest is .* in these data and .* in the checkpoint"):
        learner(made_up(seed=101)).load_state_dict(state)


# --- encoders that are used -------------------------------------------------------------------------------------------
class TestEncoder:
    def test_one_by_one_or_together(self, data: Dataset):
        """Oracle 17, through numpy: envs of different age."""
        encoder, rows = some_encoder(data), np.random.default_rng(0).permutation(len(data.obs))[:150]
        arrays = windows_of(data, rows)
        together = encoder.codes(*arrays)
        assert together.shape == (150, 6)
        assert together.dtype == np.float32
        assert set(range(1, 21)) <= set(arrays[3].tolist())
        alone = np.concatenate([encoder.codes(*(array[i : i + 1] for array in arrays)) for i in range(150)])
        np.testing.assert_allclose(together, alone, **CLOSE)
        cropped = [
            encoder.codes(s[None, 20 - n :], a[None, 20 - n :], r[None, 20 - n :], np.array([n]))
            for s, a, r, n in zip(*arrays)
        ]
        np.testing.assert_allclose(together, np.concatenate(cropped), rtol=0, atol=1e-5)

    def test_it_is_what_was_learnt(self, data: Dataset):
        made = learner(data)
        encoder, arrays = made.encoder(), windows_of(data, np.arange(0, 200, 7))
        windows = batch_of(data, np.arange(0, 200, 7), arrays[3], 20).windows
        expected = made.model(made.model.normalized(windows)).code.detach().numpy()
        np.testing.assert_allclose(encoder.codes(*arrays), expected, rtol=0, atol=1e-5)
        assert (encoder.code_dim, encoder.length, encoder.tasks) == (6, 20, TASKS)

    def test_no_windows_no_codes(self, data: Dataset):
        arrays = [array[:0] for array in windows_of(data, np.arange(3))]
        assert some_encoder(data).codes(*arrays).shape == (0, 6)

    def test_it_does_not_change_while_its_learner_goes_on(self, data: Dataset):
        made = learner(data)
        encoder, arrays = made.encoder(), windows_of(data, np.arange(50))
        before = encoder.codes(*arrays)
        made.update(sampler(data).sample())
        np.testing.assert_array_equal(encoder.codes(*arrays), before)
        assert not any(p.requires_grad for p in encoder.model.parameters())

    def test_other_readouts(self, data: Dataset):
        encoder, arrays = some_encoder(data), windows_of(data, np.arange(0, 100, 3))
        model = encoder.model
        for i in (0, 2, 30):
            n = int(arrays[3][i])
            s, a, r = (torch.from_numpy(array[i : i + 1, 20 - n :]) for array in arrays[:3])
            out = model.outputs(model.normalized(Windows(s, a, r[..., None], torch.tensor([n]))))[0]
            for readout, expected in (("last-state", out[-2]), ("mean", out[:-1].mean(0))):
                found = encoder.codes(*arrays, readout=readout)[i]
                np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-5)
                assert len(found) == encoder.width(readout) == 16

    def test_a_fingerprint_changes_with_any_weight_and_any_constant(self, data: Dataset):
        made = learner(data)
        known = {fingerprint(made.model)}
        assert made.encoder().fingerprint == fingerprint(made.model)
        names = list(made.model.state_dict())
        assert {"state_mean", "state_scale", "cls", "position"} <= set(names)
        for name in names:
            value = made.model.state_dict()[name].view(-1)
            value[-1] += 1e-3
            known.add(fingerprint(made.model))
            value[-1] -= 1e-3
        assert len(known) == len(names) + 1
        assert all(len(mark) == 16 and int(mark, 16) >= 0 for mark in known)

    def test_a_state_makes_the_same_encoder(self, data: Dataset):
        encoder = some_encoder(data, encoder="gru", objective="classify")
        again = Encoder.from_state(checkpoint.portable(encoder.state_dict()))
        assert again.fingerprint == encoder.fingerprint
        assert again.tasks == encoder.tasks
        arrays = windows_of(data, np.arange(40))
        np.testing.assert_array_equal(again.codes(*arrays), encoder.codes(*arrays))

    def test_a_state_of_something_else(self, data: Dataset):
        state = some_encoder(data).state_dict()
        with pytest.raises(DataError, match="holds no encoder"):
            Encoder.from_state({**state, "dims": [22, 4]})
        with pytest.raises(DataError, match="holds no encoder"):
            Encoder.from_state({"weights": {}})

    def test_what_is_not_there_is_said(self, tmp_path: Path):
        """D3: never a random encoder in its place."""
        with pytest.raises(DataError, match=r"there is no encoder .*collective train-encoder"):
            Encoder.load(tmp_path / "nowhere")
        with pytest.raises(DataError, match=r"holds no trained encoder; .collective train-encoder"):
            Encoder.load(tmp_path)
        checkpoint.save(tmp_path / "other.pt", {"step": 0, "parts": {"agent": {"weights": torch.zeros(2)}}})
        with pytest.raises(DataError, match=r"other.pt holds no encoder; .collective train-encoder"):
            Encoder.load(tmp_path / "other.pt")
        (tmp_path / "torn.pt").write_bytes(b"PK")
        with pytest.raises(DataError, match=r"torn\.pt"):
            Encoder.load(tmp_path / "torn.pt")
