"""`collective evaluate`: episodes of a policy on goals it may never have seen; tables, JSON and CSV."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from collective import envs, experts
from collective.agent import Collective, find
from collective.analysis.report import at_last
from collective.config_distill import EvaluateConfig
from collective.data import goal_seeds
from collective.rollout import Acting, Chance, Played, Scripted, copies_of, play, scores, wilson
from collective.run.told import Experts, Told
from rlcore import checkpoint, device
from rlcore.config import to_dict
from rlcore.errors import DataError, UsageError
from rlcore.files import explained, read_json, write_atomic, write_json
from rlcore.progress import progress
from rlcore.seeding import numpy_generator


def evaluate(cfg: EvaluateConfig) -> int:
    """Play, print a table, write LABEL.json and LABEL.csv."""
    if cfg.run is None and cfg.name is not None:
        cfg = replace(cfg, run=cfg.dir / cfg.name)
    found = measure(cfg)
    if (folder := folder_of(cfg)) is not None:
        write(found, folder, cfg.label)
    if cfg.json:
        print(json.dumps(found))
        return 0
    print(table(found))
    if folder is not None:
        print(f"written to {folder}: {cfg.label}.json, {cfg.label}.csv")
    return 0


def measure(cfg: EvaluateConfig) -> dict[str, Any]:
    """Scores of each policy: {"policies": {name: {"tasks": {task: ...}, "success": ...}}, ...}. Prints no table."""
    device.set_threads(1)
    tasks, policies, trained_on = subjects(cfg)
    copies = copies_of(cfg.episodes, len(tasks), cfg.copies)
    found: dict[str, Any] = {
        "options": to_dict(cfg), "seen_goals": cfg.goal_seed in trained_on if trained_on else None, "policies": {},
        "success": "any step", "actions": "drawn" if cfg.stochastic else "means",
    }  # fmt: skip
    rewards = str((facts_of(cfg.run) if cfg.run else {}).get("reward_version") or "v2")  # an encoder reads them
    for name, policy in policies.items():
        other = name != next(iter(policies)) and not cfg.whole
        stop = 1 if other and cfg.stop_after_success is None else cfg.stop_after_success
        vec = envs.make(
            tasks, seed=cfg.seed, copies=copies, goals="cycle", goal_seed=cfg.goal_seed, horizon=cfg.horizon,
            workers=cfg.workers, reward_version=rewards,
        )  # fmt: skip
        total = len(tasks) * cfg.episodes
        with contextlib.closing(vec), progress(name, total, cfg.quiet) as show:
            played = play(policy, vec, cfg.episodes // copies, stop_after_success=stop, show=show)
            unstable = vec.unstable
        by_task = scores(played, tasks, whole=stop is None)
        final = [row["success_final"] for row in by_task.values()]
        low, high = wilson(int(played.success.sum()), len(played.success))
        found["policies"][name] = {
            "tasks": by_task, "success": float(np.mean([score["success"] for score in by_task.values()])),
            "success_final": float(np.mean(final)) if stop is None else None,
            "low": low, "high": high, "unstable_steps": unstable,
        }  # fmt: skip
        found.setdefault("tasks", episodes_of(played, tasks))
        found["tasks"][name] = {"returns": played.success.astype(float).tolist()}
    return found


def episodes_of(played: Played, tasks: tuple[str, ...]) -> dict[str, Any]:
    """Successes, 0 or 1, episode by episode: of all tasks together ("mean") and of each. Of the first policy."""
    success = played.success.astype(float)
    each = {task: {"returns": success[played.task == t].tolist()} for t, task in enumerate(tasks)}
    return {"mean": {"returns": success.tolist()}, **each}


def subjects(cfg: EvaluateConfig) -> tuple[tuple[str, ...], dict[str, Acting], list[int]]:
    """The tasks, who is to do them, and which goals those were trained on."""
    where = device.resolve(cfg.device)
    asked = bool(cfg.tasks or cfg.benchmark)
    if cfg.policy == "scripted":
        return cfg.chosen, {"scripted": Scripted(cfg.chosen)}, []
    if cfg.policy == "random":
        return cfg.chosen, {"random": Chance(numpy_generator(cfg.seed, "random policy"))}, []
    if cfg.run is None:  # not in the configuration: tyro makes one of the defaults
        made_by = {"collective": "collective distill", "expert": "collective train-worker"}[cfg.policy]
        raise UsageError(f"--run: which {cfg.policy}? Give the folder that `{made_by}` wrote")
    if cfg.policy == "expert":
        tasks = cfg.chosen if asked else experts.tasks_of(cfg.run)
        if not tasks:
            raise DataError(f"{cfg.run} holds no experts: `collective train-worker` makes some")
        return tasks, {"expert": Experts(cfg.run, tasks, not cfg.stochastic)}, goals_of(cfg.run)
    path = find(cfg.run)
    arms = tuple(checkpoint.load(path).get("parts", {}).get("policies", {}))
    if not arms:
        raise DataError(f"{path} holds no collective policy: `collective distill` makes one")
    if unknown := [arm for arm in cfg.arms if arm not in arms]:
        raise UsageError(f"arms: {path} holds the policies {', '.join(arms)}, not {unknown[0]}")
    loaded = {arm: Collective.load(path, arm, where) for arm in cfg.arms or arms}
    tasks = cfg.chosen if asked else next(iter(loaded.values())).tasks
    for arm, policy in loaded.items():
        if arm == "task-id" and (policy.numbers(tasks) < 0).any():
            raise UsageError(f"{arm} knows {', '.join(policy.tasks)} only: choose --arms cls for other tasks")
    made: dict[str, Acting] = {arm: Told(policy, tasks, not cfg.stochastic) for arm, policy in loaded.items()}
    for arm, policy in loaded.items():
        policy.sac.exploration = [numpy_generator(cfg.seed, "evaluation", arm)]  # of drawn actions
    return tasks, made, goals_of(path.parent.parent)


def facts_of(run: Path) -> dict[str, Any]:
    """What a run says of itself; nothing where it says nothing."""
    for folder in (run, run / "collective"):
        if (folder / "env.json").is_file():
            facts = read_json(folder / "env.json")
            return facts if isinstance(facts, dict) else {}
    return {}


def goals_of(run: Path) -> list[int]:
    """The seeds of the goals that a run was trained on; none where it does not say so."""
    return goal_seeds(facts_of(run))


def folder_of(cfg: EvaluateConfig) -> Path | None:
    """Where the files go."""
    if cfg.output is not None:
        return cfg.output
    if cfg.run is None:
        return None
    return cfg.run if cfg.run.is_dir() else cfg.run.parent.parent


def write(found: dict[str, Any], folder: Path, label: str) -> None:
    """LABEL.json and LABEL.csv."""
    text = io.StringIO()
    columns = ["policy", "task", "episodes", "success", "low", "high", "success_final", "return_mean"]
    writer = csv.DictWriter(text, [*columns, "steps_to_success"])
    writer.writeheader()
    for policy, result in found["policies"].items():
        writer.writerows({"policy": policy, "task": task, **row} for task, row in result["tasks"].items())
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"{label}.json", found)
        write_atomic(folder / f"{label}.csv", lambda file: file.write(text.getvalue().encode()))


def table(found: dict[str, Any]) -> str:
    """Success at any step with its 95 % interval, and at the last step."""
    policies = found["policies"]
    tasks = list(next(iter(policies.values()))["tasks"])
    width = max(len("mean of tasks"), *map(len, tasks))
    lines = [f"{'success at any step (last step)':{width}}"]
    lines += [f"{'':{width}}  " + "  ".join(f"{name:^28}" for name in policies)]
    for task in tasks:
        cells = [
            f"{row['success']:.2f} [{row['low']:.2f}, {row['high']:.2f}]{at_last(row)}"
            for row in (result["tasks"][task] for result in policies.values())
        ]
        lines.append(f"{task:{width}}  " + "  ".join(f"{cell:^28}" for cell in cells))
    cells = [f"{result['success']:.3f}{at_last(result)}" for result in policies.values()]
    lines.append(f"{'mean of tasks':{width}}  " + "  ".join(f"{cell:^28}" for cell in cells))
    known = {True: "the goals trained on", False: "goals never trained on", None: "its 50 goals"}
    goals = known[found["seen_goals"]]
    lines.append(f"{found['options']['episodes']} episodes a task on {goals}, actions: {found['actions']}")
    return "\n".join(lines)
