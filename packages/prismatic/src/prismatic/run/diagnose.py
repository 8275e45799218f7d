"""`prismatic diagnose`: how far ahead a run's world model can be trusted, and which expert goes wrong where."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from prismatic.analysis import openloop
from prismatic.analysis.diagnosis_plot import open_loop_figure
from prismatic.analysis.gates import block_report
from prismatic.analysis.openloop import Episode, EpisodeSums, Rolled
from prismatic.analysis.rolling import roll
from prismatic.config import DiagnoseConfig, TaskSpec
from prismatic.moe import MoE
from prismatic.run import diagnosis_text as text
from prismatic.run.episodes import collect, shares
from prismatic.run.evaluate import check_fits
from prismatic.run.saved import Saved, open_run
from rlcore import plots
from rlcore.config import to_dict
from rlcore.errors import UsageError
from rlcore.files import explained, write_json
from rlcore.provenance import describe_environment

RATIOS = ("latent_error", "return_rmse")


@dataclass(frozen=True)
class Found:
    """One model on the windows of every task."""

    rolled: dict[str, Rolled]
    sums: dict[str, EpisodeSums]


def diagnose(cfg: DiagnoseConfig) -> int:
    """Collect episodes, score the model on them, print the scores; writes a JSON, a CSV and a picture."""
    runs = open_runs(cfg)
    tasks = next(iter(runs.values())).tasks
    for saved in runs.values():
        check_tasks(saved.tasks, cfg.horizon)
    counts = shares(cfg.episodes, cfg.policy, list(runs))
    episodes = {task.name: collect(runs, task, counts, cfg.seed_base) for task in tasks}
    starts = {name: starts_of(name, each, cfg) for name, each in episodes.items()}
    found = {label: look(saved, episodes, starts, cfg.horizon) for label, saved in runs.items()}
    report = {
        "options": to_dict(cfg),
        "environment": describe_environment("prismatic"),
        "horizon": list(range(1, cfg.horizon + 1)),
        "episodes": {name: told(each, starts[name]) for name, each in episodes.items()},
        "runs": {label: run_report(saved, found[label]) for label, saved in runs.items()},
        "ratio": compared(found) if cfg.compare is not None else None,
    }
    report = plain(report)
    print(json.dumps(report) if cfg.json else text.page(report), flush=True)
    folder = runs["A" if cfg.compare is not None else "agent"].folder
    with explained(folder):
        paths = write(report, folder, cfg)
    for path in paths:
        print(f"written to {path}", file=sys.stderr if cfg.json else sys.stdout)
    return 0


def open_runs(cfg: DiagnoseConfig) -> dict[str, Saved]:
    """The run to look at as "agent"; or the two to compare as "A" and "B". UsageError where their tasks differ."""
    one = open_run(cfg, cfg.checkpoint, cfg.device)
    if cfg.compare is None:
        return {"agent": one}
    which = cfg.compare_checkpoint or cfg.checkpoint
    other = open_run(replace(cfg, name=cfg.compare), which, cfg.device)
    ours, theirs = ([task.name for task in saved.tasks] for saved in (one, other))
    if set(ours) != set(theirs):
        known = f"{one.folder} learnt {', '.join(ours)}, {other.folder} {', '.join(theirs)}"
        raise UsageError(f"compare: {known}; two runs of the same tasks are needed")
    return {"A": one, "B": other}


def check_tasks(tasks: Sequence[TaskSpec], horizon: int) -> None:
    """UsageError where an env no longer fits, or its episodes are too short for one window."""
    for task in tasks:
        check_fits(task)
        if horizon > task.episode_length:
            raise UsageError(
                f"horizon: {horizon} steps do not fit an episode of {task.name}, {task.episode_length} steps"
            )


def starts_of(task: str, episodes: Sequence[Episode], cfg: DiagnoseConfig) -> Any:
    """Where windows begin, (R, 2). UsageError where every episode ended too early."""
    lengths = [len(episode) for episode in episodes]
    if cfg.horizon > max(lengths):
        raise UsageError(
            f"horizon: {cfg.horizon} steps do not fit any episode of {task}: the longest had {max(lengths)}"
        )
    return openloop.window_starts(lengths, cfg.horizon, cfg.windows)


def look(saved: Saved, episodes: Mapping[str, Sequence[Episode]], starts: Mapping[str, Any], horizon: int) -> Found:
    """Roll the run's model over all windows."""
    index = {task.name: i for i, task in enumerate(saved.tasks)}
    model = saved.agent.model
    rolled = {name: roll(model, index[name], each, starts[name], horizon) for name, each in episodes.items()}
    return Found(rolled, {name: openloop.add_up(each) for name, each in rolled.items()})


def told(episodes: Sequence[Episode], starts: Any) -> dict[str, Any]:
    """What was collected of a task."""
    return {
        "collectors": Counter(episode.collector for episode in episodes),
        "collector": [episode.collector for episode in episodes],
        "lengths": [len(episode) for episode in episodes],
        "returns": [float(episode.reward.sum()) for episode in episodes],
        "windows": len(starts),
    }


def run_report(saved: Saved, found: Found) -> dict[str, Any]:
    """Scores of one model on each task, and its gates."""
    model = saved.agent.model
    blocks = {"dynamics": model.dynamics, "reward": model.reward_net}
    gates = {name: gates_of(name, block, found) for name, block in blocks.items() if isinstance(block, MoE)}
    return {
        "run": str(saved.folder), "checkpoint": saved.checkpoint.name, "step": saved.step,
        "variant": saved.cfg.variant, "mpc": saved.cfg.mpc,
        "tasks": {name: openloop.measures(sums) for name, sums in found.sums.items()}, "gates": gates or None,
    }  # fmt: skip


def gates_of(name: str, block: MoE, found: Found) -> dict[str, Any]:
    """One block's experts, and the errors one step ahead of the rows that each of them leads."""
    errors = {}
    for task, rolled in found.rolled.items():
        variance = openloop.latent_variance(found.sums[task], np.ones(len(rolled.z_sum)))[0]
        errors[task] = rolled.latent[0] / variance, rolled.reward_error[0]
    return block_report({task: rolled.gates[name] for task, rolled in found.rolled.items()}, float(block.tau), errors)


def compared(found: Mapping[str, Found]) -> dict[str, Any]:
    """B over A for each task, with intervals over episodes."""
    return {task: openloop.ratios(sums, found["B"].sums[task], RATIOS) for task, sums in found["A"].sums.items()}


def write(report: dict[str, Any], folder: Path, cfg: DiagnoseConfig) -> list[Path]:
    """The three files, named after the other run where there is one; returns their paths."""
    tail = f"_vs_{Path(cfg.compare).name}" if cfg.compare is not None else ""
    paths = [
        folder / "analysis" / f"diagnose{tail}.json", folder / "analysis" / f"open_loop{tail}.csv",
        folder / "plots" / f"open_loop{tail}.png",
    ]  # fmt: skip
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    write_json(paths[0], report)
    text.write_csv(report, paths[1])
    plots.save(open_loop_figure(report), paths[2])
    return paths


def plain(value: Any) -> Any:
    """`value` as JSON has it: arrays become lists, numbers that are not finite null."""
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
