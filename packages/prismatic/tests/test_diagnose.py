"""`prismatic diagnose` end to end, and what it says when something is wrong."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prismatic import envs
from prismatic.analysis.openloop import add_up, measures, window_starts
from prismatic.analysis.rolling import roll
from prismatic.cli import main
from prismatic.config import SavedRun, TaskSpec
from prismatic.run.diagnose import plain
from prismatic.run.episodes import collect, shares
from prismatic.run.saved import open_run
from rlcore.seeding import derive

RUNS = {
    "moe": ["seed=3"],
    "dense": ["use_moe=false"],
    "two": ["task=toy-reach,toy-cross"],
    "turned": ["task=toy-cross,toy-reach"],
}
KEYS = ["latent_error", "latent_static", "reward_rmse", "reward_mean", "return_rmse", "return_mean"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name, options in RUNS.items():
        common = ["--preset", "debug", "--task", "toy-reach", "--dir", str(folder), "--name", name, "--quiet"]
        assert main(["train", *common, "--steps", "60", "--eval-every", "1000", "--save-every", "1000", *options]) == 0
    return folder


@pytest.fixture
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes a second: once or twice is enough."""
    monkeypatch.setattr("rlcore.plots.save", lambda figure, path: None)


def diagnose(root: Path, name: str, *options: str, code: int = 0) -> None:
    assert main(["diagnose", "--name", name, "--dir", str(root), *options]) == code


@pytest.mark.parametrize("name", ["moe", "dense", "two"])
def test_files_and_table(root: Path, name: str, capsys: pytest.CaptureFixture[str]):
    diagnose(root, name, "--episodes", "3", "--windows", "40")
    folder, text = root / name, capsys.readouterr().out
    report = json.loads((folder / "analysis" / "diagnose.json").read_text())
    tasks = ["toy-reach", "toy-cross"] if name == "two" else ["toy-reach"]
    run = report["runs"]["agent"]
    assert (run["variant"], run["step"] > 0, report["ratio"]) == ("dense" if name == "dense" else "4o", True, None)
    assert report["options"]["windows"] == 40
    assert report["environment"]["packages"]["torch"]
    assert list(run["tasks"]) == list(report["episodes"]) == tasks
    for task in tasks:
        assert list(run["tasks"][task]) == KEYS
        assert all(len(row) == 16 and min(row) > 0 for row in run["tasks"][task].values())
        told = report["episodes"][task]
        assert (told["collectors"], told["lengths"], told["windows"]) == ({"random": 1, "agent": 2}, [50] * 3, 40)
    with open(folder / "analysis" / "open_loop.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["task"], row["horizon"]) for row in rows] == [(t, str(h)) for t in tasks for h in range(1, 17)]
    assert float(rows[3]["return_rmse"]) == run["tasks"]["toy-reach"]["return_rmse"][3]
    assert (folder / "plots" / "open_loop.png").stat().st_size > 20_000
    assert text.count("  steps ahead ") == len(tasks)
    assert ("experts of the reward" in text) == (name != "dense")
    check_gates(run["gates"], tasks) if name != "dense" else check_absent(run["gates"])


def check_gates(gates: dict[str, Any], tasks: list[str]) -> None:
    assert list(gates) == ["dynamics", "reward"]
    for gate in gates.values():
        assert 0.5 <= gate["tau"] <= 2.0
        assert (gate["mi_task"] is None) == (len(tasks) == 1)
        for row in (gate["tasks"][task] for task in tasks):
            assert sum(row["load"]) == pytest.approx(1, abs=1e-5)
            assert sum(row["share"]) == pytest.approx(1)
            assert [x is None for x in row["latent_error"]] == [share == 0 for share in row["share"]]


def check_absent(gates: Any) -> None:
    assert gates is None


@pytest.mark.usefixtures("no_picture")
def test_split_errors_add_up_to_the_whole(root: Path, capsys: pytest.CaptureFixture[str]):
    diagnose(root, "moe", "--policy", "random", "--json")
    run = json.loads(capsys.readouterr().out)["runs"]["agent"]
    row = run["gates"]["dynamics"]["tasks"]["toy-reach"]
    mean = sum(share * error for share, error in zip(row["share"], row["latent_error"]) if share)
    assert mean == pytest.approx(run["tasks"]["toy-reach"]["latent_error"][0])
    square = sum(share * error**2 for share, error in zip(row["share"], row["reward_rmse"]) if share)
    assert square**0.5 == pytest.approx(run["tasks"]["toy-reach"]["reward_rmse"][0])


@pytest.mark.usefixtures("no_picture")
def test_the_same_command_gives_the_same_numbers(root: Path, capsys: pytest.CaptureFixture[str]):
    outs = []
    for base in ("7", "7", "8"):
        diagnose(root, "moe", "--json", "--seed-base", base, "--episodes", "2", "--horizon", "4")
        outs.append(json.loads(capsys.readouterr().out)["runs"])
    assert outs[0] == outs[1] != outs[2]


@pytest.mark.usefixtures("no_picture")
def test_a_run_against_itself_is_a_draw(root: Path, capsys: pytest.CaptureFixture[str]):
    diagnose(root, "two", "--compare", "two", "--horizon", "8")
    text = capsys.readouterr().out
    assert "B / A" in text
    report = json.loads((root / "two" / "analysis" / "diagnose_vs_two.json").read_text())
    assert report["runs"]["A"] == report["runs"]["B"]
    for task in ("toy-reach", "toy-cross"):
        assert report["episodes"][task]["collectors"] == {"random": 2, "A": 1, "B": 1}
        for key in ("latent_error", "return_rmse"):
            assert report["ratio"][task][key] == {end: [1.0] * 8 for end in ("ratio", "low", "high")}


def test_two_runs_see_the_same_episodes(root: Path, capsys: pytest.CaptureFixture[str]):
    diagnose(root, "moe", "--compare", "dense", "--episodes", "5", "--horizon", "4", "--json")
    report = json.loads(capsys.readouterr().out)
    a, b = (report["runs"][label]["tasks"]["toy-reach"] for label in "AB")
    assert report["episodes"]["toy-reach"]["collectors"] == {"random": 2, "A": 2, "B": 2}  # 3 would favour one
    assert a["return_mean"] == b["return_mean"]
    assert a["return_rmse"] != b["return_rmse"]
    row = report["ratio"]["toy-reach"]["return_rmse"]
    assert row["ratio"] == pytest.approx([y / x for x, y in zip(a["return_rmse"], b["return_rmse"])])
    assert all(low <= middle <= high for low, middle, high in zip(row["low"], row["ratio"], row["high"]))
    with open(root / "moe" / "analysis" / "open_loop_vs_dense.csv", newline="") as file:
        assert [row["run"] for row in csv.DictReader(file)] == ["A"] * 4 + ["B"] * 4
    assert (root / "moe" / "plots" / "open_loop_vs_dense.png").stat().st_size > 20_000


@pytest.mark.usefixtures("no_picture")
def test_tasks_are_matched_by_name(root: Path, capsys: pytest.CaptureFixture[str]):
    """The order of a run's tasks is its own affair."""
    diagnose(root, "two", "--compare", "turned", "--policy", "random", "--horizon", "4", "--json")
    report = json.loads(capsys.readouterr().out)["runs"]
    for label, name, order in (("A", "two", (0, 1)), ("B", "turned", (1, 0))):
        saved = open_run(SavedRun(name=name, dir=root), "auto")
        for index, task in zip(order, ("toy-reach", "toy-cross")):
            assert saved.tasks[index].name == task
            episodes = collect({}, saved.tasks[index], {"random": 4}, 10_000)
            rolled = roll(saved.agent.model, index, episodes, window_starts([50] * 4, 4, 2_000), 4)
            assert report[label]["tasks"][task] == plain(measures(add_up(rolled)))


def test_episodes_are_none_of_training_s_or_eval_s(root: Path):
    saved = open_run(SavedRun(name="moe", dir=root), "auto")
    task = saved.tasks[0]
    counts = shares(6, "mixed", ["agent"])
    found = collect({"agent": saved}, task, counts, saved.cfg.seed)  # even under the seed of training
    starts = {episode.obs[0].tobytes() for episode in found}
    assert len(starts) == 6
    for seed in (saved.cfg.seed, derive(saved.cfg.seed, "selection"), derive(saved.cfg.seed, "evaluation")):
        vec = envs.make([task], 10, seed=seed)
        for _ in range(20):
            assert not starts & {row.tobytes() for row in vec.reset()}
        vec.close()
    plans = [episode.action for episode in found if episode.collector == "agent"]
    assert not any(np.array_equal(x, y) for i, x in enumerate(plans) for y in plans[:i])


def test_episodes_are_what_the_env_makes_of_the_actions(root: Path):
    saved = open_run(SavedRun(name="two", dir=root), "auto")
    found = collect({"agent": saved}, saved.tasks[1], {"random": 2, "agent": 1}, 0)
    assert [episode.collector for episode in found] == ["random", "random", "agent"]
    for env, episode in enumerate(found):
        vec = envs.make([saved.tasks[1]], 1, seed=derive(0, "diagnosis"), first_env=env)
        obs, rewards = [vec.reset()[0].copy()], []
        for action in episode.action:
            moved = vec.step(action[None])
            obs.append((moved.final_obs if moved.truncated[0] else moved.obs)[0].copy())
            rewards.append(float(moved.reward[0]))
        np.testing.assert_array_equal(episode.obs, np.stack(obs))
        np.testing.assert_array_equal(episode.reward, rewards)
        vec.close()


@pytest.mark.parametrize(
    ("policy", "agents", "expected"),
    [
        ("mixed", "x", {"random": 2, "x": 3}),
        ("agent", "x", {"x": 5}),
        ("random", "x", {"random": 5}),
        ("mixed", "xy", {"random": 2, "x": 2, "y": 2}),
        ("agent", "xy", {"x": 3, "y": 3}),
        ("random", "xy", {"random": 5}),
    ],
)
def test_who_collects_how_many(policy: str, agents: str, expected: dict[str, int]):
    assert shares(5, policy, list(agents)) == expected


@pytest.mark.parametrize(
    ("name", "options", "code", "message"),
    [
        ("moe", ["--horizon", "51"], 2, "51 steps do not fit an episode of toy-reach, 50 steps"),
        ("moe", ["--compare", "two"], 2, "two runs of the same tasks are needed"),
        ("moe", ["--compare", "mooe"], 2, "did you mean moe"),
        ("moe", ["--episodes", "1"], 2, "half of 1 is none"),
        ("moe", ["--windows", "0"], 2, "windows: must be at least 1"),
        ("moe", ["--checkpoint", "x.pt", "--compare", "two"], 2, "--compare-checkpoint"),
        ("moe", ["--compare-checkpoint", "best"], 2, "--compare"),
        ("nothing", [], 2, "there is no run"),
        ("empty", [], 4, "no checkpoint named"),
    ],
)
def test_mistakes_get_one_line(
    root: Path, name: str, options: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
):
    if name == "empty":
        (root / "empty" / "checkpoints").mkdir(parents=True)
        (root / "empty" / "config.json").write_text("{}")
    diagnose(root, name, *options, code=code)
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_episodes_that_end_too_early(root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    from prismatic.envs.toy import Reach

    monkeypatch.setattr(Reach, "episode_length", 5)  # the agent was told 50
    diagnose(root, "moe", code=2)
    assert "16 steps do not fit any episode of toy-reach: the longest had 5" in capsys.readouterr().err


def test_an_env_that_went_wrong(root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    from prismatic.envs.toy import Reach

    monkeypatch.setattr(Reach, "_obs", lambda self: np.full(6, np.nan, np.float32))
    diagnose(root, "moe", "--policy", "random", code=5)
    assert "toy-reach gave an observation or reward that is not finite" in capsys.readouterr().err


def test_what_is_not_finite_is_null_in_json():
    assert plain({"a": np.array([1.0, np.nan]), "b": (np.float32(2), np.inf, 3)}) == {
        "a": [1.0, None],
        "b": [2.0, None, 3],
    }


def test_terminated_episodes_are_cut_where_they_end():
    from prismatic.run.episodes import play

    class Falls:
        """Env e falls after e + 2 steps; then its counter starts at 0 again."""

        num_envs, tasks = 2, [TaskSpec("falls", 1, 1, 10, True)]

        def reset(self) -> np.ndarray:
            self.time = np.zeros((2, 1), np.float32)
            self.current_obs = self.time.copy()
            return self.current_obs

        def step(self, action: np.ndarray) -> Any:
            from rlcore.vecenv import VecStep

            self.time += 1
            final, ended = self.time.copy(), self.time[:, 0] == [2, 3]
            self.time[ended] = 0
            self.current_obs = self.time.copy()
            return VecStep(self.current_obs, final[:, 0], ended, np.zeros(2, bool), final, {})

    vec: Any = Falls()
    found = play(vec, lambda vec, obs, first: obs, "x")
    assert [episode.obs[:, 0].tolist() for episode in found] == [[0, 1, 2], [0, 1, 2, 3]]
    assert [episode.action[:, 0].tolist() for episode in found] == [[0, 1], [0, 1, 2]]
    assert [episode.reward.tolist() for episode in found] == [[1, 2], [1, 2, 3]]
