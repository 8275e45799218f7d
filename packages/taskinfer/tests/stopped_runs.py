"""Training commands as real processes that are stopped, and what their runs must come to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rlcore import checkpoint
from rlcore.files import read_json

CLOCKS = {"wall_s", "cpu_s", "env_steps_per_s", "updates_per_s", "rss_mib"}


def rows(folder: Path, kind: str = "train") -> list[dict[str, Any]]:
    """Rows of the record, less what a clock says."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in row.items() if k not in CLOCKS} for row in lines if row["kind"] == kind]


def final(folder: Path) -> dict[str, Any]:
    """The final checkpoint, less the names of the files that hold its replay: they depend on when it was saved."""
    state = checkpoint.load(folder / "checkpoints" / "final.pt")
    forget(state["parts"], "segments")
    return state


def forget(value: Any, name: str) -> None:
    for each in value.values() if isinstance(value, dict) else ():
        forget(each, name)
    if isinstance(value, dict):
        value.pop(name, None)


def same(a: Any, b: Any, where: str = "") -> None:
    """Equal to the bit, or the place where they are not."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, pair in enumerate(zip(a, b)):
            same(*pair, f"{where}[{i}]")
    else:
        assert a == b, f"{where}: {a} != {b}"


def start(verb: str, root: Path, name: str, *options: str) -> subprocess.Popen[bytes]:
    """A debug run of `taskinfer VERB` that saves at every 80 steps."""
    words = f"{verb} --preset debug --save-every 80 --eval-every 100000 --quiet --name {name}"
    command = [sys.executable, "-m", "taskinfer", *words.split(), "--dir", str(root), *options]
    environ = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(verb: str, root: Path, name: str) -> None:
    """Run to the end."""
    child = start(verb, root, name)
    error = child.communicate(timeout=300)[1]
    assert child.returncode == 0, error.decode()


def wait_for(child: subprocess.Popen[bytes], folder: Path, step: int) -> None:
    """Until there is a checkpoint of that step or a later one, or the process has ended."""
    deadline = time.monotonic() + 120
    while child.poll() is None and time.monotonic() < deadline:
        if any(int(path.stem.removeprefix("step_")) >= step for path in folder.glob("step_*.pt")):
            return
        time.sleep(0.005)


def killed_ends_the_same(verb: str, root: Path, at: Sequence[int]) -> None:
    """SIGKILL once each of these steps is saved, then the same command: as if nothing had happened."""
    finish(verb, root, "whole")
    for wanted in at:
        child = start(verb, root, "killed")
        wait_for(child, root / "killed" / "checkpoints", wanted)
        child.send_signal(signal.SIGKILL)
        error = child.communicate()[1]
        assert child.returncode == -signal.SIGKILL, error.decode()
    finish(verb, root, "killed")
    assert rows(root / "killed") == rows(root / "whole")
    same(final(root / "killed")["parts"], final(root / "whole")["parts"])


def signal_saves_the_step(verb: str, root: Path, endless: Sequence[str], number: signal.Signals) -> int:
    """The exit code of a run that is sent a signal; its newest checkpoint must be whole and of the step it ended at."""
    child = start(verb, root, "run", *endless)
    folder = root / "run" / "checkpoints"
    wait_for(child, folder, 80)
    child.send_signal(number)
    child.communicate(timeout=60)
    step = checkpoint.Checkpoints(folder).steps()[-1]
    state = checkpoint.load(folder / f"step_{step:09d}.pt")
    assert read_json(root / "run" / "status.json")["step"] == state["step"] == step
    return child.returncode
