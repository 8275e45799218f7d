"""`prismatic plot`: a run's curves, and how its experts were used."""

from __future__ import annotations

from prismatic.analysis.curves import training_curves
from prismatic.config import GatingConfig, PlotConfig
from prismatic.run.saved import folder_of, open_run
from rlcore import plots
from rlcore.errors import UsageError


def plot_training(cfg: PlotConfig) -> int:
    """Draw plots/training_curves.png (or --output)."""
    folder = folder_of(cfg)
    output = cfg.output or folder / "plots" / "training_curves.png"
    plots.save(training_curves(folder), output)
    print(output)
    return 0


def plot_gating_of(cfg: GatingConfig) -> int:
    """Draw plots/gating_dynamics.png and gating_reward.png from a checkpoint."""
    saved = open_run(cfg, cfg.checkpoint)
    if not saved.cfg.use_moe:
        raise UsageError(f"{saved.folder} was trained without experts (use_moe=false): there are no gates to draw")
    for name, block in (("dynamics", saved.agent.model.dynamics), ("reward", saved.agent.model.reward_net)):
        output = saved.folder / "plots" / f"gating_{name}.png"
        saved.agent.plot_expert_gating(block, output)
        print(output)
    return 0
