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


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return cli.dispatch("collective", VERBS, arguments, version=__version__)


if __name__ == "__main__":
    sys.exit(main())
