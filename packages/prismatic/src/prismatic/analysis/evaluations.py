"""What a run scored on its tasks, read from its folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prismatic.config import MAY_CHANGE, TrainConfig
from rlcore.config import FREE_ON_RESUME, from_dict, to_dict
from rlcore.errors import DataError, UsageError
from rlcore.files import read_json
from rlcore.plots import read_metrics

Array = np.ndarray[Any, Any]
EXPERTS = ("use_orthogonal", "orthogonal_mode", "n_experts")  # options that a dense model has no use for
# Options that runs of one group may differ in: they say who a run is, how long it lasts and what is kept of it.
NOT_LEARNING = FREE_ON_RESUME | MAY_CHANGE | {
    "seed", "eval_every", "eval_episodes", "save_every", "save_replay", "compile",
}  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """The evaluations of one task in one run, n of them."""

    run: str
    task: str
    variant: str
    seed: int
    options: Mapping[str, Any]  # of the run, those that shape what is learnt
    state: str  # of the run: running, finished, preempted, failed
    repeat: float | None  # simulator steps an agent step; the mean over the tasks where there are several
    step: Array  # (n,) agent steps, over all tasks and envs of the run
    score: Array  # (n,) mean return
    success: Array | None  # (n,) in [0, 1]; None where the env does not tell
    cpu_s: Array  # (n,) CPU seconds of the whole run, NaN where the record has none

    def at(self, step: float) -> int:
        """The last evaluation that was made by `step`; -1 where there is none."""
        return int(np.searchsorted(self.step, step, side="right")) - 1


def read_run(folder: Path) -> list[Curve]:
    """A curve for each task of a run. QuintetError of one line for what is no run, another program's or broken."""
    record = read_json(folder / "config.json")
    if not isinstance(record, dict) or not isinstance(record.get("config"), dict):
        raise DataError(f"{folder / 'config.json'} is not a run's configuration")
    if record.get("program") != "prismatic":
        raise DataError(f"{folder} is a run of {record.get('program')}, not of prismatic")
    names = {field.name for field in dataclasses.fields(TrainConfig)}  # runs of other versions may know other options
    given = {key: value for key, value in record["config"].items() if key in names}
    try:
        cfg = from_dict(TrainConfig, given, "config.json")
    except UsageError as error:
        raise DataError(f"{folder}: {error}") from None
    rows = read_metrics(folder)
    parts: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row.get("kind") == "eval_task":
            parts.setdefault(str(row.get("task")), []).append(row)
    if len(cfg.tasks) == 1 and not parts:
        parts = {cfg.tasks[0]: [row for row in rows if row.get("kind") == "eval"]}
    if not any(parts.values()):
        raise DataError(f"{folder} has no evaluation yet")
    about: dict[str, Any] = {
        "run": folder.name, "variant": cfg.variant, "seed": cfg.seed, "options": _telling(cfg),
        "state": str(_fact(folder / "status.json", "state")), "repeat": _repeat(folder),
    }  # fmt: skip
    return [Curve(task=task, **about, **_columns(found, folder)) for task, found in parts.items()]


def _columns(rows: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, Any]:
    try:
        columns = {
            name: np.array([row.get(key, np.nan) for row in rows], np.float64)
            for name, key in (
                ("step", "step"), ("score", "return_mean"), ("success", "success_rate"), ("cpu_s", "cpu_s"),
            )
        }  # fmt: skip
    except (TypeError, ValueError):
        columns = {"step": np.array(np.nan)}
    if not all(np.isfinite(columns[name]).all() for name in ("step", "score")):
        raise DataError(f"{folder / 'metrics.jsonl'} has an evaluation whose step or return_mean is no number")
    told = np.isfinite(columns["success"]).all()
    return {**columns, "success": columns["success"] if told else None}


def _telling(cfg: TrainConfig) -> dict[str, Any]:
    """The options that tell runs of one variant apart."""
    unused = NOT_LEARNING if cfg.use_moe else NOT_LEARNING.union(EXPERTS)
    moe = () if cfg.use_moe else ("moe_",)
    return {key: value for key, value in to_dict(cfg).items() if key not in unused and not key.startswith(moe)}


def _fact(path: Path, key: str) -> Any:
    """What a JSON file of the run says of `key`; None where it does not."""
    facts = read_json(path) if path.exists() else None
    return facts.get(key) if isinstance(facts, dict) else None


def _repeat(folder: Path) -> float | None:
    repeats = _fact(folder / "env.json", "action_repeat")
    return float(np.mean(repeats)) if repeats else None
