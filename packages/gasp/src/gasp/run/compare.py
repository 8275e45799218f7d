"""`gasp compare`: rl runs beside each other."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

from gasp.analysis.comparison import Curve, compare, read_run
from gasp.analysis.comparison_views import draw, to_markdown
from gasp.config_rl import CompareConfig
from rlcore import plots
from rlcore.errors import QuintetError, QuintetWarning, UsageError
from rlcore.files import explained, write_atomic, write_json
from rlcore.provenance import near


def compare_runs(cfg: CompareConfig) -> int:
    """Print the tables, and write them with the curves as compare.md, .json and .png."""
    output = cfg.output or cfg.dir / "compare"
    curves = read_all([folder for folder in folders(cfg) if folder != output], cfg.mode)
    found = compare(curves, cfg.mode)
    text = to_markdown(found)
    with explained(output):
        output.mkdir(parents=True, exist_ok=True)
        write_json(output / "compare.json", found)
        write_atomic(output / "compare.md", lambda file: file.write(text.encode()))
        plots.save(draw(curves, found), output / "compare.png")
    if cfg.json:
        print(json.dumps(found))
        return 0
    print(text)
    print(f"written to {output}: compare.md, compare.json, compare.png")
    return 0


def folders(cfg: CompareConfig) -> list[Path]:
    """The runs that were asked for, each once. UsageError for a name that is nowhere, with similar ones."""
    if not cfg.runs:
        every = sorted(path.parent for path in cfg.dir.glob("*/config.json"))
        every = [folder for folder in every if not re.search(r"\.old\d+$", folder.name)]  # --overwrite set them aside
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


def read_all(runs: list[Path], mode: str) -> list[Curve]:
    """The evaluations of all runs that have some; the others are named in a warning."""
    curves = []
    for folder in runs:
        try:
            curves.append(read_run(folder, mode))
        except QuintetError as error:
            warnings.warn(f"left out: {error}", QuintetWarning, stacklevel=2)
    if not curves:
        raise UsageError(f"none of the {len(runs)} runs has evaluations to compare")
    return curves
