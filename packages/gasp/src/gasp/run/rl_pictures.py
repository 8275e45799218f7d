"""Pictures of rl runs."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gasp import envs
from gasp.analysis import rl_views
from gasp.run.episodes import Played
from gasp.run.setting import Setting
from rlcore import plots
from rlcore.files import explained

Array = np.ndarray[Any, Any]


KINDS = {"mean": "the mean skill", "drawn": "drawn skills", "prior": "the prior alone"}


def draw_training(folder: Path, setting: Setting, kept: dict[str, Array]) -> None:
    """plots/learning.png, and visits.png of what the replay holds, coloured by component."""
    with explained(folder):
        figure = plots.training_panels(folder, rl_views.curves(setting.spec.subtasks))
        plots.save(figure, folder / "plots" / "learning.png")
        draw_visits(folder / "plots" / "visits.png", setting, kept["obs"], kept["z"], "where skills began, training")


def draw_episodes(folder: Path, setting: Setting, played: Mapping[str, Played]) -> None:
    """plots/usage_*, transitions_* and visits_*.png of evaluations by their kind."""
    for kind, episodes in played.items():
        title, of = f"{setting.cfg.task}: {KINDS[kind]}", folder / "plots"
        if setting.skills.mixture is not None:
            weights = setting.skills.mixture.weights.cpu().numpy()
            plots.save(rl_views.usage(episodes.counts, weights, title), of / f"usage_{kind}.png")
            plots.save(rl_views.transition_matrix(episodes.transitions, title), of / f"transitions_{kind}.png")
        draw_visits(of / f"visits_{kind}.png", setting, episodes.obs, episodes.z, KINDS[kind])


def draw_visits(path: Path, setting: Setting, obs: Array, z: Array, title: str) -> None:
    """Where in a plane skills began. Nothing where observations are of another kind."""
    if setting.spec.obs_mode != "point" or not len(obs):
        return
    with contextlib.closing(envs.single(setting.cfg.task)) as env:
        free = np.asarray(env.get_wrapper_attr("grid").free)
    labels, number = (setting.components.of(z), setting.components.number) if setting.components else (None, 1)
    plots.save(rl_views.visits(obs[:, :2], labels, number, free, f"{setting.cfg.task}: {title}"), path)
