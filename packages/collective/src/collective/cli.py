"""The `collective` command: a verb, its options, the function behind it."""

from __future__ import annotations

import sys

from collective import __version__
from rlcore import cli

VERBS = {
    "pipeline": (
        "From scripted experts to one evaluated policy, stage by stage.",
        "collective.config_pipeline:PipelineConfig",
        "collective.run.pipeline:pipeline",
    ),
    "train-worker": (
        "Train an expert a task by soft actor-critic, all in one program.",
        "collective.config_worker:WorkerConfig",
        "collective.run.train_worker:train",
    ),
    "online-distill": (
        "Record a task with labels while a copy of its expert learns.",
        "collective.config_worker:OnlineConfig",
        "collective.run.online_distill:collect",
    ),
    "record": (
        "Record random, scripted or mixed behaviour with the experts' labels.",
        "collective.config_data:RecordConfig",
        "collective.run.record:record",
    ),
    "dataset info": ("Say what is in a data set.", "collective.config_data:InfoConfig", "collective.run.dataset:info"),
    "dataset validate": (
        "Check every shard and array of a data set.",
        "collective.config_data:ValidateConfig",
        "collective.run.dataset:validate",
    ),
    "dataset split": (
        "Choose anew what is held out.",
        "collective.config_data:SplitConfig",
        "collective.run.dataset:split",
    ),
    "dataset merge": (
        "Write several data sets as one.",
        "collective.config_data:MergeConfig",
        "collective.run.dataset:write_merged",
    ),
    "dataset subsample": (
        "Write a part of a data set.",
        "collective.config_data:SubsampleConfig",
        "collective.run.dataset:subsample",
    ),
    "train-encoder": (
        "Learn task codes of trajectories.",
        "collective.config_encoder:EncoderConfig",
        "collective.run.train_encoder:train",
    ),
    "embed": (
        "Draw the codes of held-out windows by task.",
        "collective.config_encoder:EmbedConfig",
        "collective.run.embed:embed",
    ),
    "distill": (
        "Distil labelled data into one policy.",
        "collective.config_distill:DistillConfig",
        "collective.run.distill:distill",
    ),
    "evaluate": (
        "Score a policy: collective, expert, scripted or random.",
        "collective.config_distill:EvaluateConfig",
        "collective.run.evaluate:evaluate",
    ),
    "train-student": (
        "Learn a task with a teacher, or alone.",
        "collective.config_student:StudentConfig",
        "collective.run.train_student:train",
    ),
    "finetune": (
        "Go on learning with a collective network on one task.",
        "collective.config_student:FinetuneConfig",
        "collective.run.finetune:finetune",
    ),
    "compare-students": (
        "Compare students with plain soft actor-critic over seeds.",
        "collective.config_student:CompareStudentsConfig",
        "collective.run.compare_students:compare_students",
    ),
    "video": ("Film a policy.", "collective.config_use:VideoConfig", "collective.run.video:film"),
    "plot": ("Draw a run's record.", "collective.config_use:PlotConfig", "collective.run.plot:plot"),
    "config": (
        "Print the options of a command, or of a run.",
        "collective.config_use:ShowConfig",
        "collective.run.config_show:show",
    ),
    "doctor": ("Check the installation.", "collective.config_use:DoctorConfig", "collective.run.doctor:doctor"),
}


MODES = {  # the modes that users of the published code know, as commands
    "train_worker": "train-worker", "online_distill_collective_network": "online-distill", "record": "record",
    "train_student": "train-student", "train_student_finetuning": "finetune",
    "distill_collective_transformer": "distill", "evaluate_collective_transformer": "evaluate",
}  # fmt: skip
KEYS = {  # and the keys
    "env.benchmark.env_name": "tasks", "setup.seed": "seed", "experiment.num_train_steps": "steps",
    "experiment.num_eval_episodes": "eval_episodes", "experiment.eval_freq": "eval_every",
}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments[:1] == ["run"]:
        arguments = translated(arguments[1:])
    return cli.dispatch("collective", VERBS, arguments, version=__version__)


def translated(words: list[str]) -> list[str]:
    """`run experiment.mode=train_worker env.benchmark.env_name=reach-v3` as the command of today.

    A mode that is unknown stays a word, at which the command line says what it knows.
    """
    pairs = dict(word.split("=", 1) for word in words if "=" in word)
    mode = pairs.pop("experiment.mode", "run")
    verb = MODES.get(mode, mode.replace("_", "-"))
    here = {"tasks": "task"} if verb in ("train-student", "finetune") else {}
    here |= {"eval_episodes": "episodes"} if verb == "evaluate" else {}
    known = {key: here.get(option, option) for key, option in KEYS.items()}
    named = {known.get(key, key): value for key, value in pairs.items()}
    rest = [word for word in words if "=" not in word]
    options = [f"{key}={value}" for key, value in named.items()]
    return [*verb.split(), *options, *rest]


if __name__ == "__main__":
    sys.exit(main())
