"""`gasp skills train` and `skills eval`: what they write, what they refuse, runs that stop and go on (R1 to R5)."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from stopped_runs import evaluation_is_given_up, final, killed_ends_the_same, rows, same, signal_saves_the_step

from gasp import data
from gasp.cli import main
from gasp.config_skills import ModelConfig, SkillsConfig
from gasp.config_views import ViewConfig
from gasp.latent import LatentPrior, fit_epochs
from gasp.run.saved import find, load_skills, read_skills
from gasp.run.skills_eval import demonstrations
from gasp.skills import SkillLearner
from gasp.windows import WindowSampler
from rlcore import checkpoint
from rlcore.errors import DataError, UsageError
from rlcore.files import read_json

ARMS = {"gasp": (), "spirl": ("--latent-prior", "gaussian", "--prior-loss", "nll"), "target": ("--target-kl", "0.5")}


def words(demos: Path, *options: str) -> list[str]:
    return ["skills", "train", "--preset", "debug", "--data", str(demos), *options]


def train(root: Path, name: str, demos: Path, *options: str, code: int = 0) -> Path:
    assert main([*words(demos, *options), "--quiet", "--dir", str(root), "--name", name]) == code
    return root / name


def fits(folder: Path) -> list[dict[str, Any]]:
    """The history of the mixture."""
    return rows(folder, "mixture")


# --- what a run leaves ------------------------------------------------------------------------------------------------
def test_a_run_says_what_happened(gasp_skills: Path):
    assert [row["epoch"] for row in rows(gasp_skills, "mixture")] == list(fit_epochs(4))
    history = fits(gasp_skills)
    assert history[-1]["components"] > 1
    assert sum(history[-1]["weights"]) == pytest.approx(1.0, abs=0.01)
    assert {"loss", "reconstruction", "kl", "prior_loss", "beta"} <= rows(gasp_skills)[0].keys()
    scores = rows(gasp_skills, "eval")
    assert {"val_mse", "val_share", "val_prior_share", "val_kl"} <= scores[0].keys()
    assert scores[-1]["val_share"] < scores[0]["val_share"]
    facts = read_json(gasp_skills / "env.json")
    assert (facts["stage"], facts["task"], facts["obs_dim"], facts["action_dim"]) == ("skills", "toy", 4, 2)


def test_the_best_checkpoint_has_the_least_error(gasp_skills: Path):
    best = min(rows(gasp_skills, "eval"), key=lambda row: row["val_mse"])
    assert load_skills(gasp_skills).step == load_skills(gasp_skills, "best").step == best["step"]


def test_a_run_begins_by_saying_which_losses(toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """D12: the loss of the skill prior is printed; SPiRL's preset and GASP's differ in it."""
    assert main([*words(toy_data, *ARMS["spirl"]), "--dir", str(tmp_path), "--name", "run"]) == 0
    said = capsys.readouterr().err
    assert "latent prior: N(0, I) (SPiRL); loss of the skill prior: -log p(z|s) (nll)" in said
    assert "of the actions' variance" in said


def test_nothing_is_written_outside_the_run(toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """D15: the mixture lies in the checkpoint, not beside the program."""
    monkeypatch.chdir(tmp_path)
    train(tmp_path / "runs", "run", toy_data)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["run"]


# --- loading ----------------------------------------------------------------------------------------------------------
def test_skills_are_what_they_were(gasp_skills: Path, toy_data: Path):
    skills = load_skills(gasp_skills, "final")
    saved = checkpoint.load(gasp_skills / "checkpoints" / "final.pt")["parts"]["agent"]
    for name, value in skills.model.state_dict().items():
        assert torch.equal(value, saved["model"][name])
    assert not skills.model.training
    assert not any(p.requires_grad for p in skills.model.parameters())
    assert skills.mixture is not None
    assert skills.mixture.num_components == rows(gasp_skills, "mixture")[-1]["components"]
    assert skills.mixture.predict(torch.zeros(2, 3)).shape == (2,)
    assert skills.facts["horizon"] == 10
    demos = data.load(toy_data)
    assert (skills.facts["episodes"], skills.facts["states"]) == (demos.episodes, len(demos.obs))


def test_skills_are_whole_on_another_device(gasp_skills: Path):
    """Networks and mixture alike. The device "meta" has no numbers, but says where they would be."""
    skills = read_skills(find(gasp_skills, "final"), "meta")
    assert {value.device.type for value in skills.model.state_dict().values()} == {"meta"}
    assert skills.prior.means.device.type == skills.prior.variances.device.type == "meta"


def test_spirls_skills_have_no_mixture(spirl_skills: Path):
    assert load_skills(spirl_skills).mixture is None


def test_batch_norm_of_one_window_is_refused():
    with pytest.raises(UsageError, match="batch norm needs at least 2"):
        SkillsConfig(data=Path("d.h5"), model=ModelConfig(norm="batch"), batch=1)


def test_what_is_no_skill_run_is_named(tmp_path: Path, gasp_skills: Path):
    with pytest.raises(UsageError, match="there is no run"):
        load_skills(tmp_path / "nothing")
    with pytest.raises(UsageError, match="expected best, final, last, auto"):
        load_skills(gasp_skills, "newest")
    copy = tmp_path / "copy"
    shutil.copytree(gasp_skills, copy, symlinks=True)
    (copy / "env.json").write_text('{"stage": "rl"}')
    with pytest.raises(UsageError, match="is no skill run \\(its stage is rl\\)"):
        load_skills(copy)


@pytest.mark.parametrize("where", [0.1, 0.5, 0.9])
def test_a_damaged_checkpoint_is_named(where: float, gasp_skills: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(gasp_skills, copy, symlinks=True)
    path = (copy / "checkpoints" / "best.pt").resolve()
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=path.name):
        load_skills(copy)


# --- refusals ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "which demonstrations?"),
        (("--data", "nowhere.h5"), "nowhere.h5 does not exist"),
        (("--lr-end", "2"), "lr_end: must be in [0, 1]"),
        (("--mixture.min-new-frac", "0"), "min_new_frac: must be in (0, 1)"),
        (("--model.horizon", "0"), "horizon: must be in 1"),
        (("--latent-prior", "flow"), "flow"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    options: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    code = main(["skills", "train", *options, "--dir", str(tmp_path / "runs"), "--quiet"])
    error = capsys.readouterr().err
    assert code == (4 if "does not exist" in said else 2)
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_windows_longer_than_episodes(toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    train(tmp_path, "run", toy_data, "--model.horizon", "500", code=4)
    assert "windows need 501" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_does_not_go_on_with_other_data(toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """It is refused before anything is touched, and goes on once the data are back."""
    copy = tmp_path / "toy.h5"
    shutil.copy(toy_data, copy)
    folder = train(tmp_path, "run", copy)
    before = final(folder)
    with h5py.File(copy, "r+") as file:
        file["obs"][3, 0] += 1.0
    train(tmp_path, "run", copy, code=4)
    assert "is not what" in (said := capsys.readouterr().err)
    assert "checksum" in said
    shutil.copy(toy_data, copy)
    same(final(train(tmp_path, "run", copy)), before)


# --- resuming ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def send(monkeypatch: pytest.MonkeyPatch):
    """Have the next run send itself a signal at this update."""

    def arrange(number: signal.Signals, updates: int) -> None:
        update, sent = SkillLearner.update, []

        def counted(self: SkillLearner, batch: Any) -> Any:
            metrics = update(self, batch)
            if self.updates >= updates and not sent:
                sent.append(number)
                os.kill(os.getpid(), number)
            return metrics

        monkeypatch.setattr(SkillLearner, "update", counted)

    return arrange


@pytest.mark.parametrize("moment", [5, 6, 15])  # in the first epoch; before its fit; after the third one's fit
@pytest.mark.parametrize("arm", list(ARMS))
def test_half_and_half_is_whole(arm: str, moment: int, toy_data: Path, tmp_path: Path, send: Any):
    """R2, and D14: fits come when the whole run would have made them."""
    whole = train(tmp_path, "whole", toy_data, *ARMS[arm])
    send(signal.SIGTERM, moment)
    train(tmp_path, "halves", toy_data, *ARMS[arm], code=85)
    halves = train(tmp_path, "halves", toy_data, *ARMS[arm])
    assert rows(halves) == rows(whole)
    assert rows(halves, "eval") == rows(whole, "eval")
    assert fits(halves) == fits(whole)
    assert len(fits(whole)) == (0 if arm == "spirl" else 3)
    same(final(whole), final(halves))


def test_a_stop_in_an_evaluation_does_not_wait_for_it(toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    evaluation_is_given_up(
        lambda name, code: train(tmp_path, name, toy_data, code=code), "gasp.run.skills_train.errors", monkeypatch
    )


def test_looking_and_saving_do_not_touch_training(toy_data: Path, tmp_path: Path):
    often = train(tmp_path, "often", toy_data, "--eval-every", "3", "--save-every", "5")
    seldom = train(tmp_path, "seldom", toy_data, "--eval-every", "1000", "--save-every", "1000")
    same(final(often), final(seldom))
    assert rows(often) == rows(seldom)


def test_one_seed_one_run(toy_data: Path, tmp_path: Path):
    one, again, other = (
        train(tmp_path, n, toy_data, "--seed", seed) for n, seed in (("a", "5"), ("b", "5"), ("c", "6"))
    )
    same(final(one), final(again))
    assert rows(one) != rows(other)


@pytest.mark.slow
def test_killed_again_and_again_it_ends_the_same(toy_data: Path, tmp_path: Path):
    every = words(toy_data, "--save-every", "2", "--updates-per-epoch", "20", "--eval-every", "1000")
    killed_ends_the_same(["gasp", *every], tmp_path, (10, 50))
    assert fits(tmp_path / "killed") == fits(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 85), (signal.SIGINT, 130)])
def test_a_signal_saves_the_very_step(number: signal.Signals, code: int, toy_data: Path, tmp_path: Path):
    endless = words(toy_data, "--updates-per-epoch", "1000000", "--save-every", "10")
    assert signal_saves_the_step(["gasp", *endless], tmp_path, number, 10) == code


# --- numbers and disks ------------------------------------------------------------------------------------------------
def test_a_loss_that_is_not_a_number_stops_at_that_step(
    toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    sample = WindowSampler.sample

    def sick(self: WindowSampler) -> Any:
        obs, action = sample(self)
        return (obs, action * float("nan")) if len(self.order) < 500 - 14 * 16 else (obs, action)

    monkeypatch.setattr(WindowSampler, "sample", sick)
    folder = train(tmp_path, "run", toy_data, code=3)
    assert "loss is not finite" in capsys.readouterr().err
    dump = torch.load(next((folder / "analysis").glob("nonfinite_step_*.pt")), weights_only=True)
    assert bool(torch.isnan(dump["action"]).any())
    for path in (folder / "checkpoints").glob("step_*.pt"):
        assert checkpoint.nonfinite(checkpoint.load(path)["parts"], "parts") is None


def test_a_full_disk_is_one_line_and_costs_nothing(
    toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    whole = train(tmp_path, "whole", toy_data)
    capsys.readouterr()
    save = checkpoint.save

    def full(path: Path, state: Any) -> None:
        if "000000024" in path.name:
            raise OSError(28, "No space left on device", str(path))
        save(path, state)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", full)
        train(tmp_path, "run", toy_data, code=5)
    error = capsys.readouterr().err
    assert "No space left on device" in error
    assert error.count("\n") == 1
    same(final(train(tmp_path, "run", toy_data)), final(whole))


def test_skills_all_alike_are_warned_of(toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A mixture of latents that have collapsed is one component, and the run says so."""
    fit = LatentPrior.fit
    monkeypatch.setattr(LatentPrior, "fit", lambda self, z: fit(self, 1e-3 * z))
    said: list[str] = []
    monkeypatch.setattr("rlcore.logger.Console.say", lambda self, text: said.append(text))
    folder = train(tmp_path, "run", toy_data)
    assert [row["components"] for row in fits(folder)] == [1, 1, 1]
    assert any("skills hardly differ" in text for text in said)


# --- skills eval ------------------------------------------------------------------------------------------------------
def test_eval_scores_three_sources(gasp_skills: Path, capsys: pytest.CaptureFixture[str]):
    command = ["skills", "eval", str(gasp_skills), "--windows", "20", "--draws", "10"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("p(z|s0)", "latent prior", "q(z|s,a)", "best of 10"))
    assert main([*command, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again == read_json(gasp_skills / "analysis" / "skills_eval.json")
    assert set(again[0]["top"]) == {"prior", "mixture", "posterior"}
    assert again[0]["windows"] == 20


def test_eval_of_all_checkpoints(gasp_skills: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["skills", "eval", str(gasp_skills), "--windows", "4", "--draws", "2", "--all", "--json"]) == 0
    kept = checkpoint.Checkpoints(gasp_skills / "checkpoints").steps()
    assert [row["step"] for row in json.loads(capsys.readouterr().out)] == kept


def test_eval_notices_that_its_data_have_changed(gasp_skills: Path, toy_data: Path, tmp_path: Path):
    """Even where there are as many of them."""
    skills, copy = load_skills(gasp_skills), tmp_path / "toy.h5"
    shutil.copy(toy_data, copy)
    elsewhere = replace(skills, cfg=replace(skills.cfg, data=copy))
    demonstrations(elsewhere, ViewConfig(run=gasp_skills))
    with h5py.File(copy, "r+") as file:
        file["obs"][3, 0] += 1.0
    with pytest.raises(DataError, match="has changed since the run learnt from it \\(checksum"):
        demonstrations(elsewhere, ViewConfig(run=gasp_skills))


def test_eval_on_data_that_do_not_fit(gasp_skills: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    other = data.Demos.of([(np.zeros((30, 6)), np.zeros((29, 2)))] * 3, {"task": "x", "obs_mode": "point"})
    data.save(tmp_path / "other.h5", other)
    assert main(["skills", "eval", str(gasp_skills), "--data", str(tmp_path / "other.h5")]) == 4
    assert "does not fit these skills: obs_dim 6, not 4" in capsys.readouterr().err
