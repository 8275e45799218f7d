"""What `taskinfer eval` looks at: the agent of a toy run on its toy, or a transfer's high level on its body."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rlcore.config import from_dict
from rlcore.errors import UsageError
from rlcore.files import read_json
from taskinfer.config_transfer import EvalConfig, TransferConfig
from taskinfer.play import play
from taskinfer.record import Record, TasksAt
from taskinfer.run.saved import held_out_tasks, open_toy, stage_of
from taskinfer.run.stack import Reused, known_tasks, put_together
from taskinfer.tasks import TOY_RANGES, Family, Tasks, parse_tasks
from taskinfer.transfer import Driver


@dataclass(frozen=True)
class Subject:
    """One of the two."""

    folder: Path
    name: str  # for titles
    steps: int  # of an episode, where nothing else is asked for
    families: tuple[Family, ...]  # that it can be asked for
    fixed: Tasks  # what it is tried on, where nothing else is asked for
    unseen: Tasks  # what tasks that switch are drawn from
    infers: bool
    roll: Callable[[TasksAt, int, int], Record]  # (tasks, steps, seed) -> one episode of each


def open_subject(cfg: EvalConfig) -> Subject:
    """UsageError where the run is neither, or its parts are gone."""
    stage = stage_of(cfg.run)
    if stage == "transfer":
        return _of_transfer(cfg)
    if stage != "toy":
        raise UsageError(f"{cfg.run} is neither a toy run nor a transfer (its stage is {stage})")
    if cfg.high_level != "toy":
        raise UsageError(f"high_level: {cfg.run} is a toy run: its policy acts itself")
    saved = open_toy(cfg.run, cfg.checkpoint)
    agent, families = saved.agent, saved.agent.inference.families
    name = f"{saved.folder.name} on {saved.cfg.toy}"
    return Subject(
        cfg.run, name, saved.cfg.horizon, families, spread(families), held_out_tasks(saved),
        saved.cfg.arm == "inferred", lambda tasks_at, steps, seed: play(agent, tasks_at, steps, seed),
    )  # fmt: skip


def open_transfer(folder: Path, checkpoint: str = "auto") -> Reused:
    """A transfer's parts, as they are now."""
    if (stage := stage_of(folder)) != "transfer":
        raise UsageError(f"{folder} is no transfer (its stage is {stage}): see `taskinfer transfer reuse`")
    if checkpoint != "auto":
        raise UsageError(f"checkpoint: {folder} has none of its own; it takes those that it was made with")
    path = folder / "config.json"
    return put_together(from_dict(TransferConfig, read_json(path)["config"], str(path)), "cpu")


def _of_transfer(cfg: EvalConfig) -> Subject:
    reused = open_transfer(cfg.run, cfg.checkpoint)

    def roll(tasks_at: TasksAt, steps: int, seed: int) -> Record:
        driver = Driver(reused.stack, len(tasks_at(0)), steps, seed)
        record = driver.run(reused.high_level(cfg.high_level), tasks_at)
        driver.close()
        assert record is not None  # nobody asks for a stop
        return record

    single = parse_tasks(reused.cfg.tasks)
    name = f"{cfg.run.name} on {reused.stack.body}" + (f" ({cfg.high_level})" if cfg.high_level != "toy" else "")
    families = reused.stack.inference.families
    return Subject(cfg.run, name, reused.cfg.decisions, families, single, single, True, roll)


def spread(families: tuple[Family, ...]) -> Tasks:
    """Two tasks of each family: a quarter and three quarters into the toy's range."""
    specs = [[low + share * (high - low) for share in (0.25, 0.75)] for low, high in (TOY_RANGES[f] for f in families)]
    return Tasks.of(family=[f for f in families for _ in (0, 1)], spec=[spec for pair in specs for spec in pair])


def asked(cfg: EvalConfig, subject: Subject, fallback: Tasks) -> Tasks:
    """The tasks of `--tasks`, or the fallback. UsageError for a family that the run does not know."""
    return asked_of(cfg, subject.folder, subject.families, fallback)


def asked_of(cfg: EvalConfig, folder: Path, families: tuple[Family, ...], fallback: Tasks) -> Tasks:
    """The same for a run that knows these families."""
    return known_tasks(fallback if cfg.tasks is None else parse_tasks(cfg.tasks), folder, families)
