"""`prismatic bench`: that it measures what training runs, adds up, and leaves no trace. No test looks at the clock."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from prismatic.cli import main
from prismatic.config import PRESETS, SIZES, BenchConfig
from prismatic.model import WorldModel
from prismatic.run import bench
from prismatic.run.turns import TURNS, Laps, clock_for, in_turns
from rlcore import cli
from rlcore.errors import UsageError

CPU = torch.device("cpu")
TINY = BenchConfig(**BenchConfig.PRESETS["debug"], num_envs=3, seconds=1e-3, device="cpu")


@pytest.fixture(autouse=True)
def little_replay(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench, "NOISE_EPISODE", 20)
    train = BenchConfig.train
    monkeypatch.setattr(BenchConfig, "train", lambda cfg, use_moe: replace(train(cfg, use_moe), buffer_size=60))


@pytest.fixture
def five_critics(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(SIZES, "tiny", replace(SIZES["tiny"], num_q=5))


@pytest.mark.usefixtures("five_critics")
def test_what_is_printed_and_written_is_the_whole_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    output = tmp_path / "new" / "bench.json"
    command = ["bench", "--preset", "debug", "num_envs=3", "seconds=0.001", "device=cpu", "--output", str(output)]
    assert main([*command, "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert json.loads(output.read_text()) == found
    assert "measuring update: dense, 4o" in err
    assert found["settings"]["num_samples"] == PRESETS["debug"]["num_samples"]
    assert set(found["parameters"]) == {"dense", "4o"}
    assert {"cpu", "gpu", "load", "packages", "git"} <= set(found["machine"])
    assert (found["clock"], found["turns"]) == ("CPU time, 1 thread", TURNS)
    assert [(row["what"], row["side"]) for row in found["rows"]] == [
        ("update", "dense"), ("update", "4o"), ("plan", "dense"), ("plan", "4o"),
        ("plans, dense", "3 at once"), ("plans, dense", "3 one by one"),
        ("plan, dense", "all 5 critics"), ("plan, dense", "the 2 drawn"),
        ("plans, 4o", "3 at once"), ("plans, 4o", "3 one by one"),
        ("plan, 4o", "all 5 critics"), ("plan, 4o", "the 2 drawn"),
    ]  # fmt: skip
    for row in found["rows"]:
        low, high = row["quartiles"]
        assert 0 < low <= row["ms"] <= high
        count = 3 if row["what"].startswith("plans") else 1
        assert row["per_s"] == pytest.approx(1e3 * count / row["ms"], rel=1e-2)
    assert [(row["over"], row["under"]) for row in found["ratios"][:3]] == [
        ("4o", "dense"), ("4o", "dense"), ("3 one by one", "3 at once"),
    ]  # fmt: skip
    assert list(found["parts_ms"]["update"]["4o"]) == [
        "replay", "noise", "model forward", "model backward, Adam", "policy", "targets, gates",
    ]  # fmt: skip
    assert list(found["parts_ms"]["plan"]["dense"]) == ["noise", "encode", "prior", "rollouts, fits"]


@pytest.mark.usefixtures("five_critics")
def test_rates_and_ratios_by_hand(monkeypatch: pytest.MonkeyPatch):
    costs = {name: np.array([cost, cost, 2 * cost, cost, cost]) for name, cost in
             {"dense": 0.1, "4o": 0.2, "3 at once": 0.5, "3 one by one": 0.75, "all 5 critics": 0.3, "the 2 drawn": 0.2,
              "whole": 1.0}.items()}  # fmt: skip
    monkeypatch.setattr(
        bench, "in_turns", lambda calls, *_: {name: costs.get(name, np.array([0.25])) for name in calls}
    )
    found = bench.measure(TINY, CPU)
    rows = {(row["what"], row["side"]): row for row in found["rows"]}
    assert rows["update", "4o"] == {
        "what": "update", "side": "4o", "per_s": 5.0, "ms": 200.0, "quartiles": [200.0, 200.0],
    }  # fmt: skip
    assert rows["plans, 4o", "3 at once"]["per_s"] == 6.0  # three plans in half a second
    ratios = {(row["what"], row["over"]): row["ratio"] for row in found["ratios"]}
    assert ratios == {
        ("update", "4o"): 2.0, ("plan", "4o"): 2.0, ("plans, dense", "3 one by one"): 1.5,
        ("plan, dense", "all 5 critics"): 1.5, ("plans, 4o", "3 one by one"): 1.5, ("plan, 4o", "all 5 critics"): 1.5,
    }  # fmt: skip
    assert found["parts_ms"]["plan"]["dense"] == {"noise": 250, "encode": 250, "prior": 250, "rollouts, fits": 250}


def test_the_table_has_every_row():
    found = bench.measure(TINY, CPU)
    text = bench.to_text(found)
    for row in found["rows"]:
        assert f"{row['what']}: {row['side']} " in text
    assert "update: 4o / dense " in text
    assert "critics" not in text  # of two critics both are drawn: there is nothing to compare


def test_it_leaves_global_state_alone():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
        assert bench.bench(replace(TINY, json=True)) == 0
        assert torch.get_num_threads() == 2
        assert torch.equal(states[0], torch.get_rng_state())
        assert states[1:] == (np.random.get_state()[1].tolist(), random.getstate())  # noqa: NPY002
        with bench.threads(1):
            assert torch.get_num_threads() == 1
        with pytest.raises(UsageError):
            bench.bench(replace(TINY, device="cuda:99"))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_memory_is_kept_as_in_training(monkeypatch: pytest.MonkeyPatch):
    order: list[str] = []
    monkeypatch.setattr(bench.cpu, "reuse_memory", lambda: order.append("kept"))
    monkeypatch.setattr(bench, "measure", lambda *_: order.append("measured"))
    bench.bench(replace(TINY, json=True))
    assert order == ["kept", "measured"]


@pytest.mark.usefixtures("five_critics")
@pytest.mark.parametrize("moe", [False, True])
def test_all_critics_evaluated_give_the_same_plan(moe: bool):
    cfg = replace(TINY, num_samples=32, num_elites=8, num_pi_trajs=4, iterations=6)
    side = bench.Side(cfg.train(moe), cfg, CPU)
    with torch.no_grad():  # they start at 0, all alike
        side.agent.model.critics.head.weight.normal_(generator=torch.Generator().manual_seed(0))
    noise = side.one.noise(side.agent.settings, 5)
    every = bench.AllHeads(side.agent.model)
    for ours, slow in zip(
        side.plan_with(side.agent.model, noise), side.plan_with(cast(WorldModel, every), noise), strict=True
    ):
        assert_close(ours, slow)
    z, task = torch.zeros(1, 7, 64), torch.zeros(1, 1, dtype=torch.int64)
    asked: list[Any] = []
    side.agent.model.critics.register_forward_pre_hook(lambda _, args: asked.append(args[1]))
    heads = torch.tensor([3, 1])
    assert_close(every.q(z, torch.ones(1, 7, 6), task, heads), side.agent.model.q(z, torch.ones(1, 7, 6), task, heads))
    assert asked[0] is None  # all of them
    assert torch.equal(asked[1], heads)
    others = noise._replace(heads=(noise.heads + 1) % 5)
    assert not torch.equal(side.plan_with(side.agent.model, noise)[0], side.plan_with(side.agent.model, others)[0])


def test_updates_that_are_timed_by_part_learn_the_same():
    sides = [bench.Side(TINY.train(True), TINY, CPU) for _ in range(2)]
    inner, model_loss = vars(sides[0].agent).copy(), sides[0].agent._model_loss
    ticks = iter(range(10**6))
    bench.update_parts(sides[0], 0.0, lambda: float(next(ticks)))
    for _ in range(TURNS):
        sides[1].update()
    ours, plain = (side.agent.model.state_dict() for side in sides)
    assert sides[0].agent.updates == TURNS
    assert all(torch.equal(ours[name], plain[name]) for name in plain)
    assert vars(sides[0].agent).keys() == inner.keys()  # nothing is left in the agent
    assert sides[0].agent._model_loss is model_loss


def fake_clock() -> tuple[Callable[[], float], Callable[[float], None]]:
    time = [0.0]

    def spend(seconds: float) -> None:
        time[0] += seconds

    return lambda: time[0], spend


def test_sides_are_measured_in_turns():
    now, spend = fake_clock()
    order: list[str] = []

    def side(name: str, seconds: float) -> Callable[[], None]:
        return lambda: (order.append(name), spend(seconds))[0]

    costs = in_turns({"fast": side("fast", 1.0), "slow": side("slow", 30.0)}, 20.0 * TURNS, now)
    assert order == ["fast"] * 2 + ["slow"] * 2 + (["fast"] * 10 + ["slow"]) * TURNS  # half of 20 s each, or one call
    assert costs["fast"].tolist() == [1.0] * TURNS
    assert costs["slow"].tolist() == [30.0] * TURNS


def test_parts_of_a_call_add_up():
    now, spend = fake_clock()

    class Worker:
        def step(self, seconds: float) -> float:
            spend(seconds)
            return seconds

    worker, laps = Worker(), Laps(now)
    with laps.inside(worker, {"step": ("first", "second")}):
        assert [worker.step(s) for s in (1.0, 2.0, 4.0)] == [1.0, 2.0, 4.0]
    worker.step(8.0)
    assert laps.read() == {"first": 5.0, "second": 2.0}
    assert laps.read() == {}


def test_clocks():
    assert clock_for(CPU, 1)[1] == "CPU time, 1 thread"
    assert clock_for(CPU, 2)[1] == "wall time, 2 threads"


def test_presets_and_defaults():
    parse = lambda *argv: cli.parse(BenchConfig, argv, "prismatic bench", "", BenchConfig.PRESETS)  # noqa: E731
    cfg = parse("model_size=5")
    assert (cfg.model_size, cfg.batch_size, cfg.num_samples) == (5, 256, 512)
    assert cfg == parse()
    cpu = parse("--preset", "cpu", "--model-size", "1")
    assert (cpu.model_size, cpu.batch_size, cpu.num_samples, cpu.iterations) == (1, 128, 128, 4)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_samples", 8, "num_pi_trajs: 24 leave nothing"),
        ("obs_dim", 0, "obs_dim must be at least 1"),
        ("num_envs", 0, "num_envs"),
        ("seconds", 0.0, "seconds"),
        ("n_experts", 0, "n_experts"),
        ("threads", 0, "threads"),
        ("horizon", 501, "an episode of noise has 500"),
    ],
)
def test_what_cannot_be_measured_is_refused(key: str, value: object, message: str):
    with pytest.raises(UsageError, match=message):
        BenchConfig(**{key: value})
