"""`collective plot`: a run's record as pictures."""

from __future__ import annotations

from collective.analysis.curves import panels_of
from collective.analysis.report import success_bars
from collective.config_use import PlotConfig
from rlcore import plots
from rlcore.errors import UsageError
from rlcore.files import read_json
from rlcore.provenance import near


def plot(cfg: PlotConfig) -> int:
    """Write the picture. UsageError where there is no run."""
    folder = cfg.run
    if (folder / "report.json").is_file():
        path = cfg.output or folder / "plots" / "success.png"
        plots.save(success_bars(read_json(folder / "report.json")["policies"]), path)
    elif (folder / "metrics.jsonl").is_file():
        path = cfg.output or folder / "plots" / "training.png"
        figure = plots.training_panels(folder, panels_of(folder))
        facts = read_json(folder / "env.json")
        if facts.get("stage") in ("encoder", "collective"):  # their steps are updates
            figure.supxlabel("updates", fontsize=10)
        plots.save(figure, path)
    else:
        raise UsageError(f"there is no run {folder}{near(folder)}")
    print(path)
    return 0
