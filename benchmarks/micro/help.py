"""What it costs to ask for help: CPU time of a whole `mpn --help`, against the half second it may take."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from benchmarks.micro.dqn import cpu_seconds
from benchmarks.micro.timing import Row, compare, run

ALLOWED = 0.5  # CPU seconds
HEAVY = ("torch", "gymnasium", "matplotlib", "mujoco")  # what help must not import
PROBE = """
import runpy, sys
sys.argv = ["mpn"] + sys.argv[1:]
try:
    runpy.run_module("mpn", run_name="__main__")
except SystemExit as stop:
    assert not stop.code, stop.code
assert not {HEAVY} & set(sys.modules), {HEAVY} & set(sys.modules)
""".replace("{HEAVY}", repr(set(HEAVY)))


def main(argv: Sequence[str] | None = None) -> int:
    return run("help", "Asking for help, which imports no torch", measure, ("mpn", "rlcore", "tyro"), argv)


def measure(repetitions: int) -> Iterator[Row]:
    for words in (["--help"], ["train", "--help"]):
        cpu_seconds([sys.executable, "-c", PROBE, *words])  # raises when something heavy was imported
        command = [sys.executable, "-m", "mpn", *words]
        ours = (f"mpn {' '.join(words)}", lambda _, command=command: cpu_seconds(command))
        allowed = ("the half second it may take", lambda _: ALLOWED)
        yield compare(ours[0], ours, allowed, bar=1, unit="CPU time a start", repetitions=repetitions)


if __name__ == "__main__":
    sys.exit(main())
