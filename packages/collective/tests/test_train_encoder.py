"""`collective train-encoder`: what it writes, what it refuses, runs that stop and go on, what it learns."""

from __future__ import annotations

import json
import os
import signal
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from collective_windows import TASKS, made_up, written
from stopped_runs import evaluation_is_given_up, final, rows, same

from collective.analysis import telling
from collective.cli import main
from collective.data import load, load_all
from collective.encoder import Encoder, EncoderLearner
from collective.prefixes import WindowSampler
from collective.windows import windows_of
from rlcore import checkpoint
from rlcore.files import read_json


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("windows") / "data")


@pytest.fixture(scope="module")
def trained(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("trained"), "run", recorded)


def train(root: Path, name: str, data: Path, *options: str, code: int = 0) -> Path:
    words = ["train-encoder", "--preset", "debug", "--quiet", "--dir", str(root), "--name", name]
    assert main([*words, "--data", str(data), *options]) == code
    return root / name


# --- what a run leaves ------------------------------------------------------------------------------------------------
def test_a_run_says_what_happened(trained: Path, recorded: Path):
    assert {"loss", "reconstruction", "state", "action", "reward", "contrast"} <= rows(trained)[0].keys()
    scores = rows(trained, "eval")
    assert [row["step"] for row in scores] == [12, 24]
    told = {
        f"val_{name}" for name in ("state", "action", "reward", "contrast", "last_state", "last_before", "silhouette")
    }
    spans = {f"val_accuracy{end}" for end in ("", "_1", "_2_5", "_6_19", "_20")}
    assert told | spans <= scores[0].keys()
    facts = read_json(trained / "env.json")
    assert (facts["stage"], facts["tasks"], facts["state_dim"], facts["action_dim"]) == ("encoder", list(TASKS), 21, 4)


def test_the_card_is_of_the_encoder_that_is_loaded(trained: Path, recorded: Path):
    card, encoder = read_json(trained / "card.json"), Encoder.load(trained)
    assert card["fingerprint"] == encoder.fingerprint
    best = min(reversed(rows(trained, "eval")), key=lambda row: row["val_contrast"])
    assert card["step"] == best["step"] == checkpoint.load(trained / "checkpoints" / "best.pt")["step"]
    assert card["validation"]["accuracy"] == best["val_accuracy"]
    assert card["data"]["digest"] == load(recorded).meta["digest"]
    assert (card["data"]["training"], card["data"]["validation"]) == (24, 6)
    assert (card["tasks"], card["arms"], card["code_dim"], card["length"]) == (list(TASKS), [0], 6, 20)
    assert (trained / "plots" / "embedding.png").read_bytes().startswith(b"\x89PNG")


def test_an_encoder_carries_its_constants(trained: Path, recorded: Path):
    """Of the training split alone (D6): windows come raw, and nobody else needs to know how they are normalised."""
    encoder, data = Encoder.load(trained), load(recorded)
    states = data.of_split("train").obs[:, [*range(18), 36, 37, 38]]
    np.testing.assert_allclose(encoder.model.state_mean.numpy(), states.mean(0), rtol=0, atol=1e-5)
    file = Encoder.load(trained / "checkpoints" / "best.pt")
    arrays = windows_of(data, np.arange(40))
    np.testing.assert_array_equal(file.codes(*arrays), encoder.codes(*arrays))
    assert encoder.codes(*arrays).std() > 0.1


def test_several_data_sets(recorded: Path, tmp_path: Path):
    other = written(tmp_path / "more", made_up(tasks=TASKS[1:], seed=101))
    folder = train(tmp_path, "run", recorded, str(other), "--updates", "12")
    card = read_json(folder / "card.json")
    assert card["data"]["trajectories"] == 50 == load_all([recorded, other]).trajectories
    assert card["data"]["folders"] == [str(recorded), str(other)]


@pytest.mark.parametrize(
    "options", [("--encoder", "lstm", "--objective", "classify"), ("--contrast-by", "none", "--action-dropout", "1")]
)
def test_other_kinds_of_encoder(options: tuple[str, ...], recorded: Path, tmp_path: Path):
    folder = train(tmp_path, "run", recorded, *options)
    codes = Encoder.load(folder).codes(*windows_of(load(recorded), np.arange(30)))
    assert codes.shape == (30, 6)
    assert np.isfinite(codes).all()
    assert ("val_cross_entropy" in rows(folder, "eval")[0]) == ("classify" in options)


def test_a_run_begins_and_ends_in_words(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["train-encoder", "--preset", "debug", "--data", str(recorded), "--dir", str(tmp_path), "--name", "run"]
    assert main(words) == 0
    said = capsys.readouterr().err
    assert "codes of 6 numbers for 3 tasks, by contrast (apart by task), read by a transformer: 24 trajectories" in said
    assert "of held-out windows told by the nearest centroid" in said
    assert f"encoder {Encoder.load(tmp_path / 'run').fingerprint} of update" in said


def test_nothing_is_written_outside_the_run(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """D23, D24: no path of anybody's machine, no file beside the run."""
    monkeypatch.chdir(tmp_path)
    before = sorted(path.name for path in recorded.iterdir())
    train(Path("runs"), "run", recorded)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert sorted(path.name for path in recorded.iterdir()) == before


# --- refusals ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ((), 2, "which behaviour? --data FOLDER; `collective record` makes some"),
        (("--data", "nowhere"), 4, "nowhere"),
        (("--updates", "0"), 2, "updates: must be in 1"),  # D2: a run that trains nothing
        (("--full-share", "1.5"), 2, "full_share: must be in [0, 1]"),
        (("--mask.share", "0"), 2, "mask.share: must be in (0, 1]"),
        (("--model.heads", "5"), 2, "multiple of heads"),
        (("--loss.temperature", "0"), 2, "loss.temperature: must be positive"),
        (("--encoder", "rnn"), 2, "rnn"),
        (("--contrast-buy", "arm"), 2, "did you mean --contrast-by?"),  # D14
        (("--batch", "1"), 2, "batch: must be in 2"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    options: tuple[str, ...], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["train-encoder", *options, "--dir", str(tmp_path / "runs"), "--quiet"]) == code
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_data_of_which_nothing_can_be_held_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """D6: a task with one trajectory could only be examined on what was learnt."""
    few = written(tmp_path / "few", made_up(trajectories=1))
    train(tmp_path, "run", few, code=4)
    said = capsys.readouterr().err
    assert "toy-reach has 1 trajectories and none in the validation split: record more" in said
    assert not (tmp_path / "run").exists()


def test_data_of_other_sizes_and_data_without_shards(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """D19, D23: sizes are those of the header; a stray file in the folder is nobody's shard."""
    import shutil

    for name, change, wanted in (
        ("wide", {"obs_dim": 49}, "obs_dim is 49"),
        ("empty", {"shards": [], "validation": []}, "the data set is empty"),
        ("stray", {}, ""),
    ):
        folder = tmp_path / name
        shutil.copytree(recorded, folder)
        (folder / "notes.txt").write_text("a stray file")
        manifest = read_json(folder / "manifest.json") | change
        (folder / "manifest.json").write_text(json.dumps(manifest))
        train(tmp_path, f"run-{name}", folder, "--updates", "12", code=4 if wanted else 0)
        assert wanted in capsys.readouterr().err


def test_a_run_does_not_go_on_with_other_data(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """It is refused before anything is touched."""
    copy = written(tmp_path / "data")
    folder = train(tmp_path, "run", copy)
    before = final(folder)
    written(copy, made_up(seed=5))  # a shard more
    train(tmp_path, "run", copy, code=4)
    assert "are not what" in capsys.readouterr().err
    same(final(folder), before)


# --- stopping and going on --------------------------------------------------------------------------------------------
@pytest.fixture
def send(monkeypatch: pytest.MonkeyPatch):
    """Have the next run send itself a signal at this update."""

    def arrange(number: signal.Signals, updates: int) -> None:
        update, sent = EncoderLearner.update, []

        def counted(self: EncoderLearner, batch: Any) -> Any:
            metrics = update(self, batch)
            if self.updates >= updates and not sent:
                sent.append(number)
                os.kill(os.getpid(), number)
            return metrics

        monkeypatch.setattr(EncoderLearner, "update", counted)

    return arrange


@pytest.mark.parametrize(("encoder", "moment"), [("transformer", 5), ("gru", 12)])
def test_half_and_half_is_whole(encoder: str, moment: int, recorded: Path, tmp_path: Path, send: Any):
    options = ("--encoder", encoder, "--action-dropout", "0.3")
    whole = train(tmp_path, "whole", recorded, *options)
    send(signal.SIGTERM, moment)
    train(tmp_path, "halves", recorded, *options, code=85)
    assert not (tmp_path / "halves" / "card.json").exists()
    halves = train(tmp_path, "halves", recorded, *options)
    assert rows(halves) == rows(whole)
    assert rows(halves, "eval") == rows(whole, "eval")
    same(final(whole), final(halves))
    assert read_json(halves / "card.json")["fingerprint"] == read_json(whole / "card.json")["fingerprint"]


def test_a_stop_in_the_last_evaluation_does_not_wait_for_it(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def command(name: str, code: int) -> Path:
        folder = train(tmp_path, name, recorded, code=code)
        assert (folder / "card.json").exists() == (code == 0)
        return folder

    evaluation_is_given_up(command, "collective.analysis.telling.scores", monkeypatch, at=2)


def test_looking_and_saving_do_not_touch_training(recorded: Path, tmp_path: Path):
    often = train(tmp_path, "often", recorded, "--eval-every", "3", "--save-every", "5")
    seldom = train(tmp_path, "seldom", recorded, "--eval-every", "1000", "--save-every", "1000")
    same(final(often), final(seldom))
    assert rows(often) == rows(seldom)


def test_one_seed_one_run(recorded: Path, tmp_path: Path):
    one, again, other = (
        train(tmp_path, n, recorded, "--seed", seed) for n, seed in (("a", "5"), ("b", "5"), ("c", "6"))
    )
    same(final(one), final(again))
    assert rows(one) != rows(other)


def test_a_loss_that_is_not_a_number_stops_at_that_step(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    sample, count = WindowSampler.sample, [0]

    def sick(self: WindowSampler) -> Any:
        batch = sample(self)
        count[0] += 1
        if count[0] < 22:  # eight batches are the validation's
            return batch
        return batch._replace(windows=batch.windows._replace(rewards=batch.windows.rewards * float("nan")))

    monkeypatch.setattr(WindowSampler, "sample", sick)
    folder = train(tmp_path, "run", recorded, code=3)
    assert "loss is not finite at step 14" in capsys.readouterr().err
    dump = torch.load(next((folder / "analysis").glob("nonfinite_step_*.pt")), weights_only=True)
    assert bool(torch.isnan(dump["rewards"]).any())
    assert not (folder / "card.json").exists()
    for path in (folder / "checkpoints").glob("step_*.pt"):
        assert checkpoint.nonfinite(checkpoint.load(path)["parts"], "parts") is None


# --- what it learns ---------------------------------------------------------------------------------------------------
@pytest.mark.learn
@pytest.mark.parametrize("seed", ["0", "1"])
def test_it_learns_to_tell_tasks_apart(seed: str, recorded: Path, tmp_path: Path):
    """What is hidden is told with a fifth of the first error; tasks are told apart where they can be."""
    same_for_both = ("--batch", "16", "--lr", "4e-3", "--seed", seed, "--eval-every", "100")
    before = rows(train(tmp_path, "first", recorded, *same_for_both, "--updates", "1"), "eval")[-1]
    after = rows(train(tmp_path, "run", recorded, *same_for_both, "--updates", "100"), "eval")[-1]
    assert after["val_reconstruction"] < before["val_reconstruction"] / 5
    assert after["val_accuracy"] > 0.95
    assert after["val_contrast"] < before["val_contrast"] / 5


def test_the_codes_of_an_untrained_encoder_are_no_good(recorded: Path, trained: Path):
    """What makes the test above one that can fail."""
    data = load(recorded)
    encoder = Encoder.load(trained)
    with torch.no_grad():
        encoder.model.code_head.weight.zero_()
        encoder.model.code_head.weight[:, 0] = 1.0
    told = telling.tell(encoder, data.of_split("train"), data.of_split("validation"), 10, np.random.default_rng(0))
    assert telling.scores(told)["accuracy"] < 0.8


def test_no_warning_is_raised(recorded: Path, tmp_path: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(tmp_path, "run", recorded, "--updates", "6")


def test_presets_are_sound():
    from collective.config_encoder import EncoderConfig
    from rlcore.config import from_dict

    made = {name: from_dict(EncoderConfig, options, name) for name, options in EncoderConfig.PRESETS.items()}
    assert set(made) == {"cpu", "gpu", "reference", "debug"}
    reference = made["reference"]
    assert (reference.lr, reference.batch, reference.model.dropout, reference.updates) == (2e-4, 128, 0.1, 20_000)
    assert (reference.model.width, reference.model.layers, reference.model.heads, reference.model.hidden) == (
        32,
        3,
        8,
        128,
    )
    assert (reference.mask.share, reference.mask.zero, reference.mask.noise) == (0.15, 0.8, 0.1)
    assert (reference.loss.contrast, reference.loss.temperature) == (0.25, 0.15)
    assert made["cpu"] == replace(made["cpu"])
