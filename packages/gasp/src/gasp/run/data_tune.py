"""`gasp data tune`: search for scripts of the kitchen's subtasks, keep those that work from most states."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from gasp import envs
from gasp.config import TuneConfig
from gasp.demos.kitchen import Demonstrator
from gasp.demos.scripts import SCRIPTS, load_scripts, save_scripts
from gasp.demos.tune import search, starts
from gasp.envs.kitchen import subtasks_of
from rlcore.errors import UsageError


def tune(cfg: TuneConfig) -> int:
    """Search for each subtask in turn and write all scripts; one that fell short of `keep` stays as it was."""
    wanted, others = (subtasks_of(",".join(names)) for names in (cfg.subtask, cfg.others))
    if cfg.out.exists() and not cfg.overwrite:
        raise UsageError(f"{cfg.out} exists: use another --out, or --overwrite")
    scripts = load_scripts(cfg.scripts) if cfg.scripts else dict(SCRIPTS)
    with contextlib.closing(envs.single("kitchen-all")) as env:
        inner: Any = env.unwrapped
        player = Demonstrator(inner, scripts, cfg.noise, cfg.jitter)
        for subtask in wanted:
            states = starts(player, subtask, others, cfg.starts, cfg.seed)
            best, found, count = search(player, subtask, states, cfg.seconds, cfg.seed, _say(cfg.quiet))
            kept = found.rate >= cfg.keep
            verdict = "kept" if kept else f"below {cfg.keep:.0%}: not kept"
            print(f"{subtask}: works from {found.rate:.0%} of {len(states)} states ({count} candidates), {verdict}")
            if kept:
                scripts[subtask] = best
            player.scripts = scripts
    save_scripts(cfg.out, scripts)
    print(f"written to {cfg.out}")
    return 0


def _say(quiet: bool) -> Any:
    return (lambda text: None) if quiet else (lambda text: print(text, file=sys.stderr, flush=True))
