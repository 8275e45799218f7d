"""Pictures of rl runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gasp.analysis import rl_views
from gasp.run.setting import Setting
from rlcore import plots
from rlcore.files import explained

Array = np.ndarray[Any, Any]


def draw_training(folder: Path, setting: Setting, kept: dict[str, Array]) -> None:
    """plots/learning.png, and visits.png of what the replay holds, coloured by component."""
    with explained(folder):
        figure = plots.training_panels(folder, rl_views.panels(setting.spec.subtasks))
        plots.save(figure, folder / "plots" / "learning.png")
        draw_visits(folder / "plots" / "visits.png", setting, kept["obs"], kept["z"], "skills in the replay")


def draw_visits(path: Path, setting: Setting, obs: Array, z: Array, title: str) -> None:
    """Where in a plane skills began. Nothing where observations are of another kind."""
    if setting.spec.obs_mode != "point" or not len(obs):
        return
    labels = setting.components.of(z) if setting.components else None
    plots.save(rl_views.visits(obs[:, :2], labels, f"{setting.cfg.task}: {title}"), path)
