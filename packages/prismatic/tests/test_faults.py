"""R3 and R5 of docs/reliability.md for prismatic: signals to real processes, numbers that are not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from prismatic.agent import Agent
from prismatic.cli import main
from rlcore import checkpoint
from rlcore.files import read_json

OPTIONS = "train --preset debug --quiet --save-every 10 --log-every 10 --eval-every 1000 --name run --dir".split()
SICK = """
import numpy as np
from prismatic.envs.toy import Reach
class Sick(Reach):
    def __init__(self, what, value):
        super().__init__()
        self.what, self.value, self.count = what, value, 0
    def step(self, action):
        obs, reward, *rest = super().step(action)
        self.count += 1
        if self.count == (50 if self.what == "last obs" else 55):
            if self.what == "reward": reward = self.value
            else: obs = np.full_like(obs, self.value)
        return obs, reward, *rest
def reward_nan(): return Sick("reward", np.nan)
def reward_inf(): return Sick("reward", np.inf)
def obs_nan(): return Sick("obs", np.nan)
def last_obs_nan(): return Sick("last obs", np.nan)
"""


def checkpoints_are_finite(folder: Path) -> None:
    saved = checkpoint.Checkpoints(folder / "checkpoints").steps()
    assert saved
    for step in saved:
        state = checkpoint.load(folder / "checkpoints" / f"step_{step:09d}.pt")
        assert checkpoint.nonfinite(state["parts"], "parts") is None, step


@pytest.mark.parametrize("factory", ["reward_nan", "reward_inf", "obs_nan", "last_obs_nan"])
def test_a_sick_environment_is_named(
    factory: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "sick_task.py").write_text(SICK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main([*OPTIONS, str(tmp_path), "--task", f"sick_task:{factory}"]) == 3
    error = capsys.readouterr().err
    assert f"sick_task:{factory}" in error
    assert "last good checkpoint: step" in error
    dump = next((tmp_path / "run" / "analysis").glob("nonfinite_step_*.pt"))
    assert int(dump.stem.split("_")[-1]) <= 60 + 10  # the next log row after it
    checkpoints_are_finite(tmp_path / "run")


@pytest.mark.parametrize("term", ["consistency", "gradient", "policy"])
def test_a_diverging_learner_is_stopped_and_its_term_named(
    term: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    losses: dict[str, Any] = {name: getattr(Agent, name) for name in ("model_loss", "policy_loss")}

    def model_loss(self: Agent, *arguments: Any) -> Any:
        loss, terms, *rest = losses["model_loss"](self, *arguments)
        if self.updates >= 25 and term == "consistency":
            terms["consistency"] = terms["consistency"] * float("nan")
            loss = loss + terms["consistency"]
        if self.updates >= 25 and term == "gradient":
            loss.register_hook(lambda gradient: gradient * float("nan"))
        return loss, terms, *rest

    def policy_loss(self: Agent, *arguments: Any) -> Any:
        loss, *rest = losses["policy_loss"](self, *arguments)
        return loss * (float("inf") if self.updates >= 25 and term == "policy" else 1.0), *rest

    def update(self: Agent, batch: Any) -> Any:
        batches.append({name: value.clone() for name, value in batch.items()})
        return learn(self, batch)

    learn, batches = Agent.update, list[dict[str, torch.Tensor]]()
    monkeypatch.setattr(Agent, "model_loss", model_loss)
    monkeypatch.setattr(Agent, "policy_loss", policy_loss)
    monkeypatch.setattr(Agent, "update", update)
    assert main([*OPTIONS, str(tmp_path)]) == 3
    error = capsys.readouterr().err
    assert "were skipped" in error
    assert f"{term} of the last" in error
    dump = torch.load(next((tmp_path / "run" / "analysis").glob("nonfinite_step_*.pt")), weights_only=True)
    assert dump["batch"].keys() == batches[-1].keys()
    assert all(torch.equal(dump["batch"][name], value) for name, value in batches[-1].items())  # the very one
    checkpoints_are_finite(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("numbers", "code"),
    [((signal.SIGTERM,), 85), ((signal.SIGINT,), 130), ((signal.SIGINT, signal.SIGINT), 130)],
    ids=["term", "int", "twice"],
)
def test_a_signal_saves_the_very_step(numbers: tuple[signal.Signals, ...], code: int, tmp_path: Path):
    command = [sys.executable, "-m", "prismatic", *OPTIONS, str(tmp_path), "--steps", "100000", "--utd", "0.2"]
    child = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    folder, deadline = tmp_path / "run" / "checkpoints", time.monotonic() + 120
    while not list(folder.glob("step_*.pt")) and time.monotonic() < deadline:
        time.sleep(0.01)
    for number in numbers:
        child.send_signal(number)
    assert child.wait(60) == code
    step = checkpoint.Checkpoints(folder).steps()[-1]
    state = checkpoint.load(folder / f"step_{step:09d}.pt")  # whole, whatever happened
    if len(numbers) == 1:
        assert read_json(tmp_path / "run" / "status.json")["step"] == state["step"] == step
