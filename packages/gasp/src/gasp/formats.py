"""Other people's files of demonstrations, as lists of episodes. Everything that does not fit is a DataError.

D4RL       flat arrays observations (N, S), actions (N, A), terminals and perhaps timeouts (N,) or (N, 1)
Minari     groups episode_0, episode_1, ... with T+1 observations for T actions
rollouts   of SPiRL's mazes: groups traj0, traj1, ... with states and actions
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rlcore.errors import DataError

Array = np.ndarray[Any, Any]
Episodes = list[tuple[Array, Array]]  # (T+1, S) or (T, S) states, (T, A) actions
# D4RL names its kitchen files by subtasks. The set decides nothing but what is said of the data.
KITCHEN_FILES = {
    "mini_kitchen_microwave_kettle_light_slider": "kitchen-complete",
    "kitchen_microwave_kettle_light_slider": "kitchen-partial",
    "kitchen_microwave_kettle_bottomburner_light": "kitchen-mixed",
}


def read(path: Path, file: Any) -> tuple[Episodes, dict[str, Any]]:
    """Episodes of an open HDF5 file, and meta: task and obs_mode where they can be told."""
    if "observations" in file and hasattr(file["observations"], "shape"):
        return d4rl(path, file)
    if any(name.startswith("episode_") for name in file):
        return minari(path, file)
    if any(name.startswith("traj") for name in file):
        return rollouts(path, file)
    known = "expected obs (ours), observations (D4RL), episode_0 (Minari) or traj0 (maze rollouts)"
    raise DataError(f"{path} is no file of demonstrations: it holds {', '.join(list(file)[:5]) or 'nothing'}; {known}")


def d4rl(path: Path, file: Any) -> tuple[Episodes, dict[str, Any]]:
    """Flat arrays, cut after each terminal or timeout; what follows the last one is an episode, too."""
    obs, action = field(path, file, "observations", 2), field(path, file, "actions", 2)
    ends = np.zeros(len(obs), bool)
    names = [name for name in ("terminals", "timeouts") if name in file]
    if not names:
        raise DataError(f"{path}: fields terminals and timeouts are missing: nothing says where episodes end")
    for name in names:
        flags = field(path, file, name)
        if flags.shape not in ((len(obs),), (len(obs), 1)):
            raise DataError(f"{path}: {name}: expected ({len(obs)},) or ({len(obs)}, 1), got {flags.shape}")
        ends |= flags.reshape(-1).astype(bool)
    if len(action) != len(obs):
        raise DataError(f"{path}: actions: expected {len(obs)} rows as observations have, got {len(action)}")
    cuts = np.flatnonzero(ends) + 1
    found = [(o, a) for o, a in zip(np.split(obs, cuts), np.split(action, cuts)) if len(o)]
    task = next((task for start, task in KITCHEN_FILES.items() if path.name.startswith(start)), None)
    return found, {"format": "D4RL", **_kitchen(obs.shape[1], action.shape[1], task)}


def minari(path: Path, file: Any) -> tuple[Episodes, dict[str, Any]]:
    """One group an episode; observations may be a group of their own, of goals beside what is observed."""
    found, names = [], sorted(_numbered(path, file, "episode_"))
    for number, name in names:
        group = file[name]
        if "observations" not in group or "actions" not in group:
            raise DataError(f"{path}: episode {number}: expected fields observations and actions, got {list(group)}")
        inner = group["observations"]
        where = f"{name}/observations"
        if not hasattr(inner, "shape"):
            if "observation" not in inner:
                raise DataError(f"{path}: episode {number}: field {where}/observation is missing")
            where += "/observation"
        obs, action = field(path, file, where, 2), field(path, file, f"{name}/actions", 2)
        if len(obs) != len(action) + 1:
            text = f"expected {len(action) + 1} rows, one more than actions, got {len(obs)}"
            raise DataError(f"{path}: episode {number}: {where}: {text}")
        found.append((obs, action))
    meta = _kitchen(found[0][0].shape[1], found[0][1].shape[1], _minari_task(path))
    if (found[0][0].shape[1], found[0][1].shape[1]) == (4, 2):
        meta["obs_mode"] = "point"  # of PointMaze; D4RL's own files count places from another origin
    return found, {"format": "Minari", **meta}


def rollouts(path: Path, file: Any) -> tuple[Episodes, dict[str, Any]]:
    """Groups traj0, traj1, ... of a maze; images are left where they are."""
    found = []
    for number, name in sorted(_numbered(path, file, "traj")):
        for wanted in ("states", "actions"):
            if wanted not in file[name]:
                raise DataError(f"{path}: episode {number}: field {name}/{wanted} is missing")
        obs, action = field(path, file, f"{name}/states", 2), field(path, file, f"{name}/actions", 2)
        if len(obs) - len(action) not in (0, 1):
            raise DataError(f"{path}: episode {number}: {name}/actions: {len(action)} rows for {len(obs)} states")
        found.append((obs, action))
    return found, {"format": "maze rollouts", "task": "maze", "obs_mode": "point"}


def field(path: Path, file: Any, name: str, rank: int | None = None) -> Array:
    """A dataset of numbers. DataError naming it where it is missing, no numbers, or of another rank."""
    if name not in file:
        raise DataError(f"{path}: field {name} is missing")
    values = file[name]
    if not hasattr(values, "shape") or values.dtype.kind not in "fiub":
        raise DataError(f"{path}: {name}: expected numbers")
    if rank is not None and len(values.shape) != rank:
        raise DataError(f"{path}: {name}: expected {rank} axes, got {values.shape}")
    return np.asarray(values)


def _numbered(path: Path, file: Any, prefix: str) -> list[tuple[int, str]]:
    """Names with their numbers, so that episode_10 does not come before episode_2."""
    try:
        return [(int(name.removeprefix(prefix)), name) for name in file if name.startswith(prefix)]
    except ValueError as error:
        raise DataError(f"{path}: {error}; expected {prefix}0, {prefix}1, ...") from None


def _kitchen(states: int, actions: int, task: str | None) -> dict[str, Any]:
    """The mode of observation, where sizes are those of the kitchen."""
    modes: Mapping[int, str] = {59: "full59", 60: "legacy60", 30: "state30"}
    if actions == 9 and states in modes:
        return {"task": task or "kitchen", "obs_mode": modes[states]}
    return {"task": task or "unknown", "obs_mode": f"{states} numbers"}


def _minari_task(path: Path) -> str | None:
    """From metadata.json beside the file, e.g. kitchen-mixed of D4RL/kitchen/mixed-v2."""
    beside = path.parent / "metadata.json"
    try:
        name = str(json.loads(beside.read_text()).get("dataset_id", "")) if beside.exists() else ""
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{beside} cannot be read as JSON: {error}") from None
    parts = name.lower().split("/")
    return f"kitchen-{parts[-1].rpartition('-')[0]}" if "kitchen" in parts[:-1] else None
