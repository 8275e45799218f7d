"""`gasp rl train` and `rl eval` on the toy: what they write, what they refuse, runs that stop and go on."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stopped_runs import evaluation_is_given_up, final, killed_ends_the_same, rows, same, signal_saves_the_step

from gasp.agent import Agent
from gasp.cli import main
from gasp.config_rl import RLConfig
from gasp.hierarchy import Components
from gasp.run import rl_train
from gasp.run.episodes import Stage
from gasp.run.saved import load_skills
from gasp.run.saved_rl import open_rl
from rlcore import checkpoint
from rlcore.errors import DataError
from rlcore.files import read_json

ARMS = {"gasp": (), "spirl": ("--discount", "step"), "none": ("--regulariser", "entropy")}


def words(skills: Path, *options: str) -> list[str]:
    given = [f"--agent.{o[2:]}" if o[2:] in ("discount", "regulariser", "squash") else o for o in options]
    return ["rl", "train", "--preset", "debug", "--skills", str(skills), *given]


def train(root: Path, name: str, skills: Path, *options: str, code: int = 0) -> Path:
    assert main([*words(skills, *options), "--quiet", "--dir", str(root), "--name", name]) == code
    return root / name


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch):
    """They take longer than the runs here. The run below is made before this, with pictures."""
    monkeypatch.setattr("gasp.run.rl_train.draw_training", lambda *arguments: None)


@pytest.fixture(scope="module")
def run(gasp_skills: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("rl"), "run", gasp_skills)


# --- what a run leaves ------------------------------------------------------------------------------------------------
def test_a_run_says_what_happened(run: Path, gasp_skills: Path):
    facts = read_json(run / "env.json")
    assert (facts["method"], facts["horizon"], facts["latent_dim"]) == ("gasp", 10, 3)
    trained, evaluated = rows(run), rows(run, "eval")
    assert [row["step"] for row in evaluated] == [0, 240, 480]
    assert {"success_rate", "drawn_success_rate", "return_mean", "drawn_return_mean"} <= evaluated[0].keys()
    last = trained[-1]
    assert {"divergence", "alpha", "success_last20", "component_counts", "components_used", "skills"} <= last.keys()
    assert last["updates"] == 2 * (last["skills"] - next(r["skills"] for r in trained if r["step"] == 160))
    counted = np.sum([row["component_counts"] for row in trained], 0)
    assert 0 <= counted.sum() - last["skills"] <= 4  # those that are not over yet
    assert len(counted) == load_skills(gasp_skills).mixture.num_components > 1
    for picture in ("learning", "visits", "usage_training", "transitions_training"):
        assert (run / "plots" / f"{picture}.png").stat().st_size > 5_000


def test_components_are_what_the_mixture_predicts(gasp_skills: Path):
    """F10, D17: one look-up a decision, without the mixture's own overhead."""
    mixture = load_skills(gasp_skills).mixture
    z = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32) * 2
    assert np.array_equal(Components(mixture).of(z), mixture.predict(z))


def test_what_was_learnt_needs_the_skill_run_no_more(gasp_skills: Path, tmp_path: Path):
    moved = tmp_path / "skills"
    shutil.copytree(gasp_skills, moved)
    train(tmp_path, "run", moved, "--steps", "240")
    shutil.rmtree(moved)
    train(tmp_path, "run", moved, "--steps", "320")
    assert main(["rl", "eval", "--dir", str(tmp_path), "--name", "run", "--episodes", "2"]) == 0


@pytest.mark.parametrize("arm", ["spirl", "none"])
def test_the_other_arms_run_too(arm: str, spirl_skills: Path, tmp_path: Path):
    """D11: skills without a mixture are as good as any."""
    folder = train(tmp_path, "run", spirl_skills, *ARMS[arm])
    assert "component_counts" not in rows(folder)[-1]
    assert ("divergence" in rows(folder)[-1]) == (arm == "spirl")
    assert main(["rl", "eval", "--dir", str(tmp_path), "--name", "run", "--episodes", "2"]) == 0


def test_nothing_of_the_agent_is_learnt_before_the_warm_up_is_over(spirl_skills: Path, tmp_path: Path):
    folder = train(tmp_path, "run", spirl_skills, "--warmup", "480")
    saved = open_rl(folder)
    assert saved.agent.updates == 0
    for name, value in saved.agent.actor.state_dict().items():
        assert torch.equal(value, saved.agent.model.state_dict()[name]), name  # the policy is still the prior


# --- scoring ----------------------------------------------------------------------------------------------------------
def test_eval_writes_what_it_found(run: Path, capsys: pytest.CaptureFixture[str]):
    command = ["rl", "eval", "--dir", str(run.parent), "--name", "run", "--episodes", "3", "--json"]
    assert main(command) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == read_json(run / "eval.json")
    assert report["kinds"].keys() == {"mean", "drawn"}
    for row in report["kinds"].values():
        assert len(row["returns"]) == 3
        assert row["success_ci"][0] <= row["success_rate"] <= row["success_ci"][1]
        counts, following = np.array(row["component_counts"]), np.array(row["component_transitions"])
        assert following.sum() == counts.sum() - 3  # an episode's first skill follows none
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out) == report  # the same episodes
    assert main([*command, "--prior-only"]) == 0
    assert json.loads(capsys.readouterr().out)["kinds"].keys() == {"prior"}
    pictures = {path.stem for path in (run / "plots").glob("*.png")}
    assert {"usage_mean", "transitions_drawn", "visits_prior"} <= pictures


def test_what_a_gpu_has_saved_is_scored_here(run: Path, tmp_path: Path):
    """Its generator's state does not fit, and is not needed; nor are the optimisers."""
    state = checkpoint.load(run / "checkpoints" / "final.pt")
    del state["parts"]["agent"]["actor_adam"]
    state["parts"]["agent"]["noise"] = torch.zeros(16, dtype=torch.uint8)
    checkpoint.save(tmp_path / "moved.pt", state)
    whole, moved = open_rl(run, "final").agent, open_rl(run, str(tmp_path / "moved.pt")).agent
    assert all(torch.equal(value, moved.tensors()[name]) for name, value in whole.tensors().items())


def test_a_checkpoint_that_cannot_be_put_back_is_one_line(run: Path, monkeypatch: pytest.MonkeyPatch):
    def fails(self: Agent, state: Any) -> None:
        raise RuntimeError("no such\nkernel")

    monkeypatch.setattr(Agent, "load_nets", fails)
    with pytest.raises(DataError, match="is not one of an rl run: no such kernel"):
        open_rl(run)


def test_episodes_do_not_depend_on_how_they_are_grouped(run: Path, monkeypatch: pytest.MonkeyPatch):
    """Nor on whether envs are new or were played in before."""
    saved = open_rl(run)
    whole = Stage(saved.setting, 5, seed=3)
    one = whole.play(saved.agent, {"mean": "mean"})["mean"]
    again = whole.play(saved.agent, {"prior": "prior", "mean": "mean"})["mean"]
    monkeypatch.setattr("gasp.run.episodes.MAX_ENVS", 2)
    groups = Stage(saved.setting, 5, seed=3).play(saved.agent, {"mean": "mean"})["mean"]
    for other in (again, groups):
        assert np.array_equal(one.lengths, other.lengths)
        assert np.array_equal(one.counts, other.counts)
        assert sorted(one.episode.tolist()) == sorted(other.episode.tolist())
        np.testing.assert_allclose(np.sort(one.z, 0), np.sort(other.z, 0), atol=1e-4)


def test_evaluations_and_saving_do_not_touch_training(gasp_skills: Path, tmp_path: Path):
    often = train(tmp_path, "often", gasp_skills, "--eval-every", "80", "--save-every", "40")
    seldom = train(tmp_path, "seldom", gasp_skills, "--eval-every", "100000", "--save-every", "100000")
    same(final(often), final(seldom))
    assert rows(often) == rows(seldom)


# --- refusals ---------------------------------------------------------------------------------------------------------
def test_skills_of_another_kind_are_refused_with_every_field(
    gasp_skills: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    train(tmp_path, "run", gasp_skills, "--latent-prior", "gaussian", code=2)
    assert "trained with --latent-prior dpmm, this run wants gaussian" in capsys.readouterr().err
    from gasp import envs
    from gasp.config import EnvSpec

    monkeypatch.setattr(envs, "describe", lambda task, **options: EnvSpec(task, 59, 9, 8, (), "full59"))
    train(tmp_path, "run", gasp_skills, code=2)
    said = capsys.readouterr().err
    for part in ("obs_dim is 4 in the skills, 59", "action_dim is 2", "obs_mode is toy", "horizon is 10"):
        assert part in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--skills", "nowhere"), "there is no run nowhere"),
        (("--steps", "0"), "steps: must be in 1 .. "),
        (("--agent.gamma", "1.5"), "gamma: must be in (0, 1]"),
        (("--agent.squash", "spirl", "--agent.squash-range", "2"), "squash_range"),
        (("--task", "maze-medum"), "maze-medium"),
    ],
)
def test_bad_options_leave_no_run(
    options: tuple[str, ...], said: str, gasp_skills: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    train(tmp_path, "run", gasp_skills, *options, code=2)
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_skill_run_is_no_rl_run(gasp_skills: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["rl", "eval", "--dir", str(gasp_skills.parent), "--name", gasp_skills.name]) == 2
    assert "is no rl run (its stage is skills)" in capsys.readouterr().err


def test_skills_of_the_toy_are_none_of_a_maze(gasp_skills: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Both see (x, y, vx, vy), but in other units of speed."""
    train(tmp_path, "run", gasp_skills, "--task", "maze-medium:3,4", code=2)
    assert "obs_mode is toy in the skills, point in the task" in capsys.readouterr().err


@pytest.mark.parametrize("name", RLConfig.PRESETS)
def test_presets_are_whole(name: str):
    from rlcore.config import from_dict

    cfg = from_dict(RLConfig, {"skills": "x", **RLConfig.PRESETS[name]}, name)
    assert (cfg.agent.regulariser == "entropy") == name.endswith("none")


# --- stopping and going on --------------------------------------------------------------------------------------------
@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch):
    """Have the next run send itself SIGTERM at its n-th update, or its n-th call of the decoder."""

    def arrange(method: str, count: int) -> None:
        original, sent = getattr(Agent, method), []

        def counted(self: Agent, *arguments: Any) -> Any:
            sent.append(1)
            if len(sent) == count:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(self, *arguments)

        monkeypatch.setattr(Agent, method, counted)

    return arrange


@pytest.mark.parametrize(("method", "count"), [("update", 9), ("proposal", 12)])
@pytest.mark.parametrize("arm", ["gasp", "none"])
def test_half_and_half_is_whole(arm: str, method: str, count: int, gasp_skills: Path, tmp_path: Path, stop_at: Any):
    """R2: bit for bit, whether it stops among updates or in the middle of skills."""
    if arm == "none" and method == "proposal":
        method, count = "choose", 20
    whole = train(tmp_path, "whole", gasp_skills, *ARMS[arm])
    stop_at(method, count)
    train(tmp_path, "halves", gasp_skills, *ARMS[arm], code=85)
    halves = train(tmp_path, "halves", gasp_skills, *ARMS[arm])
    assert rows(halves) == rows(whole)
    assert rows(halves, "eval") == rows(whole, "eval")
    same(final(whole), final(halves))


def test_a_stop_in_an_evaluation_does_not_wait_for_it(
    gasp_skills: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    evaluation_is_given_up(
        lambda name, code: train(tmp_path, name, gasp_skills, code=code),
        "gasp.run.episodes._one_each", monkeypatch, at=4,
    )  # fmt: skip


def test_a_run_that_is_stopped_closes_its_envs(
    gasp_skills: Path, tmp_path: Path, stop_at: Any, monkeypatch: pytest.MonkeyPatch
):
    closed: list[Any] = []
    close = rl_train.Learner.close
    monkeypatch.setattr(rl_train.Learner, "close", lambda self: (closed.append(self), close(self)))
    stop_at("update", 3)
    train(tmp_path, "run", gasp_skills, code=85)
    assert len(closed) == 1


def test_without_saved_replay_a_resumed_run_refills_first(
    gasp_skills: Path, tmp_path: Path, stop_at: Any, monkeypatch: pytest.MonkeyPatch
):
    stop_at("update", 30)
    train(tmp_path, "run", gasp_skills, "--no-save-replay", code=85)
    before = checkpoint.load(tmp_path / "run" / "checkpoints" / "last.pt")
    said: list[str] = []
    monkeypatch.setattr("rlcore.logger.Console.say", lambda self, text: said.append(text))
    folder = train(tmp_path, "run", gasp_skills, "--no-save-replay")
    assert any("no replay was saved: 160 steps of new experience" in text for text in said)
    assert not list((folder / "replay").iterdir())
    refilled = [row for row in rows(folder) if before["step"] < row["step"] <= before["step"] + 160]
    assert {row["updates"] for row in refilled} == {before["parts"]["agent"]["updates"]}


def test_a_learner_that_diverges_is_stopped(
    gasp_skills: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """R3: the last checkpoint is a good one."""
    update = Agent.update

    def sick(self: Agent, *arguments: Any) -> Any:
        metrics = update(self, *arguments)
        if self.updates == 60:
            self.critic.parameters.detach()[:] = float("nan")
        return metrics

    monkeypatch.setattr(Agent, "update", sick)
    folder = train(tmp_path, "run", gasp_skills, "--save-every", "80", code=3)
    error = capsys.readouterr().err
    assert "is not finite" in error
    assert "last good checkpoint: step" in error
    for step in checkpoint.Checkpoints(folder / "checkpoints").steps():
        state = checkpoint.load(folder / "checkpoints" / f"step_{step:09d}.pt")
        assert checkpoint.nonfinite(state["parts"], "parts") is None


@pytest.mark.slow
def test_killed_again_and_again_it_ends_the_same(gasp_skills: Path, tmp_path: Path):
    """R1."""
    options = ("--save-every", "40", "--eval-every", "100000")
    killed_ends_the_same(["gasp", *words(gasp_skills, *options)], tmp_path, (80, 240, 400))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 85), (signal.SIGINT, 130)])
def test_a_signal_saves_the_very_step(number: signal.Signals, code: int, gasp_skills: Path, tmp_path: Path):
    endless = words(gasp_skills, "--steps", "8000000", "--save-every", "80", "--eval-every", "100000")
    assert signal_saves_the_step(["gasp", *endless], tmp_path, number, 80) == code
