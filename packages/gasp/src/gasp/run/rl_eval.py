"""`gasp rl eval`: what a saved agent, or the skill prior alone, does on fresh episodes."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np

from gasp.agent import How
from gasp.config_rl import RLEvalConfig
from gasp.run.episodes import Played, Stage, done_key
from gasp.run.rl_pictures import KINDS, draw_episodes
from gasp.run.saved_rl import SavedRL, open_rl
from rlcore.evaluate import bootstrap_ci
from rlcore.files import explained, write_json
from rlcore.seeding import derive

Row = dict[str, Any]


def evaluate(cfg: RLEvalConfig) -> int:
    """Play, print, write eval.json (or prior.json) and pictures of which components were chosen."""
    saved = open_rl(cfg.dir / cfg.name, cfg.checkpoint)
    kinds: dict[str, How] = {"prior": "prior"} if cfg.prior_only else {"mean": "mean", "drawn": "policy"}
    seed = derive(cfg.seed_base, "evaluation")  # a stream of its own: no training run has met these episodes
    with contextlib.closing(Stage(saved.setting, cfg.episodes, seed)) as stage:
        played = stage.play(saved.agent, kinds)
    report = make_report(cfg, saved, played)
    file = saved.folder / ("prior.json" if cfg.prior_only else "eval.json")
    with explained(saved.folder):
        write_json(file, report)
        draw_episodes(saved.folder, saved.setting, played)
    if cfg.json:
        print(json.dumps(report))
        return 0
    print(f"{saved.folder}: {saved.checkpoint.name} (step {saved.step:,}) on {saved.setting.cfg.task}")
    for name, row in report["kinds"].items():
        print(told(name, row, cfg.episodes, saved.setting.spec.subtasks))
    print(f"written to {file}, pictures to {saved.folder / 'plots'}")
    return 0


def make_report(cfg: RLEvalConfig, saved: SavedRL, played: dict[str, Played]) -> Row:
    """What eval.json holds. `returns` and `return_mean` are of the kind that the options name."""
    first = played["prior" if cfg.prior_only else cfg.score]
    return {
        "task": saved.setting.cfg.task, "method": saved.setting.facts()["method"], "seed": saved.setting.cfg.seed,
        "checkpoint": saved.checkpoint.name, "step": saved.step, "seed_base": cfg.seed_base, "episodes": cfg.episodes,
        "return_mean": float(first.returns.mean()), "returns": first.returns.tolist(),
        "kinds": {name: of_kind(episodes, saved.setting.spec.subtasks) for name, episodes in played.items()},
    }  # fmt: skip


def of_kind(played: Played, subtasks: tuple[str, ...]) -> Row:
    """Means, 95 % bootstrap intervals over the episodes, and which components were chosen."""
    row: Row = {**played.row(subtasks), "returns": played.returns.tolist(), "successes": played.successes.tolist()}
    row["success_ci"] = interval(played.successes)
    if subtasks:
        row["subtasks"] = {name: float(rate) for name, rate in zip(subtasks, played.completed.mean(0))}
        row["subtasks_ci"] = interval(played.completed.sum(1))
    if len(played.counts):
        row |= {"component_counts": played.counts.tolist(), "component_transitions": played.transitions.tolist()}
    return row


def interval(values: Any) -> list[float]:
    """Of the mean over episodes."""
    return list(bootstrap_ci(np.asarray(values, np.float64), lambda sample: float(sample.mean())))


def told(name: str, row: Row, episodes: int, subtasks: tuple[str, ...]) -> str:
    """A line or two about one kind of episodes."""
    low, high = row["success_ci"]
    line = f"  {KINDS[name]:15}  success {row['success_rate']:4.0%} [{low:.0%}, {high:.0%}] of {episodes} episodes"
    line += f", {row['length_mean']:.0f} steps each"
    if subtasks:
        low, high = row["subtasks_ci"]
        each = ", ".join(f"{task} {row[done_key(task)]:.0%}" for task in subtasks)
        line += f"\n  {'':15}  {row['subtasks_mean']:.2f} of {len(subtasks)} subtasks [{low:.2f}, {high:.2f}]: {each}"
    if "component_counts" in row:
        counts = np.array(row["component_counts"])
        most = np.argsort(-counts)[:5]
        shares = ", ".join(f"{k} {counts[k] / counts.sum():.0%}" for k in most if counts[k])
        line += f"\n  {'':15}  components {shares}"
    return line
