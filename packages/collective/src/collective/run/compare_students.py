"""`collective compare-students`: students beside plain soft actor-critic."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

from collective.analysis.student_views import draw, to_markdown
from collective.analysis.students import Curve, compare, read_run
from collective.config_student import CompareStudentsConfig
from rlcore import plots
from rlcore.errors import QuintetError, QuintetWarning, UsageError
from rlcore.files import explained, write_atomic, write_json
from rlcore.provenance import near


def compare_students(cfg: CompareStudentsConfig) -> int:
    """Print the tables, and write them with the curves as students.md, .json and .png."""
    output = cfg.output or cfg.dir / "compare"
    curves = read_all([folder for folder in folders(cfg) if folder != output], cfg.first)
    found = compare(curves, cfg.first)
    text = to_markdown(found)
    with explained(output):
        output.mkdir(parents=True, exist_ok=True)
        write_json(output / "students.json", found)
        write_atomic(output / "students.md", lambda file: file.write(text.encode()))
        plots.save(draw(curves), output / "students.png")
    if cfg.json:
        print(json.dumps(found))
        return 0
    print(text)
    print(f"written to {output}: students.md, students.json, students.png")
    return 0


def folders(cfg: CompareStudentsConfig) -> list[Path]:
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


def read_all(runs: list[Path], first: int) -> list[Curve]:
    """The evaluations of all students that have come as far as `first`; the others are named in a warning."""
    curves = []
    for folder in runs:
        try:
            curves.append(read_run(folder, first))
        except QuintetError as error:
            warnings.warn(f"left out: {error}", QuintetWarning, stacklevel=2)
    if not curves:
        raise UsageError(f"none of the {len(runs)} runs is a student that has come as far as step {first:,}")
    return curves
