"""`gasp skills eval`: how well skills drawn from each source reproduce held-out windows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gasp import data
from gasp.config_views import SkillsEvalConfig, ViewConfig
from gasp.data import Demos
from gasp.run.saved import Skills, find, read_skills
from gasp.score import data_facts, errors, table, top_of
from gasp.windows import evenly
from rlcore import device
from rlcore.checkpoint import Checkpoints
from rlcore.config import diff
from rlcore.errors import DataError
from rlcore.files import explained, write_json
from rlcore.seeding import torch_generator


def evaluate(cfg: SkillsEvalConfig) -> int:
    """Print the table and write analysis/skills_eval.json; with --all, every checkpoint that is still there."""
    where = device.resolve(cfg.device)
    paths = [find(cfg.run, cfg.checkpoint)]
    if cfg.all:
        kept = Checkpoints(cfg.run / "checkpoints")
        paths = [kept.path(step) for step in kept.steps()]
    results: list[dict[str, Any]] = []
    for path in paths:
        skills = read_skills(path, where)
        held_out = demonstrations(skills, cfg)[1]
        starts = evenly(held_out, skills.cfg.model.horizon, cfg.windows)
        rng = torch_generator(cfg.seed, "skills eval")
        found = top_of(skills.model, skills.prior, held_out, starts, cfg.draws, rng)
        single = errors(skills.model, skills.prior, held_out, starts)
        row = {"checkpoint": path.name, "step": skills.step, "components": skills.prior.components}
        results.append({**row, "windows": len(starts), "draws": cfg.draws, "means": single, "top": found})
        if not cfg.json:
            print(f"{path}: update {skills.step:,}, K {skills.prior.components}, {len(starts)} windows")
            print(table(found, cfg.draws))
            print(f"mean of q(z|s,a): error {single['mse']:.5f}, {single['share']:.1%} of the actions' variance\n")
    if cfg.json:
        print(json.dumps(results, indent=1))
    with explained(cfg.run):
        write_json(cfg.run / "analysis" / "skills_eval.json", results)
    return 0


def demonstrations(skills: Skills, cfg: ViewConfig) -> tuple[Demos, Demos]:
    """What a run learnt from and what it held out; with --data, all of another file as both.

    Raises: DataError where the file is gone or not the one that it was, or does not fit.
    """
    if cfg.data is not None:
        other = data.load(cfg.data)
        check_fits(other, skills, cfg.data)
        return other, other
    assert skills.cfg.data is not None
    demos = data.load(skills.cfg.data)
    check_fits(demos, skills, skills.cfg.data)
    facts = data_facts(demos, skills.cfg.model.horizon)
    if changes := diff({name: skills.facts.get(name) for name in facts}, facts):
        said = f"{skills.cfg.data} has changed since the run learnt from it ({'; '.join(changes)})"
        raise DataError(f"{said}; name what to look at: --data FILE")
    return demos.split(skills.cfg.val_share, skills.cfg.seed)


def check_fits(demos: Demos, skills: Skills, path: Path) -> None:
    """DataError naming the fields in which demonstrations differ from what the skills are for."""
    here = {"obs_dim": demos.obs.shape[1], "action_dim": demos.action.shape[1], "obs_mode": demos.meta.get("obs_mode")}
    wrong = [f"{name} {value}, not {skills.facts[name]}" for name, value in here.items() if value != skills.facts[name]]
    if wrong:
        raise DataError(f"{path} does not fit these skills: {'; '.join(wrong)}")
