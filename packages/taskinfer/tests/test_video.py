"""`eval video`: what is in a frame, with a camera and without a driver."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_bodies import Slider

from taskinfer.analysis import film
from taskinfer.cli import main
from taskinfer.envs.bodies import make_body
from taskinfer.run.film import farthest
from taskinfer.tasks import parse_tasks
from taskinfer.transfer import Driver


def test_a_film_of_every_task(transfer_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """3 families, 4 decisions of 2 body steps, every second of them drawn."""
    words = [
        "eval",
        "video",
        str(transfer_run),
        "--steps",
        "4",
        "--view",
        "camera",
        "--output",
        str(tmp_path / "a.gif"),
    ]
    assert main(words) == 0
    assert "returns goal_forward:2 " in capsys.readouterr().out
    with Image.open(tmp_path / "a.gif") as made:
        assert made.n_frames == 12
        assert made.info["duration"] == 200  # 2 steps of 0.1 s
        first = np.asarray(made.convert("RGB"))
    assert (first[film.HEAD + 100, film.WIDTH // 2] == 200).all()  # the body's own picture
    assert (first != 255).any(-1)[: film.HEAD].any()
    assert (first != 255).any(-1)[-film.FOOT :].any()


def test_a_body_that_fell_is_shown_as_it_was(transfer_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Here the first body falls in the second of 5 decisions: nobody sees that it has begun anew."""
    seen: list[list[list[np.ndarray]]] = []
    monkeypatch.setattr(film, "compose", lambda record, views, *rest: (seen.append(views), [])[1])
    monkeypatch.setattr("rlcore.video.write", lambda *rest, **options: None)
    step, drawn = Driver._step, iter(range(10**6))

    def falling(driver: Driver, action: np.ndarray) -> None:
        step(driver, action)
        driver.alive[0] &= driver.bodies.age[0] < 3

    monkeypatch.setattr(Driver, "_step", falling)
    monkeypatch.setattr(Slider, "render", lambda body: np.full((4, 4, 3), next(drawn)))
    words = f"eval video {transfer_run} --steps 5 --view camera --every 1 --output {tmp_path / 'a.gif'}"
    assert main(words.split()) == 0
    first, second = ([int(views[body].flat[0]) for views in seen[0]] for body in (0, 1))
    assert first[2:] == [first[1]] * (len(first) - 2)
    assert len(set(second)) == len(second)


def test_a_body_without_a_side_needs_a_camera(transfer_run: Path, toy_run: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["eval", "video", str(transfer_run)]) == 2
    assert "tiny_bodies:slider has no side_view: use --view camera" in capsys.readouterr().err
    assert main(["eval", "video", str(toy_run)]) == 2
    assert "is no transfer (its stage is toy): see `taskinfer transfer reuse`" in capsys.readouterr().err
    assert not list((transfer_run / "videos").iterdir())


def test_the_side_of_a_cheetah_is_rigid_and_where_it_is():
    body = make_body("cheetah")
    body.reset(0)
    before = body.side_view()  # type: ignore[attr-defined]
    for _ in range(40):
        body.step(np.full(6, 0.7, np.float32))
    after = body.side_view()  # type: ignore[attr-defined]
    body.close()
    assert before.shape == (8, 5)  # torso, head, and three links a leg
    long = [np.hypot(*(view[:, :2] - view[:, 2:4]).T) for view in (before, after)]
    np.testing.assert_allclose(long[0], long[1], atol=1e-6)
    assert long[0].max() == pytest.approx(1.0)  # the torso, m
    assert np.abs(after[:, [0, 2]].mean() - float(body.simple_state().x)) < 0.3
    assert (before[:, [1, 3]] > -0.1).all()


def test_a_flag_stands_at_the_goal_or_points_to_it():
    view = np.array([[9.5, 0.5, 10.5, 0.5, 0.05]])
    for spec, column in ((11.0, film.WIDTH // 2 + film.PIXELS), (40.0, film.WIDTH - 9), (-40.0, 9)):
        page = film.side(view)
        bare = np.asarray(page).copy()
        film.flag(page, view, spec, "#ff0000")
        changed = np.flatnonzero((np.asarray(page) != bare).any((0, 2)))
        assert changed.min() - 2 <= column <= changed.max() + 2


def test_of_each_family_the_farthest():
    chosen = farthest(parse_tasks("goal:2,-2,5,-5;velocity:1,-1"))
    assert [str(task) for task in chosen.single()] == [
        "goal_forward:5", "goal_backward:-5", "velocity_forward:1", "velocity_backward:-1",
    ]  # fmt: skip
