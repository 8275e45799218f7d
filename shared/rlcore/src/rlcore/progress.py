"""Progress of what is counted in other things than env steps: a bar on a terminal, else a line every ten seconds."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

Show = Callable[[int, str], None]


@contextlib.contextmanager
def progress(title: str, total: int, quiet: bool) -> Iterator[Show]:
    """Gives a function of (done, remark)."""
    if quiet:
        yield lambda done, remark: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("[bold]{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, TextColumn("{task.fields[remark]}"), console=Console(stderr=True)) as bar:
            task = bar.add_task(title, total=total, remark="")
            yield lambda done, remark: bar.update(task, completed=done, remark=remark)
    else:
        last = time.monotonic()

        def line(done: int, remark: str) -> None:
            nonlocal last
            if time.monotonic() - last > 10 or done == total:
                last = time.monotonic()
                print(f"{title}: {done:,}/{total:,}  {remark}", file=sys.stderr, flush=True)

        yield line
