"""`taskinfer eval nonstationary`: the task switches every few steps; what is believed, and how soon it is right."""

from __future__ import annotations

import json
from typing import Any

from rlcore.errors import UsageError
from rlcore.files import explained, write_json
from rlcore.seeding import derive, numpy_generator
from taskinfer.analysis.adaptation import summary, switching
from taskinfer.config_transfer import EvalNonstationaryConfig
from taskinfer.run.subject import asked, open_subject


def evaluate_nonstationary(cfg: EvalNonstationaryConfig) -> int:
    """Play, print how soon, write analysis/nonstationary.npz and .json."""
    subject = open_subject(cfg)
    if not subject.infers:
        raise UsageError(f"{cfg.run} infers nothing: there are no beliefs to look at; train one with --arm inferred")
    choices = asked(cfg, subject, subject.unseen)
    rng = numpy_generator(cfg.seed_base, "switches")
    tasks_at = switching(choices[rng.permutation(len(choices))], cfg.num, cfg.steps, cfg.switch, rng)
    record = subject.roll(tasks_at, cfg.steps, derive(cfg.seed_base, "nonstationary"))
    report = {
        "run": str(cfg.run), "seed_base": cfg.seed_base, "steps": cfg.steps, "switch": cfg.switch,
        "episodes": cfg.num, "tasks": [str(task) for task in choices.single()], **summary(record, cfg.switch),
    }  # fmt: skip
    path = cfg.run / "analysis" / "nonstationary.npz"
    with explained(cfg.run):
        record.save(path)
        write_json(path.with_suffix(".json"), report)
    if cfg.json:
        print(json.dumps(report))
        return 0
    print(f"{subject.name}: {cfg.num} episodes of {cfg.steps} steps, another task every {cfg.switch}")
    print("\n".join([*lines(report), f"written to {path}: `taskinfer plot belief {cfg.run}` draws it"]))
    return 0


def lines(report: dict[str, Any]) -> list[str]:
    """The findings, a line each."""
    made = []
    for when, words in (("first", "first task"), ("switched", "after a switch")):
        for name, what in (("known", "family known"), ("done", "error small")):
            if f"{when}_{name}" in report:
                after = report[f"{when}_{name}_after"]
                soon = f", half of these within {after:g} steps" if after is not None else ""
                made.append(f"  {words}: {what}, and it stays so, in {report[f'{when}_{name}']:.0%}{soon}")
    return [*made, f"  family known in {report['family_accuracy']:.0%} of all steps"]
