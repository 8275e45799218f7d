"""What is timed against a peer, and how a record of it is judged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks import report
from benchmarks.micro import timing


def test_the_plain_update_and_plan_that_ours_are_timed_against_are_the_same():
    from benchmarks.micro import prismatic

    small = {"batch_size": 8, "num_samples": 16, "num_elites": 4, "num_pi_trajs": 4}
    cfg = replace(prismatic.DENSE["tiny (preset cpu)"], **small)
    prismatic.same_numbers(prismatic.make_agent(cfg), prismatic.Peer(prismatic.make_agent(cfg)))


def test_errors_of_both_inference_models_are_judged_alike(monkeypatch: pytest.MonkeyPatch):
    import torch
    from benchmarks.micro import published_inference as published

    from taskinfer.config import InferenceConfig

    ring, held_out = published.make_data(0)
    ours, theirs = published.Ours(0, InferenceConfig(prior="gauss", batch=8, targets=4)), published.Published(0)
    monkeypatch.setattr(published, "WINDOWS", 8)
    for side in (ours, theirs):
        before = published.error(side, held_out)
        for _ in range(3):
            side.update(ring)
        assert published.error(side, held_out) != before
        shapes = [part.shape for part in side.decode(held_out, torch.tensor([20, 40]))]
        assert shapes == [(400, 200, 2), (400, 200, 1)]
    true = published.transitions(held_out).repeat_interleave(4, 0)
    for off in (0.0, 0.5):
        monkeypatch.setattr(ours, "decode", lambda *_, off=off: (true[..., 3:], true[..., 2:3] + off))
        assert published.error(ours, held_out) == pytest.approx(off**2)


def test_a_ratio_without_a_bar_is_neither_reached_nor_missed(tmp_path: Path):
    sides = ("a", lambda k: 2.0), ("b", lambda k: 1.0)

    def rows(bar: float | None) -> list[timing.Row]:
        return [timing.compare("x", *sides, bar=bar, unit="s")]

    def exit_code(bar: float | None) -> int:
        return timing.run("x", "X", lambda _: rows(bar), (), ["--json", str(tmp_path / "x.json")])

    assert [exit_code(bar) for bar in (None, 0.4, 0.6)] == [0, 0, 1]
    assert json.loads((tmp_path / "x.json").read_text())["rows"][0]["ratio"] == 0.5
    assert report.micro_table({"rows": rows(None)})[1][0][-2:] == ("–", "–")
