"""`taskinfer plot`: what the pictures are made of is worked out by hand; the files are read back."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
import pytest

from rlcore import video
from rlcore.errors import DataError, UsageError
from taskinfer.analysis import belief, curves, latents, records
from taskinfer.analysis.figures import colour, formats_of
from taskinfer.cli import main
from taskinfer.record import Record
from taskinfer.tasks import Family

PNG = b"\x89PNG\r\n\x1a\n"


def write_run(root: Path, name: str, rows: list[dict[str, Any]], **config: Any) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"program": "taskinfer", "config": {"name": name, **config}}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def rows_of(*returns: float) -> list[dict[str, Any]]:
    rows = [{"kind": "eval", "step": 100 * (i + 1), "test_return": r, "cpu_s": 1.0} for i, r in enumerate(returns)]
    return [{"kind": "train", "step": 50, "loss": 3.0, "test_return": 99.0}, *rows]


# --- csv --------------------------------------------------------------------------------------------------------------
def test_runs_are_grouped_by_what_sets_them_apart_but_the_seed(tmp_path: Path):
    a = write_run(tmp_path, "a", rows_of(1.0, 2.0), seed=0, net={"lr": 1}, arm="none")
    b = write_run(tmp_path, "b", rows_of(3.0, 4.0), seed=1, net={"lr": 1}, arm="none")
    c = write_run(tmp_path, "c", rows_of(5.0), seed=0, net={"lr": 2}, arm="none")
    assert records.find([tmp_path]) == [a, b, c]
    named = records.groups([records.read(path) for path in (a, b, c)])
    assert {name: [table.path for table in tables] for name, tables in named.items()} == {"lr 1": [a, b], "lr 2": [c]}
    alone = records.groups([records.read(path) for path in (a, b)])
    assert [len(tables) for tables in alone.values()] == [2]


def test_evaluations_win_over_train_rows_and_only_numbers_count(tmp_path: Path):
    rows = [*rows_of(1.0, 2.0), {"kind": "eval", "step": 300, "test_return": None, "note": "x"}]
    table = records.read(write_run(tmp_path, "a", rows))
    assert set(table.columns) == {"loss", "test_return", "cpu_s"}
    assert [values.tolist() for values in table.columns["test_return"]] == [[100.0, 200.0], [1.0, 2.0]]


def test_any_csv_with_steps_can_be_read(tmp_path: Path):
    path = tmp_path / "progress.csv"
    path.write_text("epoch,reward,empty,word\n1,-5,,a\n2,,,b\n3,-1,,c\n")
    columns = records.read(path).columns
    assert set(columns) == {"reward"}
    assert [values.tolist() for values in columns["reward"]] == [[1.0, 3.0], [-5.0, -1.0]]
    path.write_text("time,reward\n1,2\n")
    with pytest.raises(DataError, match="none of its columns is step"):
        records.read(path)


def test_smoothing_by_hand():
    steps, values = curves.smoothed((np.arange(4.0), np.array([0.0, 3.0, 6.0, 0.0])), 3)
    assert steps.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert values.tolist() == [1.5, 3.0, 3.0, 3.0]
    assert curves.smoothed((np.arange(2.0), np.array([1.0, 5.0])), 1)[1].tolist() == [1.0, 5.0]
    assert curves.smoothed((np.arange(2.0), np.array([1.0, 5.0])), 9)[1].tolist() == [3.0, 3.0]


def test_the_line_is_the_smoothed_middle_of_the_seeds(tmp_path: Path):
    folders = [write_run(tmp_path, str(i), rows_of(float(i), 2.0 * i), seed=i) for i in (1, 3)]
    figure = curves.draw(records.groups([records.read(f) for f in folders]), ["test_return"], 1)
    assert figure.axes[0].lines[0].get_ydata().tolist() == [2.0, 4.0]
    assert figure.axes[0].get_ylabel() == "return, held-out tasks"


def test_plot_csv_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path, "runs/a", rows_of(1.0, 2.0))
    assert main(["plot", "csv", "runs/a", "--format", "png,pdf"]) == 0
    assert (tmp_path / "runs/a/plots/progress.png").read_bytes().startswith(PNG)
    assert (tmp_path / "runs/a/plots/progress.pdf").read_bytes().startswith(b"%PDF")
    assert main(["plot", "csv", "runs", "--list"]) == 0
    assert capsys.readouterr().out.split()[-3:] == ["loss", "test_return", "cpu_s"]


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--columns", "test_retrun"], "did you mean test_return"), (["--format", "jpg"], "unknown 'jpg'"),
     (["--smooth", "0"], "smooth"), (["--smooth", "4"], "must be odd"),
     (["nowhere"], "no run, no folder of runs and no csv file")],
)  # fmt: skip
def test_mistakes_of_plot_csv(options: list[str], said: str, tmp_path: Path, capsys):
    assert main(["plot", "csv"]) == 2
    assert "name a run" in capsys.readouterr().err
    run = write_run(tmp_path, "a", rows_of(1.0))
    assert main(["plot", "csv", str(run), *options]) == 2
    assert said in capsys.readouterr().err


def test_formats():
    assert formats_of("png, pdf,png") == ("png", "pdf")
    with pytest.raises(UsageError, match="expected some of"):
        formats_of(",")


# --- latents ----------------------------------------------------------------------------------------------------------
def test_pca_finds_the_long_axis():
    rng = np.random.default_rng(0)
    points = rng.standard_normal((500, 1)) * [3.0, 4.0, 0.0] + 0.01 * rng.standard_normal((500, 3)) + 7.0
    projection = latents.pca(points, 2)
    np.testing.assert_allclose(projection.axes[:, 0], [0.6, 0.8, 0.0], atol=1e-3)
    assert projection.share[0] > 0.999
    np.testing.assert_allclose(projection(points).mean(0), 0.0, atol=1e-9)
    one = latents.pca(points[:, :1], 2)  # fewer dimensions than asked for
    assert one(points[:, :1]).shape == (500, 2)
    assert np.all(one(points[:, :1])[:, 1] == 0.0)


def test_colours_tell_families_apart():
    told = [Family.velocity_forward, Family.velocity_backward, Family.goal_forward, Family.goal_backward]
    assert len({colour(f) for f in [*told, Family.stand_front, Family.stand_back, Family.jump]}) == 7
    assert all(colour(f).startswith("#") for f in Family)


def test_plot_latent_end_to_end(tmp_path: Path, capsys):
    options = ["--preset", "debug", "--dir", str(tmp_path), "--quiet", "--total-steps", "240"]
    assert main(["toy", "train", *options, "--name", "a"]) == 0
    folder = tmp_path / "a"
    assert main(["plot", "latent", str(folder), "--times", "2", "--format", "png"]) == 0
    for name in ("latent_pca.png", "latent_tsne.png"):
        assert (folder / "plots" / name).read_bytes().startswith(PNG)
    made = np.load(folder / "analysis/latents/latents.npz")
    assert made["mean"].shape == (16, 4)  # 4 + 4 tasks, twice each
    assert made["time"][:2].tolist() == [10, 20]
    assert made["last"].tolist() == [False, True] * 8
    assert made["held_out"].tolist() == [False] * 8 + [True] * 8
    assert set(made["family_name"]) == {f.name for f in Family if f <= 3}
    assert (np.sign(made["spec"]) == np.where(made["family"] % 2, -1, 1)).all()
    vectors = list(csv.reader((folder / "analysis/latents/vectors.tsv").open(), delimiter="\t"))
    np.testing.assert_allclose(np.array(vectors, float), made["mean"], rtol=1e-4, atol=1e-5)
    about = list(csv.DictReader((folder / "analysis/latents/metadata.tsv").open(), delimiter="\t"))
    assert len(about) == 16
    assert about[1]["family"] == made["family_name"][1]
    assert main(["plot", "latent", str(folder), "--dims", "3", "--no-tsne"]) == 0
    assert main(["toy", "train", *options, "--name", "b", "--arm", "none"]) == 0
    assert main(["plot", "latent", str(tmp_path / "b")]) == 2
    assert "its arm is none" in capsys.readouterr().err


# --- gif --------------------------------------------------------------------------------------------------------------
def test_a_gif_takes_as_long_as_the_film(tmp_path: Path):
    film = tmp_path / "film.mp4"
    video.write(film, (np.full((32, 64, 3), 10 * i, np.uint8) for i in range(20)), fps=20)
    assert main(["plot", "gif", str(film), "--fps", "10", "--width", "32"]) == 0
    data = (tmp_path / "film.gif").read_bytes()
    assert data.startswith(b"GIF89a")
    frames = np.stack([frame[..., :3] for frame in imageio.mimread(tmp_path / "film.gif")]).astype(int)
    assert frames.shape == (10, 16, 32, 3)  # every other frame, half as wide
    np.testing.assert_allclose(frames[:, 8, 16, 0], 10 + 20 * np.arange(10), atol=12)
    assert imageio.get_reader(tmp_path / "film.gif").get_meta_data()["duration"] == 100  # ms
    assert main(["plot", "gif", str(film), "--output", str(tmp_path / "b.gif")]) == 0
    assert len(imageio.mimread(tmp_path / "b.gif")) == 20


@pytest.mark.parametrize(
    ("words", "said"),
    [(["none.mp4"], "there is no film"), (["text.mp4"], "cannot be read as a film"),
     (["text.mp4", "--fps", "90"], "fps"), (["text.mp4", "--output", "a.mp4"], "ends in .gif")],
)  # fmt: skip
def test_mistakes_of_plot_gif(words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("text.mp4").write_text("no film")
    assert main(["plot", "gif", *words]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


# --- belief -----------------------------------------------------------------------------------------------------------
def write_beliefs(path: Path, guessed: list[int], true: list[int], specs: list[float]) -> Path:
    """Two agents of T steps; the second believes as `guessed`, (T + 1) classes, and the first in class 0.

    The second's error is small in its last two steps.
    """
    classes = (Family.goal_forward, Family.velocity_forward)
    steps = len(true)
    shape = (2, steps + 1)
    probability = np.zeros((*shape, 2))
    probability[0, :, 0] = 1.0
    probability[1, np.arange(steps + 1), guessed] = 1.0
    error = np.full((2, steps), 9.0)
    error[1, -2:] = 0.0
    Record(
        obs=np.zeros((*shape, 2)), action=np.zeros((2, steps, 1)), reward=np.zeros((2, steps)), error=error,
        true_family=np.array([[int(classes[t]) for t in true]] * 2), spec=np.array([specs] * 2),
        belief_mean=np.zeros((*shape, 3)), belief_std=np.ones((*shape, 3)), family_prob=probability,
        families=np.array([f.name for f in classes]), alive=np.ones((2, steps), bool), switches=np.array([4, 8]),
        dt=np.array(0.1), toy=np.array("toy1d"), body=np.array(""), subgoal_group=np.full((2, steps), -1),
    ).save(path)  # fmt: skip
    return path


def test_switches_and_adaptation_by_hand(tmp_path: Path):
    #        steps 0..3 task A, 4..7 task B (another family), 8..11 task C (B with another spec)
    true, specs = [0] * 4 + [1] * 8, [5.0] * 4 + [1.0] * 4 + [2.0] * 4
    guessed = [1, 0, 0, 0, 0, 0, 1, 1, 1, 0, 1, 0, 0]
    track = belief.read(write_beliefs(tmp_path / "a.npz", guessed, true, specs), 1)
    assert track.starts.tolist() == [0, 4, 8]
    assert track.ends.tolist() == [4, 8, 12]
    assert track.after(track.known) == [1, 2, None]  # A after 1 step; B after 2; of C it is lost at the end
    assert track.after(track.good) == [None, None, 3]
    kept = belief.read(write_beliefs(tmp_path / "b.npz", guessed[:9] + [1] * 4, true, specs), 1)
    assert kept.after(kept.known) == [1, 2, 1]  # what is believed at the switch itself is of the task before
    other = belief.read(tmp_path / "a.npz", 0)
    assert other.after(other.known) == [1, None, None]


def test_plot_belief_end_to_end(tmp_path: Path, capsys):
    run = tmp_path / "run"
    path = write_beliefs(run / "analysis" / "nonstationary.npz", [0] * 5 + [1] * 8, [0] * 4 + [1] * 8, [5.0] * 12)
    assert main(["plot", "belief", str(run), "--agent", "1", "--format", "png,svg"]) == 0
    assert (run / "plots" / "belief.png").read_bytes().startswith(PNG)
    assert main(["plot", "belief", str(path)]) == 0
    assert path.with_suffix(".png").exists()
    assert main(["plot", "belief", str(path), "--agent", "2"]) == 2
    assert "agents 0 .. 1" in capsys.readouterr().err
    assert main(["plot", "belief", str(tmp_path / "run" / "plots")]) == 2
    assert "run `taskinfer eval nonstationary` first" in capsys.readouterr().err
    np.savez(tmp_path / "other.npz", obs=np.zeros(3))
    assert main(["plot", "belief", str(tmp_path / "other.npz")]) == 4
    assert "holds no recorded episodes" in capsys.readouterr().err


def test_what_is_drawn_of_a_belief(tmp_path: Path):
    track = belief.read(write_beliefs(tmp_path / "a.npz", [0] * 13, [0] * 4 + [1] * 8, [5.0] * 4 + [1.0] * 8), 1)
    figure = belief.draw(track)
    assert [axes.get_ylabel() for axes in figure.axes] == ["x (m)", "v (m/s)", "P(family)", "belief, ± std", "reward"]
    said = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert said == ["goal\nforward 5", "velocity\nforward 1", "known after 1\nnot done", "not known\ndone after 7"]
    switches = [line for line in figure.axes[-1].lines if line.get_linestyle() == ":"]
    assert [line.get_xdata()[0] for line in switches] == [4]
