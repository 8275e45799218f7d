"""`python -m benchmarks.micro [replay dqn ...]`: run all micro-benchmarks, or those named. 1 where a bar is missed."""

from __future__ import annotations

import argparse
import importlib
import os
import sys

NAMES = ("replay", "dqn", "help", "sac", "dpmm", "prismatic", "taskinfer", "gasp", "collective", "collective_envs")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.micro", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all of them if left out")
    names = parser.parse_args().names or NAMES
    if unknown := sorted(set(names) - set(NAMES)):
        parser.error(f"there is no {', '.join(unknown)}; choose from {', '.join(NAMES)}")
    return max([int(importlib.import_module(f"benchmarks.micro.{name}").main([])) for name in names])


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
