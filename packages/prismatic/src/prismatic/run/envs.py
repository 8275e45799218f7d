"""`prismatic envs`: the tasks there are."""

from __future__ import annotations

import difflib

import gymnasium

from prismatic.config import EnvsConfig
from prismatic.envs import SETS, dmc, toy
from rlcore.errors import EnvironmentProblem, UsageError


def list_envs(cfg: EnvsConfig) -> int:
    """Print names by suite; a suite that is not installed is listed with what it needs."""
    try:
        dmc.load_suite()
        control = "DeepMind Control"
    except EnvironmentProblem as error:
        control = f"DeepMind Control (not available: {error})"
    # entries of Gymnasium whose actions are continuous cannot be told from the others without opening them
    mixed = "Gymnasium (those with continuous actions: `prismatic doctor --task NAME` tells)"
    suites = {
        "toy, no simulator needed": toy.TASKS,
        control: dmc.TASKS,
        mixed: sorted(gymnasium.registry),
        "sets": [f"{name} = {','.join(tasks)}" for name, tasks in SETS.items()],
    }
    found = {title: [name for name in names if cfg.like in name] for title, names in suites.items()}
    if not any(found.values()):
        known = [name.split(" = ")[0] for names in suites.values() for name in names]
        close = difflib.get_close_matches(cfg.like, known, n=3, cutoff=0.4)
        hint = f": did you mean {', '.join(close)}?" if close else ""
        raise UsageError(f"no task has {cfg.like!r} in its name{hint}")
    for title, names in found.items():
        if names:
            print(f"{title}:\n  " + "\n  ".join(names))
    return 0
