"""The `gasp` command: a verb, its options, the function behind it."""

from __future__ import annotations

import sys

from gasp import __version__
from rlcore import cli

VERBS = {
    "data collect maze": (
        "Record walks through a maze.",
        "gasp.config:CollectMazeConfig",
        "gasp.run.data_collect:collect_walks",
    ),
    "data collect toy": (
        "Record walks on the toy.",
        "gasp.config:CollectToyConfig",
        "gasp.run.data_collect:collect_walks",
    ),
    "data collect kitchen": (
        "Record a scripted robot at subtasks of the kitchen.",
        "gasp.config:CollectKitchenConfig",
        "gasp.run.data_kitchen:collect_kitchen",
    ),
    "data tune": (
        "Search for better scripts of the kitchen's subtasks.",
        "gasp.config:TuneConfig",
        "gasp.run.data_tune:tune",
    ),
    "data inspect": (
        "Check demonstrations and say what is in them.",
        "gasp.config:InspectConfig",
        "gasp.run.data_inspect:inspect",
    ),
    "data convert": (
        "Make one of our files of anybody's demonstrations.",
        "gasp.config:ConvertConfig",
        "gasp.run.data_inspect:convert",
    ),
    "skills train": (
        "Learn skills from demonstrations.",
        "gasp.config_skills:SkillsConfig",
        "gasp.run.skills_train:train",
    ),
    "skills eval": (
        "Score skills on held-out windows: the best of N.",
        "gasp.config_views:SkillsEvalConfig",
        "gasp.run.skills_eval:evaluate",
    ),
    "rl train": (
        "Learn a task by choosing among skills.",
        "gasp.config_rl:RLConfig",
        "gasp.run.rl_train:train",
    ),
    "rl eval": (
        "Score an agent, or the skill prior alone.",
        "gasp.config_rl:RLEvalConfig",
        "gasp.run.rl_eval:evaluate",
    ),
    "compare": (
        "Compare rl runs by task and method over seeds.",
        "gasp.config_rl:CompareConfig",
        "gasp.run.compare:compare_runs",
    ),
    "viz latent": (
        "Draw the mixture over skills beside N(0, I), and how it grew.",
        "gasp.config_views:VizLatentConfig",
        "gasp.run.viz_latent:draw",
    ),
    "viz inference": (
        "Draw what encoder and skill prior make of single windows.",
        "gasp.config_views:VizInferenceConfig",
        "gasp.run.viz_inference:draw",
    ),
    "viz skills": (
        "Show what each component does.",
        "gasp.config_views:VizSkillsConfig",
        "gasp.run.viz_skills:show",
    ),
    "presets": ("List the presets, or print one.", "gasp.config:PresetsConfig", "gasp.run.presets:presets"),
    "doctor": ("Check the installation.", "gasp.config:DoctorConfig", "gasp.run.doctor:doctor"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return cli.dispatch("gasp", VERBS, arguments, version=__version__)


if __name__ == "__main__":
    sys.exit(main())
