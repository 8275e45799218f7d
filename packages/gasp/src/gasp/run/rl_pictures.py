"""Pictures of rl runs."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gasp import envs
from gasp.analysis import rl_views
from gasp.hierarchy import Usage
from gasp.run.episodes import Played
from gasp.run.setting import Setting
from rlcore import plots
from rlcore.files import explained

Array = np.ndarray[Any, Any]


PLANES = ("point", "toy")  # observations that begin with a place
KINDS = {"mean": "the mean skill", "drawn": "drawn skills", "prior": "the prior alone"}


def draw_training(folder: Path, setting: Setting, kept: dict[str, Array], usage: Usage | None) -> None:
    """plots/learning.png, visits.png of what the replay holds, coloured by component, and all choices of the run."""
    with explained(folder):
        figure = plots.training_panels(folder, rl_views.curves(setting.spec.subtasks))
        plots.save(figure, folder / "plots" / "learning.png")
        draw_visits(folder / "plots" / "visits.png", setting, kept["obs"], kept["z"], "where skills began, training")
        if usage:
            draw_usage(folder / "plots", setting, usage.counts, usage.transitions, "training", "all of training")


def draw_episodes(folder: Path, setting: Setting, played: Mapping[str, Played]) -> None:
    """plots/usage_*, transitions_* and visits_*.png of evaluations by their kind."""
    for kind, episodes in played.items():
        of = folder / "plots"
        draw_usage(of, setting, episodes.counts, episodes.transitions, kind, KINDS[kind])
        draw_visits(of / f"visits_{kind}.png", setting, episodes.obs, episodes.z, KINDS[kind])


def draw_usage(folder: Path, setting: Setting, counts: Array, transitions: Array, kind: str, title: str) -> None:
    """usage_KIND.png of counts (K,) and transitions_KIND.png of (K, K). Nothing without a mixture."""
    if setting.skills.mixture is None:
        return
    weights, title = setting.skills.mixture.weights.cpu().numpy(), f"{setting.cfg.task}: {title}"
    plots.save(rl_views.usage(counts, weights, title), folder / f"usage_{kind}.png")
    plots.save(rl_views.transition_matrix(transitions, title), folder / f"transitions_{kind}.png")


def draw_visits(path: Path, setting: Setting, obs: Array, z: Array, title: str) -> None:
    """Where in a plane skills began. Nothing where observations are of another kind."""
    if setting.spec.obs_mode not in PLANES or not len(obs):
        return
    with contextlib.closing(envs.single(setting.cfg.task)) as env:
        free = np.asarray(env.get_wrapper_attr("grid").free)
    labels, number = (setting.components.of(z), setting.components.number) if setting.components else (None, 1)
    plots.save(rl_views.visits(obs[:, :2], labels, number, free, f"{setting.cfg.task}: {title}"), path)
