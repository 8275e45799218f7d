"""The verbs, end to end on real tasks, and what they say when something is wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mpn.cli import VERBS, main
from mpn.config import PRESETS, TASK_PRESETS, TrainConfig, task_preset
from rlcore.errors import UsageError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for core in ("mpn", "gru"):
        options = ["--preset", "debug", "--dir", str(folder), "--name", core, "--core", core, "--quiet"]
        assert main(["train", *options]) == 0
    maze = ["--preset", "debug", "--dir", str(folder), "--name", "maze", "--env", "mpn/TMaze-v0:length=3", "--quiet"]
    assert main(["train", *maze, "--total-steps", "320"]) == 0
    return folder


def test_the_experiment_folder_is_complete(root: Path):
    folder = root / "mpn"
    for name in ("config.json", "env.json", "metrics.jsonl", "status.json", "training_history.json"):
        assert (folder / name).is_file(), name
    for name in ("best_model.pt", "final_model.pt", "latest.pt", "best.pt", "final.pt", "last.pt"):
        assert (folder / "checkpoints" / name).is_symlink(), name
    history = json.loads((folder / "training_history.json").read_text())
    assert set(history) == {"episodes", "rewards", "lengths", "losses", "epsilons"}
    assert len({len(column) for column in history.values()}) == 1
    assert history["rewards"] == history["lengths"]  # CartPole pays 1 a step
    environment = json.loads((folder / "env.json").read_text())
    assert environment["env"] == "CartPole-v1"
    assert environment["parameters"] == (4 * 8 + 8) + (8 * 2 + 2)


def test_eval_is_repeatable_and_says_what_it_did(root: Path, capsys: pytest.CaptureFixture[str]):
    command = ["eval", "--experiment-name", "mpn", "--dir", str(root), "--num-eval-episodes", "4"]
    assert main(command) == 0
    first = json.loads((root / "mpn" / "eval.json").read_text())
    text = capsys.readouterr().out
    assert text.count("episode ") == 4
    assert "best_model.pt" in text or "step_" in text
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["returns"] == first["returns"]
    assert main([*command, "--seed-base", "1"]) == 0
    assert json.loads((root / "mpn" / "eval.json").read_text())["returns"] != first["returns"]


def test_scores_that_cannot_be_written_are_still_told(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    shutil.copytree(root / "mpn", tmp_path / "mpn", symlinks=True)
    (tmp_path / "mpn" / "eval.json").unlink(missing_ok=True)
    (tmp_path / "mpn" / "eval.json").mkdir()
    assert main(["eval", "--name", "mpn", "--dir", str(tmp_path), "--num-eval-episodes", "1"]) == 5
    out, err = capsys.readouterr()
    assert "return " in out
    assert "eval.json" in err


def test_eval_falls_back_to_what_there_is(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    shutil.copytree(root / "mpn", tmp_path / "mpn", symlinks=True)
    for name in ("best_model.pt", "best.pt"):
        (tmp_path / "mpn" / "checkpoints" / name).unlink()
    assert main(["eval", "--name", "mpn", "--dir", str(tmp_path), "--num-eval-episodes", "1"]) == 0
    assert main(["eval", "--name", "mpn", "--dir", str(tmp_path), "--checkpoint", "best"]) == 4


def test_a_typo_in_a_name_makes_no_folder(root: Path, capsys: pytest.CaptureFixture[str]):
    for verb in (["eval"], ["render"], ["plot", "training"]):
        assert main([*verb, "--name", "mnp", "--dir", str(root)]) == 2
        assert "did you mean mpn?" in capsys.readouterr().err
    assert not (root / "mnp").exists()


@pytest.mark.parametrize("name", ["mpn", "gru", "maze"])
def test_render_films_an_episode(root: Path, name: str, tmp_path: Path):
    import imageio.v3 as iio

    film = tmp_path / "film.gif"
    assert main(["render", "--name", name, "--dir", str(root), "--output", str(film)]) == 0
    frames = iio.imread(film)
    assert frames.ndim == 4
    assert len(frames) >= 4
    assert frames.std() > 10


def test_plot_training_draws_a_figure(root: Path):
    assert main(["plot", "training", "--name", "mpn", "--dir", str(root)]) == 0
    assert (root / "mpn" / "plots" / "training_curves.png").stat().st_size > 20_000


def test_doctor_explains_what_a_memory_can_read(capsys: pytest.CaptureFixture[str]):
    assert main(["doctor", "--env", "mpn/TMaze-v0", "--input-map", "none", "--json"]) == 0
    last = json.loads(capsys.readouterr().out)[-1]
    assert last["level"] == "warn"
    assert "read at 0%" in last["what"]
    assert main(["doctor", "--env", "mpn/TMaze-v0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[-1]["level"] == "ok"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--env", "CartPool-v1"], "CartPole"),
        (["--env", "mpn/TMase-v0"], "mpn/TMaze-v0"),
        (["--env", "Pendulum-v1"], "Discrete actions"),
        (["--lambda-decay", "1.5"], "lambda_decay"),
        (["--eta", "nan"], "eta"),
        (["--buffer-size", "20"], "buffer_size"),
        (["--n-step", "9"], "n_step"),
        (["--max-episode-steps", "0"], "max_episode_steps"),
        (["--lr-end", "-1"], "lr_end"),
        (["--device", "cuda:99"], "cuda:99"),
        (["--no-such-option", "1"], "no-such-option"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    code = main(["train", "--preset", "debug", "--dir", str(tmp_path), "--name", "x", "--quiet", *options])
    said = capsys.readouterr()
    assert code in (2, 5)
    assert words in said.err + said.out
    assert "Traceback" not in said.err


@pytest.mark.parametrize("verb", ["eval", "render"])
@pytest.mark.parametrize("option", [("--max-episode-steps", "-5"), ("--seed-base", "-1")])
def test_looking_at_a_run_has_its_limits_too(
    verb: str, option: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main([verb, "--dir", str(tmp_path), "--name", "x", *option]) == 2
    assert option[0][2:].replace("-", "_") in capsys.readouterr().err


def test_presets_are_valid_and_tasks_find_theirs():
    for name, values in PRESETS.items():
        TrainConfig(**values)
        assert name in {*TASK_PRESETS.values(), "debug"}
    assert task_preset(TrainConfig(env="mpn/TMaze-v0:length=20")) == "tmaze"
    assert task_preset(TrainConfig()) is None
    assert TrainConfig(env="mpn/TMaze-v0:length=20").resolved_input_map == "one"
    assert TrainConfig().resolved_input_map == "none"


def test_bad_numbers_are_refused_when_the_config_is_made():
    for bad in ({"gamma": 1.1}, {"tau": -0.1}, {"lr": 0.0}, {"num_envs": 0}, {"n_step": 99}, {"burn_in": -1}):
        with pytest.raises(UsageError, match=next(iter(bad))):
            TrainConfig(**bad)


def test_the_folder_s_own_scripts_work(tmp_path: Path):
    package = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "main.py", "--version"], cwd=package, capture_output=True, text=True)
    assert done.stdout.split() == ["mpn", "1.0.0"]
    code = (
        "from mpn_dqn import MPNDQN; d = MPNDQN(obs_dim=4, hidden_dim=64, action_dim=2); print(d.init_state(1).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=package, capture_output=True, text=True)
    assert "[1, 64, 4]" in done.stdout, done.stderr


def test_every_verb_has_help(capsys: pytest.CaptureFixture[str]):
    for verb in VERBS:
        assert main([*verb.split(), "--help"]) == 0
        assert "--" in capsys.readouterr().out
