"""The `prismatic` command: a verb, its options, the function behind it."""

from __future__ import annotations

import sys

from prismatic import __version__
from prismatic.config import PRESETS
from rlcore import cli

VERBS = {
    "train": ("Learn tasks, or go on learning them.", "prismatic.config:TrainConfig", "prismatic.run.train:train"),
    "eval": ("Score a run on fresh episodes.", "prismatic.config:EvalConfig", "prismatic.run.evaluate:evaluate_run"),
    "plot training": (
        "Draw a run's learning curves.", "prismatic.config:PlotConfig", "prismatic.run.plot:plot_training",
    ),
    "plot gating": (
        "Draw how the experts were used.", "prismatic.config:GatingConfig", "prismatic.run.plot:plot_gating_of",
    ),
    "report": ("Compare runs by task and variant.", "prismatic.config:ReportConfig", "prismatic.run.report:report"),
    "diagnose": (
        "Say how good a run's world model is.", "prismatic.config:DiagnoseConfig", "prismatic.run.diagnose:diagnose",
    ),
    "bench": ("Measure how fast this machine is.", "prismatic.config:BenchConfig", "prismatic.run.bench:bench"),
    "envs": ("List the tasks there are.", "prismatic.config:EnvsConfig", "prismatic.run.envs:list_envs"),
    "sweep run": ("Run a grid of runs on this machine.", "rlcore.sweep:SweepConfig", "rlcore.sweep:run_sweep"),
    "sweep collect": ("Gather a sweep's results in a CSV.", "rlcore.sweep:CollectConfig", "rlcore.sweep:collect"),
    "doctor": ("Check the installation.", "prismatic.config:DoctorConfig", "prismatic.run.doctor:doctor"),
}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return cli.dispatch("prismatic", VERBS, arguments, version=__version__, presets=PRESETS)


if __name__ == "__main__":
    sys.exit(main())
