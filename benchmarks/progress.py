"""What the terminal sees while jobs run: bars on a terminal, elsewhere a line per event and one a minute."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.kinds import Job
from benchmarks.run import STOPPED, Child, costs_of, is_done, phases_of, scores_of, status_of

SHOW_S, LINE_S = 1.0, 60.0


def clock(seconds: float) -> str:
    """72 -> 1m12s."""
    minutes, s = divmod(round(seconds), 60)
    return f"{minutes // 60}h{minutes % 60:02d}m" if minutes >= 60 else f"{minutes}m{s:02d}s" if minutes else f"{s}s"


class Progress:
    """Used by `run`: enter it, tell it of each child that ended, update it often."""

    def __init__(self, jobs: list[Job], results: Path) -> None:
        self.jobs, self.results = jobs, results
        self.over = {job.name for job in jobs if is_done(results, job, "evaluate")}
        self._at_start = len(self.over)
        self._started = self._line = time.monotonic()
        self._next = 0.0
        self._bars: Any = None
        self._rows: dict[str, Any] = {}  # job name -> its bar

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn
            from rich.progress import Progress as Bars

            columns = ("[bold]{task.description}", BarColumn(24), "{task.fields[text]}")
            self._bars = Bars(*columns, console=Console(stderr=True), transient=True)
            self._bars.start()
        if self.over:
            self.say(f"{len(self.over)} of {len(self.jobs)} jobs are already there")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def say(self, text: str) -> None:
        if self._bars is not None:
            self._bars.console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def ended(self, child: Child, code: int) -> None:
        """One line about a job that is complete, failed or stopped."""
        if code == 0 and child.phase != "evaluate":
            return
        job, costs = child.job, costs_of(self.results, child.job)
        spent = clock(sum(costs[phase]["wall_s"] for phase in phases_of(job) if phase in costs))
        if code in STOPPED:
            self.say(f"{job.name}: stopped after {spent}, will continue")
            return
        self.over.add(job.name)
        if code == 0:
            means = ", ".join(f"{fmean(returns):.4g}" for returns in scores_of(self.results, job).values())
            text = f"scored {means} in {spent}"
        else:
            text = f"FAILED (exit {code}): {costs['error']}"
        self.say(f"[{len(self.over)}/{len(self.jobs)}] {job.name}: {text}")

    def update(self, children: list[Child]) -> None:
        """Show how far each child is, at most once a second."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + SHOW_S
        rows = {child.job.name: (child, *self.steps_of(child)) for child in children}
        share = sum(step / total for _, step, total in rows.values())
        fresh = len(self.over) - self._at_start + share  # jobs' worth of work done since the start
        left = (now - self._started) * (len(self.jobs) - len(self.over) - share) / fresh if fresh > 0 else 0.0
        text = f"{len(self.over)}/{len(self.jobs)} jobs" + (f", about {clock(left)} left" if fresh > 0.2 else "")
        if self._bars is not None:
            self._show_bars(rows, text, len(self.over) + share)
        elif now - self._line > LINE_S:
            self._line = now
            at = ", ".join(f"{name} {step:,}/{total:,}" for name, (_, step, total) in rows.items())
            self.say(f"    {text}; {at}")

    def steps_of(self, child: Child) -> tuple[int, int]:
        """Env steps done and to do; the program itself may know the latter better."""
        status = status_of(self.results, child.job)
        return int(status.get("step", 0)), int(status.get("total_steps") or child.job.steps)

    def _show_bars(self, rows: dict[str, tuple[Child, int, int]], text: str, done: float) -> None:
        if "all" not in self._rows:
            self._rows["all"] = self._bars.add_task("all", total=len(self.jobs), text="")
        self._bars.update(self._rows["all"], completed=done, text=text)
        for name in set(self._rows) - set(rows) - {"all"}:
            self._bars.remove_task(self._rows.pop(name))
        for name, (child, step, total) in rows.items():
            if name not in self._rows:
                self._rows[name] = self._bars.add_task(name, total=total, text="")
            steps = {"evaluate": "scoring", "train": f"{step:,}/{total:,} steps"}
            doing = steps.get(child.phase, "preparing")
            self._bars.update(self._rows[name], completed=step, total=total, text=doing)
