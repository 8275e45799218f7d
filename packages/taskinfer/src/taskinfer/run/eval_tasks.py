"""`taskinfer eval tasks`: fixed tasks, a table of how near each episode came, and a picture for each kind."""

from __future__ import annotations

import json
from typing import Any

from rlcore.files import explained, write_json
from rlcore.seeding import derive
from taskinfer.analysis.figures import formats_of, save_all
from taskinfer.analysis.trajectories import draw
from taskinfer.config_transfer import EvalTasksConfig
from taskinfer.record import Record, episode_scores
from taskinfer.run.subject import asked, open_subject
from taskinfer.run.tables import means, write_table
from taskinfer.tasks import Tasks, kind


def evaluate_tasks(cfg: EvalTasksConfig) -> int:
    """Roll them, print a line a task, write analysis/tasks.csv, tasks.npz, tasks.json and plots/tasks_*.png."""
    formats, subject = formats_of(cfg.format), open_subject(cfg)
    single = asked(cfg, subject, subject.fixed).single()
    tasks = Tasks.of(single * cfg.repeats)
    record = subject.roll(lambda t: tasks, cfg.steps or subject.steps, derive(cfg.seed_base, "evaluation"))
    rows = table(record, tasks, len(single), subject.infers)
    scores = [name for name in rows[0] if name not in ("task", "family", "spec", "repeat")]
    by_task = {str(task): means([row for row in rows if row["task"] == str(task)], scores) for task in single}
    report = {
        "run": str(cfg.run), "seed_base": cfg.seed_base, "repeats": cfg.repeats, "all": means(rows, scores),
        "tasks": by_task,
    }  # fmt: skip
    with explained(cfg.run):
        (cfg.run / "analysis").mkdir(exist_ok=True)
        write_table(cfg.run / "analysis" / "tasks.csv", rows)
        record.save(cfg.run / "analysis" / "tasks.npz")
        write_json(cfg.run / "analysis" / "tasks.json", report)
        written = []
        for group in dict.fromkeys(kind(task.family) for task in single):
            stem = cfg.run / "plots" / f"tasks_{group}"
            written += save_all(draw(record, group, subject.name), stem, formats)
    if cfg.json:
        print(json.dumps(report))
        return 0
    width = max(len(str(task)) for task in single)
    print(f"{subject.name}: {cfg.repeats} episodes a task")
    for name, row in {**by_task, "all": means(rows, scores)}.items():
        print(f"  {name:{width}}  {told(row)}")
    print(f"written to {cfg.run / 'analysis' / 'tasks.csv'}, {', '.join(map(str, written))}")
    return 0


def table(record: Record, tasks: Tasks, number: int, infers: bool) -> list[dict[str, Any]]:
    """A row an episode; `number` tasks, each as often as the others."""
    scores = dict(episode_scores(record))
    for name in () if infers else ("family_accuracy", "group_accuracy"):
        del scores[name]
    return [
        {
            "task": str(task), "family": task.family.name, "spec": task.spec, "repeat": i // number,
            **{name: round(float(values[i]), 6) for name, values in scores.items()},
        }
        for i, task in enumerate(tasks.single())
    ]  # fmt: skip


def told(row: dict[str, float]) -> str:
    family = f"   family {row['family_accuracy']:4.0%}" if "family_accuracy" in row else ""
    fell = f"   fell {row['fell']:.0%}" if row["fell"] else ""
    return f"return {row['return']:8.2f}   error {row['error']:5.2f}   success {row['success']:4.0%}{family}{fell}"
