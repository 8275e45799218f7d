"""`gasp viz` on the toy's skills, and the numbers behind the figures."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gasp.analysis import browse, distances, growth, latent_map
from gasp.analysis.figures import colours
from gasp.cli import main
from gasp.kitchen_obs import GOALS, SUBTASKS
from gasp.run import skills_train, viz_skills
from gasp.run.saved import load_skills
from rlcore.files import read_json


def size(path: Path) -> int:
    return path.stat().st_size


def test_viz_latent(gasp_skills: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["viz", "latent", str(gasp_skills), "--samples", "200", "--windows", "100"]) == 0
    for name in ("latent_mixture", "latent_gaussian", "mixture_growth"):
        assert size(gasp_skills / "plots" / f"{name}.png") > 10_000
    assert "nearest (Bhattacharyya)" in capsys.readouterr().out
    mixture = load_skills(gasp_skills).mixture
    assert mixture is not None
    for name in ("euclidean", "bhattacharyya"):
        with open(gasp_skills / "analysis" / f"distance_{name}.csv") as file:
            table = list(csv.reader(file))
        assert len(table) == mixture.num_components + 1
        values = np.array([row[1:] for row in table[1:]], float)
        np.testing.assert_allclose(values, values.T)
    norms = mixture.means.norm(dim=1).numpy()
    euclidean = np.loadtxt(gasp_skills / "analysis" / "distance_euclidean.csv", delimiter=",", skiprows=1)[:, 1:]
    np.testing.assert_allclose(euclidean.diagonal(), norms, rtol=1e-4)


def test_viz_latent_by_tsne(gasp_skills: Path):
    pytest.importorskip("sklearn")
    assert main(["viz", "latent", str(gasp_skills), "--samples", "40", "--windows", "40", "--proj", "tsne"]) == 0


def test_what_is_not_installed_is_named(
    gasp_skills: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.manifold", None)
    assert main(["viz", "latent", str(gasp_skills), "--proj", "tsne"]) == 5
    assert "--proj tsne needs pip install scikit-learn" in capsys.readouterr().err


def test_viz_of_a_gaussian_prior(spirl_skills: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["viz", "latent", str(spirl_skills), "--samples", "100", "--windows", "50"]) == 0
    assert size(spirl_skills / "plots" / "latent_gaussian.png") > 10_000
    assert not (spirl_skills / "plots" / "latent_mixture.png").exists()
    assert main(["viz", "inference", str(spirl_skills), "--n", "3"]) == 0
    assert main(["viz", "skills", str(spirl_skills)]) == 2
    assert "has no components to show" in capsys.readouterr().err


def test_viz_inference(gasp_skills: Path):
    assert main(["viz", "inference", str(gasp_skills), "--n", "4", "--samples", "5"]) == 0
    for name in ("inference_windows", "inference_means"):
        assert size(gasp_skills / "plots" / f"{name}.png") > 10_000


def test_viz_skills(gasp_skills: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["viz", "skills", str(gasp_skills), "--windows", "100", "--rollouts", "2"]) == 0
    assert size(gasp_skills / "plots" / "skills.png") > 10_000
    found = read_json(gasp_skills / "analysis" / "skills.json")
    assert sum(row["windows"] for row in found["components"]) == 100
    assert 0 <= found["share_of_label_entropy"] <= 1
    assert "tells (nats)" in capsys.readouterr().out


def test_only_mazes_have_rollouts(
    gasp_skills: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def in_kitchen(*arguments: Any) -> Any:
        skills = load_skills(*arguments)
        return replace(skills, facts={**skills.facts, "task": "kitchen-mixed"})

    monkeypatch.setattr(viz_skills, "load_skills", in_kitchen)
    assert main(["viz", "skills", str(gasp_skills), "--rollouts", "2"]) == 2
    assert "rollouts: only in mazes" in capsys.readouterr().err


def test_training_ends_by_saying_whether_the_number_of_components_still_moves(gasp_skills: Path):
    before, last = [row["components"] for row in growth.fits_of(gasp_skills)][-2:]
    assert f"(the last fit changed their number by {abs(last - before)})" in skills_train.summary(gasp_skills)


# --- the numbers ------------------------------------------------------------------------------------------------------
def test_distances_by_hand():
    """N(0, 1) and N(2, 4): Bhattacharyya 4 / 2.5 / 8 + log(2.5 / 2) / 2 = 0.2 + 0.111572; the first is N(0, I)."""
    means, variances = np.array([[0.0], [2.0]]), np.array([[1.0], [4.0]])
    expected = 0.2 + 0.5 * math.log(1.25)
    found = distances.bhattacharyya(means, variances)
    np.testing.assert_allclose(found, [[0.0, expected], [expected, expected]], atol=1e-12)
    np.testing.assert_allclose(distances.euclidean(means), [[0.0, 2.0], [2.0, 2.0]])


def test_bhattacharyya_is_the_overlap():
    """-log of the integral of sqrt(p q), by sums over a grid."""
    x = np.linspace(-30, 30, 200_001)
    p, q = (np.exp(-0.5 * (x - m) ** 2 / v) / math.sqrt(2 * math.pi * v) for m, v in ((0.5, 0.3), (-1.0, 2.0)))
    expected = -math.log(np.sqrt(p * q).sum() * (x[1] - x[0]))
    found = distances.bhattacharyya(np.array([[0.5], [-1.0]]), np.array([[0.3], [2.0]]))
    assert found[0, 1] == pytest.approx(expected, rel=1e-9)


def test_information_by_hand():
    """Two components that name their label tell log 2; one that does not tells nothing."""
    information, share, told = browse.mutual_information(np.array([[5, 0], [0, 5]]))
    assert (information, share) == pytest.approx((math.log(2), 1.0))
    np.testing.assert_allclose(told, math.log(2))
    assert browse.mutual_information(np.array([[3, 3], [2, 2]]))[0] == pytest.approx(0.0)
    assert browse.mutual_information(np.zeros((2, 1), int))[:2] == (0.0, 0.0)


def test_windows_are_counted_where_their_label_is_known():
    table = browse.counts(np.array([0, 0, 1, 1]), np.array([1, -1, 0, 0]), 3, 2)
    assert table.tolist() == [[0, 1], [2, 0], [0, 0]]


def test_what_came_nearer_in_the_kitchen():
    """A slide that goes half its way, in each of the ways to observe; nothing else moves."""
    state = np.zeros((1, 11, 30), np.float32)
    state[0, :, 19] = np.linspace(0, 0.185, 11)
    full = np.zeros((1, 11, 59), np.float32)
    full[..., :9], full[..., 18:39] = state[..., :9], state[..., 9:]
    legacy = np.concatenate((state, np.ones_like(state)), -1)
    expected = np.where(np.array(SUBTASKS) == "slide cabinet", 0.185, 0.0)
    for mode, obs in (("state30", state), ("full59", full), ("legacy60", legacy)):
        np.testing.assert_allclose(browse.progress(obs, mode), expected[None], atol=1e-6)
    assert GOALS["slide cabinet"] == ((19,), (0.37,))


def test_colours_for_any_number():
    """D19: no end at 14."""
    assert len(set(colours(100))) == 100
    assert colours(3) == colours(100)[:3]


def test_pca_finds_the_plane():
    rng = np.random.default_rng(0)
    plane = rng.standard_normal((500, 2)) * [3.0, 1.0]
    turn = np.linalg.qr(rng.standard_normal((5, 5)))[0][:2]
    projection = latent_map.pca(plane @ turn + 7.0)
    assert projection.share.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(
        np.abs(np.corrcoef(projection(plane @ turn + 7.0)[:, 0], plane[:, 0])[0, 1]), 1, atol=0.01
    )
    covariance = projection.covariance(np.ones((1, 5)))[0]
    np.testing.assert_allclose(covariance, np.eye(2), atol=1e-6)


def test_one_latent_dimension_can_be_drawn():
    projection = latent_map.pca(np.arange(5.0)[:, None])
    assert projection(np.arange(5.0)[:, None]).shape == (5, 2)


@pytest.mark.parametrize(("counts", "expected"), [([4, 9, 8], 1), ([1, 4], 3), ([5, 5], 0)])
def test_by_how_much_the_last_fit_changed_a_mixture(counts: list[int], expected: int):
    assert growth.last_change([{"components": count} for count in counts]) == expected
