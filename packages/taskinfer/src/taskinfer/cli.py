"""The `taskinfer` command: a verb, its options, the function behind it."""

from __future__ import annotations

import sys

from rlcore import cli
from taskinfer import __version__

VERBS = {
    "toy train": ("Learn to infer tasks on the toy.", "taskinfer.config:ToyConfig", "taskinfer.run.toy:train"),
    "toy eval": (
        "Score it on tasks that it never saw.",
        "taskinfer.config_use:ToyEvalConfig",
        "taskinfer.run.toy_eval:evaluate_toy",
    ),
    "low train": ("Teach a body to follow sub-goals.", "taskinfer.config:LowConfig", "taskinfer.run.low:train"),
    "low eval": (
        "Score how well it follows them.",
        "taskinfer.config:LowEvalConfig",
        "taskinfer.run.low_eval:evaluate_low",
    ),
    "bench toy": (
        "Compare a policy that infers with one that is told, and with one that is not.",
        "taskinfer.config_use:BenchToyConfig",
        "taskinfer.run.bench_toy:bench_toy",
    ),
    "config show": (
        "Print the options of a run.",
        "taskinfer.config_use:ConfigShowConfig",
        "taskinfer.run.options:show_run",
    ),
    "config show toy": (
        "Print those of a toy run to come.",
        "taskinfer.config:ToyConfig",
        "taskinfer.run.options:show_options",
    ),
    "config show low": (
        "Print those of a low-level run to come.",
        "taskinfer.config:LowConfig",
        "taskinfer.run.options:show_options",
    ),
    "config diff": (
        "Say in which options runs differ.",
        "taskinfer.config_use:ConfigDiffConfig",
        "taskinfer.run.options:diff_runs",
    ),
    "plot csv": ("Draw learning curves of runs.", "taskinfer.config_use:PlotCsvConfig", "taskinfer.run.plot:plot_csv"),
    "plot latent": (
        "Draw where tasks lie in the latent space.",
        "taskinfer.config_use:PlotLatentConfig",
        "taskinfer.run.latents:plot_latent",
    ),
    "plot belief": (
        "Draw a belief under task switches.",
        "taskinfer.config_use:PlotBeliefConfig",
        "taskinfer.run.plot:plot_belief",
    ),
    "plot gif": ("Make a gif of a film.", "taskinfer.config_use:PlotGifConfig", "taskinfer.run.plot:plot_gif"),
    "transfer reuse": (
        "Drive a body by what was learnt on the toy.",
        "taskinfer.config_transfer:TransferConfig",
        "taskinfer.run.transfer:reuse",
    ),
    "eval tasks": (
        "Play fixed tasks, draw trajectories.",
        "taskinfer.config_transfer:EvalTasksConfig",
        "taskinfer.run.eval_tasks:evaluate_tasks",
    ),
    "eval nonstationary": (
        "Switch tasks: how soon is the new one known.",
        "taskinfer.config_transfer:EvalNonstationaryConfig",
        "taskinfer.run.nonstationary:evaluate_nonstationary",
    ),
    "eval video": (
        "Film a transfer's body at its tasks.",
        "taskinfer.config_transfer:EvalVideoConfig",
        "taskinfer.run.film:film",
    ),
    "eval causality": (
        "Say whether beliefs cause what a toy run does.",
        "taskinfer.config_transfer:EvalCausalityConfig",
        "taskinfer.run.causality:evaluate_causality",
    ),
    "body check": (
        "Say whether an environment can be a body.",
        "taskinfer.config:BodyCheckConfig",
        "taskinfer.run.body:check_body",
    ),
    "doctor": ("Check the installation.", "taskinfer.config:DoctorConfig", "taskinfer.run.doctor:doctor"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return cli.dispatch("taskinfer", VERBS, arguments, version=__version__)


if __name__ == "__main__":
    sys.exit(main())
