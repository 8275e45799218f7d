"""How each subtask of the kitchen is done: where the hand goes, from the place of a thing. Metres and radians.

Found by `gasp data tune`; a JSON file of the same shape takes their place with `--scripts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rlcore.config import from_dict, nearest, to_dict
from rlcore.errors import DataError, UsageError
from rlcore.files import explained, read_json, write_json

Point = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Script:
    """In front of the contact point, to it, then to the end points until the subtask is done."""

    site: str  # in the model; offsets count from where it is when the script begins
    contact: Point
    ends: tuple[Point, ...]
    front: Point = (0.0, -0.12, 0.0)  # from the contact point to the one in front of it
    grasp: bool = False  # open until the contact point, where the fingers close; else closed all the time
    end_steps: int = 40  # at most, to each end point; fewer where a door keeps the hand from getting there
    pose: tuple[float, float] | None = None  # yaw and roll of the hand; None: it may turn as it likes


SCRIPTS: dict[str, Script] = {
    "microwave": Script(  # round the handle and behind it
        site="microhandle_site", contact=(0.01, 0.077, 0.054), front=(0.169, -0.053, 0.014),
        ends=((-0.081, -0.23, -0.054), (-0.256, -0.41, -0.01)),
    ),
    "kettle": Script(site="kettle_site", contact=(0.052, -0.057, -0.004), ends=((0.103, 0.278, -0.133),)),
    "bottom burner": Script(  # down on the right of the knob
        site="knob2_site", contact=(0.015, -0.054, 0.075),
        ends=((-0.068, 0.022, 0.093),), front=(-0.02, -0.1, 0.12),
    ),
    "top burner": Script(
        site="knob4_site", contact=(0.039, -0.005, 0.0),
        ends=((0.082, 0.027, -0.004), (0.102, 0.008, 0.029)), front=(0.072, -0.06, 0.003), end_steps=25,
    ),
    "light switch": Script(
        site="light_site", contact=(0.167, -0.037, 0.011),
        ends=((-0.091, -0.011, -0.013),), front=(-0.064, -0.053, -0.016),
    ),
    "slide cabinet": Script(site="slide_site", contact=(-0.07, -0.015, -0.031), ends=((0.145, -0.049, 0.038),)),
    "hinge cabinet": Script(  # by the handle, along an arc round the hinge
        site="hinge_site2", contact=(0.066, 0.054, -0.032),
        ends=((0.026, -0.081, -0.051), (0.23, -0.091, -0.044), (0.457, -0.256, -0.027), (0.409, -0.112, 0.029)),
        front=(-0.004, -0.264, 0.024), grasp=True, end_steps=10,
    ),
}  # fmt: skip


def load_scripts(path: Path) -> dict[str, Script]:
    """Those of a JSON file over those above. DataError naming file and subtask."""
    written = read_json(path)
    if not isinstance(written, dict):
        raise DataError(f"{path}: expected subtasks with their scripts")
    found = dict(SCRIPTS)
    for subtask, values in written.items():
        if subtask not in SCRIPTS:
            raise DataError(f"{path}: no subtask {subtask!r}{nearest(subtask, SCRIPTS)}")
        try:
            found[subtask] = from_dict(Script, values, subtask, SCRIPTS[subtask])
        except UsageError as error:
            raise DataError(f"{path}: {error}") from None
    return found


def save_scripts(path: Path, scripts: Mapping[str, Script]) -> None:
    """Write what `load_scripts` reads."""
    with explained(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {subtask: to_dict(script) for subtask, script in scripts.items()})
