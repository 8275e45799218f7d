"""`mpn plot training`: a run's curves."""

from __future__ import annotations

from mpn.analysis.plots import training_curves
from mpn.config import PlotConfig
from mpn.run.saved import folder_of
from rlcore import plots


def plot_training(cfg: PlotConfig) -> int:
    """Draw plots/training_curves.png (or --output)."""
    folder = folder_of(cfg)
    output = cfg.output or folder / "plots" / "training_curves.png"
    plots.save(training_curves(folder), output)
    print(output)
    return 0
