"""The `collective` command: a verb, its options, the function behind it."""

from __future__ import annotations

import sys

from collective import __version__
from rlcore import cli

VERBS = {
    "record": (
        "Record random, scripted or mixed behaviour with the experts' labels.",
        "collective.config_data:RecordConfig",
        "collective.run.record:record",
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return cli.dispatch("collective", VERBS, arguments, version=__version__)


if __name__ == "__main__":
    sys.exit(main())
