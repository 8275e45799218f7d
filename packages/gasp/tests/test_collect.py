"""`gasp data`: what is recorded, collections that are stopped, killed or run out of disk, and the reports."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gasp import data
from gasp.cli import main
from gasp.config import CollectKitchenConfig
from gasp.demos.kitchen import Part
from gasp.kitchen_obs import SUBTASKS, done, goal_vector
from gasp.run import data_kitchen
from rlcore.files import locked
from rlcore.seeding import numpy_generator

COLLECT = ["data", "collect", "kitchen", "--quiet", "--episodes", "7", "--save-every", "3", "--out"]


class Fake:
    """A demonstrator without a simulator: 4 steps a subtask, of which the episode's first one fails now and then."""

    def __init__(self, *arguments: Any) -> None:
        self.obs: list[Any] = []
        self.action: list[Any] = []
        self.label: list[int] = []

    segments = data_kitchen.Demonstrator.segments


def fake_play(player: Fake, cfg: CollectKitchenConfig, episode: int) -> list[Part]:
    rng = numpy_generator(cfg.seed, "kitchen", episode)
    steps = 16
    player.obs, player.action = [*rng.random((steps + 1, 30))], [*rng.random((steps, 9))]
    player.label = [i // 4 for i in range(steps)]
    return [
        Part(s, 4 * i, 4 * i + 4, bool(i or rng.random() < 0.5))
        for i, s in enumerate(data_kitchen.KITCHEN_SETS[cfg.set])
    ]


@pytest.fixture
def no_kitchen(monkeypatch: pytest.MonkeyPatch) -> None:
    from gasp.envs.toy import Toy

    monkeypatch.setattr(data_kitchen, "Demonstrator", Fake)
    monkeypatch.setattr(data_kitchen, "play", fake_play)
    monkeypatch.setattr(data_kitchen.envs, "single", lambda *_, **__: Toy())


def same(one: Path, two: Path) -> None:
    first, second = data.load(one), data.load(two)
    for name in data.KINDS:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert {**first.meta, "file": ""} == {**second.meta, "file": ""}


def test_stretches_have_no_failure_in_them():
    player = data_kitchen.Demonstrator.__new__(data_kitchen.Demonstrator)
    player.obs, player.action = [np.full(2, i) for i in range(11)], [np.full(1, i) for i in range(10)]
    player.label = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    parts = [Part("a", 2 * i, 2 * i + 2, success) for i, success in enumerate((True, True, False, True, False))]
    found = player.segments(parts)
    assert [obs[:, 0].tolist() for obs, _, _ in found] == [[0, 1, 2, 3, 4], [6, 7, 8]]
    assert [action[:, 0].tolist() for _, action, _ in found] == [[0, 1, 2, 3], [6, 7]]
    assert [label.tolist() for _, _, label in found] == [[0, 0, 1, 1, 1], [3, 3, 3]]
    assert player.segments([part._replace(success=False) for part in parts]) == []


@pytest.mark.usefixtures("no_kitchen")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 85), (signal.SIGINT, 130)])
def test_a_stopped_collection_goes_on_and_ends_as_if_it_never_was(
    number: signal.Signals,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    assert main([*COLLECT, str(tmp_path / "whole.h5")]) == 0

    def interrupted(*arguments: Any) -> list[Part]:
        if arguments[-1] == 4:
            os.kill(os.getpid(), number)
        return fake_play(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(data_kitchen, "play", interrupted)
        assert main([*COLLECT, str(tmp_path / "cut.h5")]) == code
    assert "5 of 7 episodes are in" in capsys.readouterr().err
    names = sorted(path.name for path in (tmp_path / "cut.unfinished").glob("block*"))
    assert names == ["block_000000_000003.h5", "block_000003_000005.h5"]
    assert main([*COLLECT, str(tmp_path / "cut.h5")]) == 0
    same(tmp_path / "whole.h5", tmp_path / "cut.h5")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.h5", "whole.h5"]


@pytest.mark.usefixtures("no_kitchen")
def test_wherever_the_disk_is_full_it_is_one_line_and_nothing_whole_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert main([*COLLECT, str(tmp_path / "whole.h5")]) == 0
    for fail in range(1, 40):
        calls, fsync = [0], os.fsync

        def failing(handle: int, calls: Any = calls, fsync: Any = fsync, fail: int = fail) -> None:
            calls[0] += 1
            if calls[0] == fail:
                raise OSError(28, "No space left on device")
            fsync(handle)

        path = tmp_path / f"d{fail}.h5"
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", failing)
            code = main([*COLLECT, str(path)])
        error = capsys.readouterr().err
        if calls[0] < fail:
            assert code == 0
            break
        assert code == 5, fail
        assert error.count("\n") == 1
        assert "No space left on device" in error
        assert str(tmp_path) in error
        assert main([*COLLECT, str(path)]) == 0
        same(tmp_path / "whole.h5", path)
        assert not list(tmp_path.rglob(".tmp-*"))
    assert fail > 8


@pytest.mark.usefixtures("no_kitchen")
def test_the_same_command_twice_is_done_and_another_one_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = str(tmp_path / "d.h5")
    assert main([*COLLECT, out]) == 0
    stamp = (tmp_path / "d.h5").stat().st_mtime_ns
    assert main([*COLLECT, out]) == 0
    assert (tmp_path / "d.h5").stat().st_mtime_ns == stamp
    assert main([*COLLECT, out, "--noise", "0.2"]) == 2
    assert "noise: 0.05 -> 0.2" in capsys.readouterr().err
    assert main([*COLLECT, out, "--noise", "0.2", "--overwrite"]) == 0


@pytest.mark.usefixtures("no_kitchen")
def test_fewer_episodes_than_there_are_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def broken(*arguments: Any) -> list[Part]:
        if arguments[-1] == 4:
            raise RuntimeError("it breaks")
        return fake_play(*arguments)

    words = [*COLLECT, str(tmp_path / "d.h5")]
    with monkeypatch.context() as patch:
        patch.setattr(data_kitchen, "play", broken)
        assert main(words) == 1
    capsys.readouterr()
    assert main([*words, "--episodes", "2"]) == 2
    error = capsys.readouterr().err
    assert "holds 3 episodes already, --episodes asks for 2: ask for 3 or more, or begin anew with --overwrite" in error
    with locked(tmp_path / "d.unfinished"):  # another process is at it: nothing of its is taken away
        assert main([*words, "--episodes", "2", "--overwrite"]) == 2
        assert "is in use by" in capsys.readouterr().err
        assert len(list((tmp_path / "d.unfinished").glob("block_*"))) == 1
    assert main([*words, "--episodes", "2", "--overwrite"]) == 0
    assert data.load(tmp_path / "d.h5").meta["options"]["episodes"] == 2


@pytest.mark.usefixtures("no_kitchen")
def test_an_unfinished_collection_is_not_mixed_with_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def broken(*arguments: Any) -> list[Part]:
        if arguments[-1] == 4:
            raise RuntimeError("it breaks")
        return fake_play(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(data_kitchen, "play", broken)
        assert main([*COLLECT, str(tmp_path / "d.h5")]) == 1
    assert main([*COLLECT, str(tmp_path / "d.h5"), "--seed", "7"]) == 2
    assert "seed: 100 -> 7" in capsys.readouterr().err
    (tmp_path / "d.unfinished" / "block_000000_000003.h5").rename(tmp_path / "d.unfinished" / "block_000001_000003.h5")
    assert main([*COLLECT, str(tmp_path / "d.h5")]) == 4
    assert "expected a block from episode 0 on" in capsys.readouterr().err


# --- the real thing --------------------------------------------------------------------------------------------------
def test_walks_are_recorded_as_they_were(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = str(tmp_path / "toy.h5")
    assert main(["data", "collect", "toy", "--transitions", "500", "--out", out]) == 0
    demos = data.load(tmp_path / "toy.h5")
    assert demos.lengths.tolist() == [101] * 5
    steps = demos.obs[1:101, :2] - demos.obs[:100, :2]
    np.testing.assert_allclose(
        steps, demos.obs[1:101, 2:], atol=1e-3 + 0.06
    )  # x' = x + v', but where a wall stopped it
    free = np.abs(steps - demos.obs[1:101, 2:]).max(1) < 1e-5
    speed = 0.5 * demos.obs[:100, 2:] + 0.1 * demos.action[:100]
    np.testing.assert_allclose(
        speed[free], demos.obs[1:101, 2:][free], atol=1e-5
    )  # the action is the one that was taken
    assert free.mean() > 0.8
    assert not demos.action[100].any()
    assert set(demos.label.tolist()) == {0, 1, 2, 3}
    capsys.readouterr()
    assert main(["data", "inspect", out, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["episodes"], found["transitions"], found["windows"]) == (5, 500, "455 of 10 steps")


@pytest.fixture(scope="module")
def robot() -> Any:
    pytest.importorskip("gymnasium_robotics")
    from gasp import envs
    from gasp.demos.scripts import SCRIPTS

    env: Any = envs.single("kitchen-all")
    yield data_kitchen.Demonstrator(env.unwrapped, SCRIPTS)
    env.close()


def test_the_robot_does_the_four_subtasks_in_sequence(robot: Any):
    robot.begin(100, np.random.default_rng(0))
    parts = robot.chain(data_kitchen.KITCHEN_SETS["complete"], 280)
    assert [part.success for part in parts] == [True] * 4
    assert parts[-1].end < 280
    assert done(robot.env.raw.data.qpos, data_kitchen.KITCHEN_SETS["complete"]).all()
    assert len(robot.label) == len(robot.action) == len(robot.obs) - 1
    for part in parts:
        assert set(robot.label[part.begin : part.end]) == {SUBTASKS.index(part.subtask)}


def test_an_episode_is_decided_by_its_seed_and_the_hinge_cabinet_comes_last(monkeypatch: pytest.MonkeyPatch):
    """Its open door stands before the slide cabinet's handle."""
    player = Fake()
    monkeypatch.setattr(player, "begin", lambda seed, rng: None, raising=False)
    monkeypatch.setattr(player, "chain", lambda subtasks, limit: subtasks, raising=False)
    real: Any = data_kitchen.play
    cfg = CollectKitchenConfig(set="all")
    chains: Any = [real(player, cfg, episode) for episode in range(30)]
    assert chains == [real(player, cfg, episode) for episode in range(30)]
    assert len({tuple(chain) for chain in chains}) > 20
    assert {len(chain) for chain in chains} == {4}
    last = [chain.index("hinge cabinet") for chain in chains if "hinge cabinet" in chain]
    assert set(last) == {3}
    listed: Any = real(player, CollectKitchenConfig(order="listed"), 5)
    assert tuple(listed) == data_kitchen.KITCHEN_SETS["complete"]


def test_a_kitchen_put_back_lives_the_same_again(robot: Any):
    robot.begin(100, np.random.default_rng(0))
    robot.attempt("kettle", 20)
    snapshot = robot.snapshot()
    runs = []
    for _ in range(2):
        robot.restore(snapshot, np.random.default_rng(1))
        for _ in range(5):
            robot.env.step(np.full(9, 0.2))
        runs.append(robot.env.raw.data.qpos.copy())
    np.testing.assert_array_equal(*runs)


@pytest.mark.skipif(importlib.util.find_spec("gymnasium_robotics") is None, reason="needs the extra robotics")
def test_recorded_goals_are_those_of_the_set_that_is_drawn_from(tmp_path: Path):
    words = "data collect kitchen --quiet --episodes 1 --subtasks 1 --order listed --obs-mode legacy60 --out"
    assert main([*words.split(), str(tmp_path / "d.h5")]) == 0
    goals = data.load(tmp_path / "d.h5").obs[:, 30:]
    np.testing.assert_array_equal(goals, np.tile(goal_vector(data_kitchen.KITCHEN_SETS["complete"]), (len(goals), 1)))


@pytest.mark.slow
def test_killed_at_any_time_the_same_command_goes_on(tmp_path: Path):
    pytest.importorskip("gymnasium_robotics")
    words = "data collect kitchen --quiet --episodes 3 --save-every 1 --subtasks 1 --out"
    assert main([*words.split(), str(tmp_path / "whole.h5")]) == 0
    command = [sys.executable, "-m", "gasp", *words.split(), str(tmp_path / "killed.h5")]
    for count in (1, 2):
        child = subprocess.Popen(command)
        while len(list((tmp_path / "killed.unfinished").glob("block*"))) < count and child.poll() is None:
            time.sleep(0.01)
        child.kill()
        child.wait()
    assert main([*words.split(), str(tmp_path / "killed.h5")]) == 0
    same(tmp_path / "whole.h5", tmp_path / "killed.h5")
