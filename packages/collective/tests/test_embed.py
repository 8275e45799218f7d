"""`collective embed`: pictures of codes, and the numbers beside them."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from collective_windows import TASKS, made_up, written

from collective.analysis import embedding, telling
from collective.cli import main
from collective.prefixes import exam
from rlcore.files import read_json


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("embed")
    words = ["train-encoder", "--preset", "debug", "--quiet", "--dir", str(root), "--name", "run", "--updates", "40"]
    assert main([*words, "--data", str(written(root / "data")), "--lr", "3e-3"]) == 0
    return root / "run"


def test_a_picture_and_its_numbers(trained: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["embed", "--encoder", str(trained), "--windows", "10"]) == 0
    said = capsys.readouterr().out
    path = trained / "plots" / "embedding_pca_validation.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    assert said.endswith(f"{path}\n")
    found = read_json(path.with_suffix(".json"))
    assert found["tasks"] == found["trained_on"] == list(TASKS)
    assert found["encoder"] == read_json(trained / "card.json")["fingerprint"]
    assert f"told by the nearest centroid: {found['accuracy']:.1%}" in said
    for key in ("accuracy", "accuracy_1", "accuracy_20", "clusters_accuracy"):
        assert 0 <= found[key] <= 1
    assert -1 <= found["silhouette"] <= 1
    assert set(found["by_task"]) == set(TASKS)


def test_the_same_seed_the_same_numbers(trained: Path, capsys: pytest.CaptureFixture[str]):
    def numbers(*words: str) -> dict[str, Any]:
        assert main(["embed", "--encoder", str(trained), "--json", *words]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    assert numbers() == numbers()
    assert numbers("--split", "train")["windows"] > numbers()["windows"]


def test_other_data_and_another_place(trained: Path, tmp_path: Path):
    """Tasks that the encoder was not trained on have centroids, too: those of the data's training split."""
    other = written(tmp_path / "other", made_up(tasks=("toy-lift", "pick-place-v3"), seed=7))
    out = tmp_path / "figure.svg"
    checkpoint = trained / "checkpoints" / "final.pt"
    assert main(["embed", "--encoder", str(checkpoint), "--data", str(other), "--out", str(out)]) == 0
    assert "<svg" in out.read_text()
    found = read_json(tmp_path / "figure.json")
    assert found["tasks"] == ["toy-lift", "pick-place-v3"]
    assert found["trained_on"] == list(TASKS)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--encoder", "nowhere"], 4, "there is no encoder nowhere"),
        (["--encoder", "RUN", "--out", "figure.bmp"], 2, "ends in .png, .svg or .pdf"),
        (["--encoder", "RUN", "--data", "nowhere"], 4, "nowhere is no data set"),
        (["--encoder", "RUN", "--windows", "1"], 2, "windows: must be in 2"),
    ],
)
def test_what_cannot_be_drawn(
    words: list[str], code: int, said: str, trained: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["embed", *(str(trained) if word == "RUN" else word for word in words)]) == code
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_tsne_where_scikit_learn_is_missing(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main(["embed", "--encoder", str(trained), "--method", "tsne"]) == 5
    assert "--method tsne needs: pip install scikit-learn; --method pca needs nothing" in capsys.readouterr().err


def test_tsne_where_it_is_there(trained: Path):
    pytest.importorskip("sklearn")
    assert main(["embed", "--encoder", str(trained), "--method", "tsne", "--windows", "6"]) == 0
    assert (trained / "plots" / "embedding_tsne_validation.png").exists()


def test_principal_components():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(200, 6)) * np.array([5.0, 3.0, 0.1, 0.1, 0.1, 0.1])
    plane = embedding.pca(points)
    covariance = np.cov(plane.places.T)
    assert covariance[0, 0] > covariance[1, 1] > 0
    assert abs(covariance[0, 1]) < 1e-6
    assert plane.names[0].startswith("PC 1 (7")
    first = points[:, 0] - points[:, 0].mean()
    assert abs(np.corrcoef(plane.places[:, 0], first)[0, 1]) > 0.99
    np.testing.assert_allclose(
        np.linalg.norm(plane.places[3] - plane.places[5]), np.linalg.norm(points[3] - points[5]), rtol=0.05
    )
    flat = embedding.pca(np.outer(np.arange(5.0), np.ones(1)))
    assert (flat.places[:, 1] == 0).all()
    assert embedding.pca(np.zeros((4, 6))).places.shape == (4, 2)


@pytest.mark.parametrize("tasks", [1, 50])
def test_the_figure_holds_any_number_of_tasks(tasks: int, tmp_path: Path):
    from rlcore.plots import save

    names = [f"toy-task-number-{k}" for k in range(tasks)]
    data = made_up(tasks=names, trajectories=2, steps=22)
    questions = exam(data, 20, 3, np.random.default_rng(0))
    guess = np.random.default_rng(1).permutation(questions.task)
    codes = np.random.default_rng(2).normal(size=(len(guess), 6)).astype(np.float32)
    told = telling.Told(questions, codes, guess, 20)
    full = questions.lengths == 20
    figure = embedding.draw(told, embedding.pca(codes[full]), names)
    save(figure, tmp_path / "figure.png")
    _, labels = figure.axes[0].get_legend_handles_labels()
    assert labels == names
    looks = {embedding._look(k) for k in range(tasks)}
    assert len(looks) == tasks
