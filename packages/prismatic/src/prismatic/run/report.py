"""`prismatic report`: runs beside each other."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

from prismatic.analysis.evaluations import Curve, read_run
from prismatic.analysis.report import compare, parse_thresholds
from prismatic.analysis.report_views import draw, to_csv, to_markdown
from prismatic.config import ReportConfig
from rlcore import plots
from rlcore.errors import QuintetError, QuintetWarning, UsageError
from rlcore.files import explained, write_atomic, write_json
from rlcore.provenance import near


def report(cfg: ReportConfig) -> int:
    """Print the tables, and write them with the curves as report.md, .csv, .json and .png."""
    thresholds = parse_thresholds(cfg.threshold)
    output = cfg.output or cfg.dir / "report"
    if (output / "config.json").exists():
        raise UsageError(f"{output} is a run: say where the report shall go with --output")
    curves = read_all([folder for folder in folders(cfg) if folder != output])
    found = compare(curves, thresholds)
    text = to_markdown(found)
    with explained(output):
        output.mkdir(parents=True, exist_ok=True)
        write_json(output / "report.json", found)
        write_atomic(output / "report.md", lambda file: file.write(text.encode()))
        write_atomic(output / "report.csv", lambda file: file.write(to_csv(found).encode()))
        plots.save(draw(curves, found), output / "report.png")
    print(text)
    print(f"written to {output}: report.md, report.csv, report.json, report.png")
    return 0


def folders(cfg: ReportConfig) -> list[Path]:
    """The runs that were asked for, each once. UsageError for a name that is nowhere, with similar ones."""
    if not cfg.runs:
        every = sorted(path.parent for path in cfg.dir.glob("*/config.json"))
        names = {folder.name for folder in every}  # less those that --overwrite set aside
        every = [folder for folder in every if re.sub(r"\.old\d+$", "", folder.name) not in names - {folder.name}]
        if not every:
            raise UsageError(f"{cfg.dir} holds no runs: name some, or say where they are with --dir")
        return every
    found = []
    for name in cfg.runs:
        folder = next((path for path in (Path(name), cfg.dir / name) if path.exists()), None)
        if folder is None:
            raise UsageError(f"there is no run {name}, neither here nor in {cfg.dir}{near(cfg.dir / name)}")
        found.append(folder)
    return list({folder.resolve(): folder for folder in found}.values())


def read_all(runs: list[Path]) -> list[Curve]:
    """The evaluations of all runs that have some; the others are named in a warning."""
    curves = []
    for folder in runs:
        try:
            curves += read_run(folder)
        except QuintetError as error:
            warnings.warn(f"left out: {error}", QuintetWarning, stacklevel=2)
    if not curves:
        raise UsageError(f"none of the {len(runs)} runs has evaluations to compare")
    return curves
