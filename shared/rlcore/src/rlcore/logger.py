"""What a run tells: `metrics.jsonl` is the record; the terminal, TensorBoard and W&B only mirror it.

The record is append-only. A checkpoint remembers its length, and a resumed run cuts it back to that, so that it reads
as if the run had never stopped.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rlcore.errors import EnvironmentProblem, QuintetWarning


class Record:
    """The append-only file of metric rows, one JSON object a line."""

    def __init__(self, path: Path, length: int | None = None) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self.length = os.fstat(self._file).st_size
        if length is not None:
            self.cut(length)

    def cut(self, length: int) -> None:
        """Forget everything behind the first `length` bytes."""
        if length > self.length:
            message = (
                f"{self.path} is shorter ({self.length} bytes) than its checkpoint says ({length}): rows were lost"
            )
            warnings.warn(message, QuintetWarning, stacklevel=2)
        self.length = min(length, self.length)
        os.ftruncate(self._file, self.length)

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one row whole, or leave the file as it was."""
        data = json.dumps(row, allow_nan=False, separators=(", ", ": ")).encode() + b"\n"
        try:
            done = 0
            while done < len(data):  # write(2) may stop short, on a full disk for one
                done += os.pwrite(self._file, data[done:], self.length + done)
        except OSError:
            os.ftruncate(self._file, self.length)
            raise
        self.length += len(data)

    def sync(self) -> int:
        """Make all rows durable; returns the file's length in bytes."""
        os.fsync(self._file)
        return self.length

    def close(self) -> None:
        os.close(self._file)


class Meters:
    """Means of named quantities since the last read-out. Tensors stay where they are: nothing waits for a device."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor | float] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, torch.Tensor | float]) -> None:
        for name, value in values.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def mean(self, name: str, default: float) -> float:
        """The mean of one quantity so far, `default` if it has not been seen."""
        return float(self._sums[name]) / self._counts[name] if name in self._sums else default

    def read(self) -> dict[str, float]:
        """All means, and start afresh."""
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means

    def state_dict(self) -> dict[str, Any]:
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])


class Phases:
    """Where the time goes: `with phases("act"): ...` adds to the share of `act`. Not nested."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._name, self._start = "", 0.0

    def __call__(self, name: str) -> Phases:
        self._name = name
        return self

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds[self._name] = self.seconds.get(self._name, 0.0) + time.perf_counter() - self._start

    def shares(self, total: float) -> dict[str, float]:
        """Share of `total` seconds by phase since the last call, largest first."""
        shares = {name: seconds / max(total, 1e-9) for name, seconds in self.seconds.items()}
        self.seconds = {}
        return dict(sorted(shares.items(), key=lambda item: -item[1]))


def rss_mib() -> float:
    """Resident memory of this process in MiB (0 where the system does not say)."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        return 0.0


def duration(seconds: float) -> str:
    """72 -> 1m12s."""
    minutes, s = divmod(int(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}h{m:02d}m" if hours else f"{m}m{s:02d}s" if m else f"{s}s"


class Console:
    """A live progress bar on a terminal; elsewhere a plain line every ten seconds, which log files can bear."""

    def __init__(self, title: str, total: int, quiet: bool = False) -> None:
        self.title, self.total, self._last, self._bar = title, total, 0.0, None
        self._quiet = quiet
        if not quiet and sys.stderr.isatty():
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (TextColumn("[bold]{task.description}"), BarColumn(24), TextColumn("{task.fields[text]}"))
            self._bar = Progress(*columns, transient=False)
            self._task = self._bar.add_task(title, total=total, text="")
            self._bar.start()

    def say(self, text: str) -> None:
        """Print one line above the bar."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def progress(self, step: int, row: Mapping[str, Any], shares: Mapping[str, float]) -> None:
        """Show one train row: rates, time left, where the time went."""
        rate = row["env_steps_per_s"]
        parts = [f"{step:,}/{self.total:,} steps"]
        parts += [f"return {row['return_mean']:.1f}"] if "return_mean" in row else []
        parts += [f"{rate:,.0f} steps/s", f"{row['updates_per_s']:,.0f} updates/s"]
        parts += [f"{duration((self.total - step) / rate)} left"] if rate > 0 else []
        parts += [" ".join(f"{name} {share:.0%}" for name, share in shares.items())]
        if self._bar is not None:
            self._bar.update(self._task, completed=step, text="  ".join(parts))
        elif time.monotonic() - self._last > 10:
            self._last = time.monotonic()
            self.say(f"{self.title}: " + ", ".join(parts))

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


class Mirrors:
    """Optional copies of the record, written in batches: TensorBoard files (tensorboardX) and Weights & Biases."""

    def __init__(self, folder: Path, config: Mapping[str, Any], *, tensorboard: bool, wandb: str) -> None:
        self._writer = self._wandb = None
        if tensorboard:
            try:
                from tensorboardX import SummaryWriter
            except ImportError:
                raise EnvironmentProblem("--tensorboard needs: pip install 'rlcore[tb]'") from None
            self._writer = SummaryWriter(str(folder / "tensorboard"), flush_secs=10)
        if wandb != "off":
            self._wandb = _start_wandb(folder, config, wandb)

    def write(self, row: Mapping[str, Any]) -> None:
        numbers = {f"{row['kind']}/{k}": v for k, v in row.items() if isinstance(v, int | float) and k != "step"}
        if self._writer is not None:
            for name, value in numbers.items():
                self._writer.add_scalar(name, value, row["step"])
        if self._wandb is not None:
            self._wandb.log(numbers, step=row["step"])

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._wandb is not None:
            self._wandb.finish(quiet=True)


def _start_wandb(folder: Path, config: Mapping[str, Any], mode: str) -> Any:
    try:
        import wandb
    except ImportError:
        raise EnvironmentProblem("--wandb needs: pip install 'rlcore[wandb]'") from None
    if mode == "online" and not os.environ.get("WANDB_API_KEY"):
        warnings.warn("--wandb online without WANDB_API_KEY: recording offline", QuintetWarning, stacklevel=3)
        mode = "offline"
    settings = wandb.Settings(init_timeout=30, disable_git=True, console="off", silent=True)
    try:  # the network is never a reason to lose a run
        return wandb.init(dir=str(folder), name=folder.name, config=dict(config), mode=mode, settings=settings)
    except Exception as error:
        warnings.warn(f"W&B did not start ({error}): going on without it", QuintetWarning, stacklevel=3)
        return None
