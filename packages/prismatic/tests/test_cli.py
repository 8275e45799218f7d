"""The verbs, end to end, and what they say when something is wrong."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prismatic.cli import VERBS, main
from prismatic.config import PRESETS, TrainConfig
from prismatic.envs.toy import Reach
from rlcore import checkpoint, video


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name, options in {"moe": [], "dense": ["use_moe=false"], "two": ["task=toy-reach,toy-cross"]}.items():
        common = ["--preset", "debug", "--task", "toy-reach", "--dir", str(folder), "--name", name, "--quiet"]
        assert main(["train", *common, *options]) == 0
    return folder


def test_the_run_folder_is_complete(root: Path):
    folder = root / "moe"
    for name in ("config.json", "env.json", "metrics.jsonl", "status.json"):
        assert (folder / name).is_file(), name
    for name in ("best_model.pt", "final_model.pt", "latest.pt", "best.pt", "final.pt", "last.pt"):
        assert (folder / "checkpoints" / name).is_symlink(), name
    facts = json.loads((folder / "env.json").read_text())
    assert (facts["env"], facts["action_repeat"], facts["variant"]) == (["toy-reach"], [1], "4o")
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-2])
    assert {"consistency_loss", "value_loss", "moe/dyn/tau", "moe/rew/load_3", "rss_mib"} <= set(last)


def test_each_task_of_several_is_scored(root: Path):
    rows = [json.loads(line) for line in (root / "two" / "metrics.jsonl").read_text().splitlines()]
    tasks = [row["task"] for row in rows if row["kind"] == "eval_task"]
    assert tasks == ["toy-reach", "toy-cross"] * (len(tasks) // 2)
    whole = [row for row in rows if row["kind"] == "eval"][-1]
    parts = [row["return_mean"] for row in rows if row["kind"] == "eval_task"][-2:]
    assert whole["return_mean"] == pytest.approx(sum(parts) / 2)


@pytest.mark.parametrize("name", ["moe", "two"])
def test_evaluations_are_a_table_too(name: str, root: Path):
    """eval.csv, as users of TD-MPC2 expect it."""
    kept = [json.loads(line) for line in (root / name / "metrics.jsonl").read_text().splitlines()]
    scored = [row for row in kept if row["kind"] == ("eval" if name == "moe" else "eval_task")]
    with open(root / name / "eval.csv") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == ["step", "frame", "task", "return", "success", "length", "std"]
    assert {row["task"] for row in table} == ({"toy-reach"} if name == "moe" else {"toy-reach", "toy-cross"})
    assert (
        [int(row["step"]) for row in table] == [int(row["frame"]) for row in table] == [row["step"] for row in scored]
    )
    names = {"return": "return_mean", "success": "success_rate", "length": "length_mean", "std": "return_std"}
    for column, key in names.items():
        assert [float(row[column]) for row in table] == [row[key] for row in scored]


def test_a_record_that_cannot_be_read_costs_the_table_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    common = ["train", "--preset", "debug", "--dir", str(tmp_path), "--name", "run"]
    assert main([*common, "--steps", "50"]) == 0
    record = tmp_path / "run" / "metrics.jsonl"
    record.write_bytes(b"{" + record.read_bytes()[1:].replace(b"{", b"[", 1))
    assert main([*common, "--steps", "100"]) == 0
    assert "eval.csv was not written: " in capsys.readouterr().err


def test_eval_is_repeatable_and_says_what_it_did(root: Path, capsys: pytest.CaptureFixture[str]):
    command = ["eval", "--name", "two", "--dir", str(root), "--eval-episodes", "2"]
    assert main(command) == 0
    first = json.loads((root / "two" / "eval.json").read_text())["tasks"]
    text = capsys.readouterr().out
    assert text.count(": return") == 6  # two episodes and a mean of each task
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tasks"] == first
    assert main([*command, "--task", "toy-cross", "mpc=false", "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert (list(alone["tasks"]), alone["mpc"]) == (["toy-cross"], False)
    assert main([*command, "--task", "toy-jump"]) == 2
    assert "this run knows toy-reach, toy-cross" in capsys.readouterr().err


def test_scores_that_cannot_be_written_are_still_told(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    shutil.copytree(root / "moe", tmp_path / "moe", symlinks=True)
    (tmp_path / "moe" / "eval.json").mkdir()
    assert main(["eval", "--name", "moe", "--dir", str(tmp_path), "--eval-episodes", "2"]) == 5
    out, err = capsys.readouterr()
    assert "toy-reach: return" in out
    assert "eval.json" in err
    (tmp_path / "file").touch()
    command = ["bench", "--preset", "debug", "seconds=0.001", "--output", str(tmp_path / "file" / "x.json")]
    assert main(command) == 5
    assert "4o / dense" in capsys.readouterr().out


def test_a_reward_that_is_not_finite_is_one_line(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    step = Reach.step

    def sick(self: Reach, action: Any) -> Any:
        obs, reward, *rest = step(self, action)
        return obs, float("nan") if self.time == 7 else reward, *rest

    monkeypatch.setattr(Reach, "step", sick)
    assert main(["eval", "--name", "moe", "--dir", str(root), "--eval-episodes", "1"]) == 5
    assert "toy-reach gave a reward that is not finite" in capsys.readouterr().err


def test_eval_films_what_it_plays(root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    v3 = pytest.importorskip("imageio.v3", reason="needs the extra video")
    drawn: list[Any] = []
    write = video.write
    monkeypatch.setattr(video, "write", lambda path, frames, fps: write(path, kept(frames, drawn), fps))
    assert main(["eval", "--name", "two", "--dir", str(root), "--eval-episodes", "1", "--save-video"]) == 0
    assert "eval_toy-reach.mp4" in capsys.readouterr().out
    assert v3.imread(root / "two" / "videos" / "eval_toy-cross.mp4").shape == (51, 96, 96, 3)
    # The film is of the episode that was scored: the rewards that its pictures show sum up to the return.
    scored = json.loads((root / "two" / "eval.json").read_text())["tasks"]
    for name, frames in zip(("toy-reach", "toy-cross"), (drawn[:51], drawn[51:])):
        orange = np.stack([centre(frame, (240, 140, 20)) for frame in frames])
        blue = np.nanmean([centre(frame, (40, 90, 200)) for frame in frames[:5]], 0)
        rewards = np.clip(1 - np.linalg.norm(blue - orange[1:], axis=1), 0, None)
        assert scored[name]["returns"][0] == pytest.approx(rewards.sum(), abs=1.5)  # a pixel is 0.02


def kept(frames: Iterable[Any], into: list[Any]) -> Iterator[Any]:
    for frame in frames:
        into.append(frame)
        yield frame


def centre(frame: Any, colour: tuple[int, int, int]) -> Any:
    """Where the patch of that colour is, in [-1, 1]^2."""
    rows, columns = np.nonzero((frame == colour).all(-1))
    return np.array([columns.mean() / 47.5 - 1, 1 - rows.mean() / 47.5]) if len(rows) else np.full(2, np.nan)


def test_an_env_that_cannot_be_drawn_is_one_line(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def dark(self: Reach) -> Any:
        raise RuntimeError("no OpenGL rendering backend")

    monkeypatch.setattr(Reach, "render", dark)
    assert main(["eval", "--name", "moe", "--dir", str(root), "--eval-episodes", "1", "--save-video"]) == 5
    said = capsys.readouterr()
    assert "MUJOCO_GL=egl" in said.err
    assert "toy-reach: return" in said.out  # the scores are not lost
    assert not list((root / "moe" / "videos").iterdir())


def test_plots(root: Path, capsys: pytest.CaptureFixture[str]):
    for name in ("moe", "dense"):
        assert main(["plot", "training", "--name", name, "--dir", str(root)]) == 0
        assert (root / name / "plots" / "training_curves.png").stat().st_size > 10_000
    assert main(["plot", "gating", "--name", "two", "--dir", str(root)]) == 0
    for block in ("dynamics", "reward"):
        assert (root / "two" / "plots" / f"gating_{block}.png").stat().st_size > 5_000
        assert (root / "two" / "plots" / f"gating_{block}.csv").read_text().count("\n") > 10
    assert main(["plot", "gating", "--name", "dense", "--dir", str(root)]) == 2
    assert "without experts" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["train", "--task", "cartpol-balance"], "did you mean cartpole-balance"),
        (["train", "--task", "CartPole-v1"], "a bounded Box is needed"),
        (["train", "--n-expert", "3"], "n-experts"),
        (["eval", "--name", "nothing"], "there is no run"),
        (["train", "--moe-tau-min", "3"], "moe_tau_min"),
        (["train", "--preset", "debug", "--seed-steps", "0"], "seed_steps: 0 steps of a task in 1 envs hold no window"),
        (["train", "--preset", "debug", "--num-envs", "32"], "take at least 96"),
        (["train", "--preset", "debug", "--horizon", "60"], "an episode of toy-reach has 50"),
        (["train", "--preset", "debug", "--task", "toy-reach,toy-reach"], "different ones with commas"),
        (["train", "--task", "mt4,cup-catch"], "cup-catch comes twice"),
        (["eval", "--name", "nothing", "--seed-base", "-1"], "seed_base"),
        (["train", "--preset", "debug", "--buffer-size", "5"], "take at least 6"),
        (["train", "--preset", "debug", "--task", "toy-reach,toy-cross", "--buffer-size", "11"], "take at least 12"),
        (["train", "--preset", "debug", "--resume", "must", "--overwrite"], "--overwrite begins anew"),
        (["envs", "--like", "walkr"], "did you mean walker-r"),
    ],
)
def test_mistakes_get_one_line_and_nothing_is_made(
    command: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    assert main(command) in (2, 5)
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_another_agent_s_checkpoint_is_refused(root: Path, capsys: pytest.CaptureFixture[str]):
    path = root / "two" / "checkpoints" / "final.pt"
    state_dir = ["eval", "--name", "moe", "--dir", str(root), "--checkpoint", str(path), "--eval-episodes", "1"]
    assert main(state_dir) == 0  # a file says itself what it is of
    assert "toy-cross" in capsys.readouterr().out


def test_a_checkpoint_of_another_program_is_refused(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    state = checkpoint.load(root / "moe" / "checkpoints" / "final.pt")
    checkpoint.save(tmp_path / "other.pt", {**state, "config": {"core": "mpn"}})
    command = ["eval", "--name", "moe", "--dir", str(root), "--checkpoint", str(tmp_path / "other.pt")]
    assert main(command) == 4
    assert "is not one of a prismatic run" in capsys.readouterr().err


def test_envs_and_doctor(capsys: pytest.CaptureFixture[str]):
    assert main(["envs", "--like", "toy"]) == 0
    assert "toy-cross" in capsys.readouterr().out
    assert main(["doctor", "--task", "toy-reach, toy-cross"]) == 0
    out = capsys.readouterr().out
    assert out.count("6 observations, 2 actions, episodes of 50") == 2
    assert "toy-cross: " in out


def test_help_loads_no_torch():
    code = "import sys; from prismatic.cli import main; main(['train', '--help']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("False")


def test_every_preset_is_valid():
    for preset in PRESETS.values():
        TrainConfig(**preset)
    assert set(VERBS) >= {"train", "eval", "plot training", "plot gating", "envs", "doctor"}
