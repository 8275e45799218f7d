"""The `mpn` command: a verb, its options, the function behind it."""

from __future__ import annotations

import sys

from mpn import __version__
from mpn.config import PRESETS, task_preset
from rlcore import cli

VERBS = {
    "train": ("Learn a task, or go on learning it.", "mpn.config:TrainConfig", "mpn.run.train:train"),
    "eval": ("Score a run on fresh episodes.", "mpn.config:EvalConfig", "mpn.run.evaluate:evaluate_run"),
    "render": ("Film an episode beside its memory.", "mpn.config:RenderConfig", "mpn.run.render:render"),
    "plot training": ("Draw a run's learning curves.", "mpn.config:PlotConfig", "mpn.run.plot:plot_training"),
    "sweep run": ("Run a grid of runs on this machine.", "rlcore.sweep:SweepConfig", "rlcore.sweep:run_sweep"),
    "sweep collect": ("Gather a sweep's results in a CSV.", "rlcore.sweep:CollectConfig", "rlcore.sweep:collect"),
    "doctor": (
        "Check the installation, and what an env asks of memory.",
        "mpn.config:DoctorConfig",
        "mpn.run.doctor:doctor",
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return cli.dispatch("mpn", VERBS, arguments, version=__version__, presets=PRESETS, auto_preset=task_preset)


if __name__ == "__main__":
    sys.exit(main())
