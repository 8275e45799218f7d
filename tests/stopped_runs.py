"""Training commands as real processes that are stopped, and what their runs must come to. For tests of all packages."""

from __future__ import annotations

import json
import os
import pkgutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from rlcore import checkpoint
from rlcore.files import read_json

CLOCKS = {"wall_s", "cpu_s", "fit_cpu_s", "env_steps_per_s", "updates_per_s", "rss_mib"}


def rows(folder: Path, kind: str = "train") -> list[dict[str, Any]]:
    """Rows of the record, less what a clock says."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    timed = lambda key: key in CLOCKS or key.startswith("share_")  # noqa: E731
    return [{k: v for k, v in row.items() if not timed(k)} for row in lines if row["kind"] == kind]


def final(folder: Path, name: str = "final") -> dict[str, Any]:
    """The parts in a checkpoint."""
    parts: dict[str, Any] = checkpoint.load(folder / "checkpoints" / f"{name}.pt")["parts"]
    forget_segments(parts)
    return parts


def global_generators(folder: Path) -> dict[str, Any]:
    """Of the libraries, as the final checkpoint has them."""
    return dict(checkpoint.load(folder / "checkpoints" / "final.pt")["rng"])


def forget_segments(value: Any) -> None:
    """The names of the files that hold a replay: they depend on when it was saved."""
    if isinstance(value, dict):
        value.pop("segments", None)
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        forget_segments(each)


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
        assert a == b or (a != a and b != b), f"{where}: {a} != {b}"


def start(words: Sequence[str], root: Path, name: str) -> subprocess.Popen[bytes]:
    """A program and its words, as a run of that name."""
    command = [sys.executable, "-m", *words, "--quiet", "--name", name, "--dir", str(root)]
    environ = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(words: Sequence[str], root: Path, name: str) -> None:
    """Run to the end."""
    child = start(words, root, name)
    error = child.communicate(timeout=300)[1]
    assert child.returncode == 0, error.decode()


def wait_for(child: subprocess.Popen[bytes], folder: Path, step: int) -> None:
    """Until there is a checkpoint of that step or a later one, or the process has ended."""
    deadline = time.monotonic() + 120
    while child.poll() is None and time.monotonic() < deadline:
        if any(int(path.stem.removeprefix("step_")) >= step for path in folder.glob("step_*.pt")):
            return
        time.sleep(0.005)


def killed_ends_the_same(words: Sequence[str], root: Path, at: Sequence[int]) -> None:
    """SIGKILL once each of these steps is saved, then the same command: as if nothing had happened."""
    finish(words, root, "whole")
    for wanted in at:
        child = start(words, root, "killed")
        wait_for(child, root / "killed" / "checkpoints", wanted)
        child.send_signal(signal.SIGKILL)
        error = child.communicate()[1]
        assert child.returncode == -signal.SIGKILL, error.decode()
    finish(words, root, "killed")
    assert rows(root / "killed") == rows(root / "whole")
    same(final(root / "killed"), final(root / "whole"))


def evaluation_is_given_up(
    train: Callable[[str, int], Path], scorer: str, patch: pytest.MonkeyPatch, at: int = 1
) -> None:
    """SIGTERM at the `at`-th call of `scorer`, a function that evaluations call, ends one of them at once; the same
    command makes it anew, and ends as a run that nobody stopped. `train(name, code)` is a command within this process.
    """
    whole = train("whole", 0)
    calls: list[int] = []
    called = pkgutil.resolve_name(scorer)

    def stopped(*arguments: Any, **options: Any) -> Any:
        calls.append(0)
        if len(calls) == at:
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("the evaluation goes on")
        return called(*arguments, **options)

    with patch.context() as patched:
        patched.setattr(scorer, stopped)
        half = train("half", 85)
    made = rows(half, "eval")
    assert made == rows(whole, "eval")[: len(made)] != rows(whole, "eval")
    assert train("half", 0) == half
    assert rows(half, "eval") == rows(whole, "eval")
    assert rows(half) == rows(whole)
    same(final(half), final(whole))
    same(final(half, "best"), final(whole, "best"))


def signal_saves_the_step(words: Sequence[str], root: Path, number: signal.Signals, after: int) -> int:
    """The exit code of a run that is sent a signal; its newest checkpoint must be whole and of the step it ended at."""
    child = start(words, root, "run")
    folder = root / "run" / "checkpoints"
    wait_for(child, folder, after)
    child.send_signal(number)
    child.communicate(timeout=60)
    step = checkpoint.Checkpoints(folder).steps()[-1]
    state = checkpoint.load(folder / f"step_{step:09d}.pt")
    assert read_json(root / "run" / "status.json")["step"] == state["step"] == step
    return child.returncode
