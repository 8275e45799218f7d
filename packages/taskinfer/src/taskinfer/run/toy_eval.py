"""`taskinfer toy eval`: how good a toy run is on the tasks that it never saw."""

from __future__ import annotations

import json

import numpy as np

from rlcore.files import explained, write_json
from rlcore.seeding import derive
from taskinfer.config_use import ToyEvalConfig
from taskinfer.envs.toy import VectorToy
from taskinfer.run.rollout import roll, score
from taskinfer.run.saved import held_out_tasks, open_toy
from taskinfer.run.toy import purity_of
from taskinfer.tasks import Family, Tasks


def evaluate_toy(cfg: ToyEvalConfig) -> int:
    """Play `repeats` episodes of each held-out task at once; print the scores, write eval.json."""
    saved = open_toy(cfg.dir / cfg.name, cfg.checkpoint)
    tasks = Tasks.of(held_out_tasks(saved).single() * cfg.repeats)
    seed = derive(cfg.seed_base, "evaluation")  # a stream of its own: no training run has met these starts
    env = VectorToy(saved.cfg.toy, tasks, seed, horizon=saved.cfg.horizon, noise_std=saved.cfg.noise_std)
    rollout = roll(env, saved.agent, deterministic=True)
    believed = saved.cfg.arm == "inferred"
    row = {key.removeprefix("test_"): v for key, v in score(rollout, "test", believed).items()}
    if believed:
        row["purity"] = purity_of(saved.agent, rollout.fields())
    returns = rollout.reward.sum(1)
    report = {
        "toy": saved.cfg.toy, "arm": saved.cfg.arm, "checkpoint": saved.checkpoint.name, "step": saved.step,
        "seed": saved.cfg.seed, "seed_base": cfg.seed_base, "repeats": cfg.repeats, **row,
        "returns": [round(float(value), 4) for value in returns],
        "tasks_played": [str(task) for task in tasks.single()],
    }  # fmt: skip
    with explained(saved.folder):
        write_json(saved.folder / "eval.json", report)
    if cfg.json:
        print(json.dumps(report))
        return 0
    print(
        f"{saved.folder}: {saved.checkpoint.name} (step {saved.step:,}, arm {saved.cfg.arm}) on {len(tasks)} episodes"
    )
    print(f"return {row['return']:.1f} (median {row['return_median']:.1f}), success {row['success']:.0%}")
    for family in np.unique(tasks.family):
        name = Family(int(family)).name
        print(f"  {name:18} {row[f'return_{name}']:7.1f}")
    if believed:
        known = ", ".join(f"{v:.0%} at {key.rpartition('_')[2]}" for key, v in row.items() if "family_acc" in key)
        print(f"family known {known}; purity of the prior's components {row['purity']:.2f}")
    print(f"written to {saved.folder / 'eval.json'}")
    return 0
