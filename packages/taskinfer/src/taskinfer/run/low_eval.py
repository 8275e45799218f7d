"""`taskinfer low eval`: how well a saved low level follows sub-goals."""

from __future__ import annotations

import json
from typing import Any

from rlcore.files import explained, write_json
from rlcore.seeding import derive
from taskinfer.analysis.tracking import LIMIT, Plan, errors, measure
from taskinfer.config import LowEvalConfig
from taskinfer.envs.bodies import GROUP_NAMES
from taskinfer.low import GOAL
from taskinfer.run.saved import SavedLow, open_low


def evaluate_low(cfg: LowEvalConfig) -> int:
    """Score the run's greedy policy, print a line a sub-goal, write eval.json."""
    saved = open_low(cfg.dir / cfg.name, cfg.checkpoint)
    seed = derive(cfg.seed_base, "evaluation")  # a stream of its own: no training run has met these episodes
    plan, track, row = measure(saved.low, saved.cfg.body, saved.cfg.goal_range[1], cfg.repeats, seed)
    lines = by_target(plan, errors(plan, track).tolist())
    report = {
        "body": saved.cfg.body, "checkpoint": saved.checkpoint.name, "step": saved.step, "seed": saved.cfg.seed,
        "seed_base": cfg.seed_base, "repeats": cfg.repeats, **row, "targets": lines, "tasks": reached(lines),
    }  # fmt: skip
    if cfg.json:
        print(json.dumps(report), flush=True)
    else:
        tell(saved, lines, row)
    with explained(saved.folder):
        write_json(saved.folder / "eval.json", report)
    if not cfg.json:
        print(f"written to {saved.folder / 'eval.json'}")
    return 0


def tell(saved: SavedLow, lines: list[dict[str, Any]], row: dict[str, Any]) -> None:
    """Print a line a sub-goal, and what they come to."""
    print(f"{saved.folder}: {saved.checkpoint.name} (step {saved.step:,}) on {saved.cfg.body}")
    for line in lines:
        found = " ".join(f"{error:5.2f}" for error in line["errors"])
        print(f"  {line['group']:8} {line['target']:+5.2f}   errors {found}   (reached: at most {line['limit']})")
    for name in saved.low.groups:
        print(f"{name}: reached {row[f'{name}_reached']:.0%}, mean error {row[f'{name}_error']:.2f}")
    if "chain_reached" in row:
        print(f"far goals as chains: reached {row['chain_reached']:.0%}, mean error {row['chain_error']:.2f} m")


def by_target(plan: Plan, miss: list[float]) -> list[dict[str, Any]]:
    """One entry for each distinct sub-goal, with the error of each of its bodies."""
    found: dict[tuple[int, float, bool], list[float]] = {}
    for group, value, chained, error in zip(plan.subgoal.group, plan.subgoal.value, plan.chained, miss):
        found.setdefault((int(group), float(value), bool(chained)), []).append(round(error, 4))
    return [
        {
            "group": "chain" if chained else GROUP_NAMES[group], "target": value,
            "limit": LIMIT["goal" if group == GOAL else GROUP_NAMES[group]], "errors": each,
        }
        for (group, value, chained), each in found.items()
    ]  # fmt: skip


def reached(lines: list[dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """By group, 1 for each body that reached its sub-goal and 0 for the others, as returns."""
    found: dict[str, dict[str, list[float]]] = {}
    for line in lines:
        scores = [float(error <= line["limit"]) for error in line["errors"]]
        found.setdefault(line["group"], {"returns": []})["returns"] += scores
    return found
