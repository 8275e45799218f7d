"""`taskinfer bench toy`: the three arms on the same seeds, each an ordinary run; the same command goes on."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlcore.config import FREE_ON_RESUME, diff, to_dict
from rlcore.errors import UsageError
from rlcore.files import explained, locked, read_json, write_json
from rlcore.provenance import describe_environment
from rlcore.seeding import derive
from rlcore.sweep import Job, run_local
from taskinfer.analysis.arms import compare, read_arm, to_text
from taskinfer.analysis.causality import causality, pairs_of
from taskinfer.config import ToyConfig
from taskinfer.config_use import BenchToyConfig, parse_seeds
from taskinfer.run.causality import lines as causality_lines
from taskinfer.run.saved import held_out_tasks, open_toy
from taskinfer.run.toy import MAY_CHANGE
from taskinfer.tasks import families_of

SEED_BASE = 10_000  # as the default of `eval causality`
RETRIES = 3  # how often a preempted run is started again


@dataclass(frozen=True)
class ArmJob(Job):
    """One run; finished only if it went as far as it should."""

    steps: int

    @property
    def state(self) -> str:
        path = Path(self.run, "status.json")
        status: dict[str, Any] = read_json(path) if path.exists() else {"state": "new", "step": 0}
        return str(status["state"]) if int(status["step"]) >= self.steps else "new"


def bench_toy(cfg: BenchToyConfig) -> int:
    """Train what is not trained yet, print the comparison (or JSON), write bench.json. Exit code 1 if a run failed."""
    folder, seeds, families = cfg.folder, parse_seeds(cfg.seeds), families_of(cfg.tasks, cfg.toy)
    runs = [cfg.run_config(arm, seed) for seed in seeds for arm in cfg.arms]
    with explained(folder):
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        with locked(folder):
            for run in runs:
                check_same(run)
            if not train(cfg, runs):
                return 1
            arms = {str(arm): {seed: read_arm(folder / f"{arm}-s{seed}") for seed in seeds} for arm in cfg.arms}
            report = {**about(cfg), **compare(arms)}
            write_json(folder / "bench.json", report)
            if cfg.causality and "inferred" in cfg.arms and pairs_of(families):
                report["causality"] = {str(seed): causes(folder / f"inferred-s{seed}") for seed in seeds}
                write_json(folder / "bench.json", report)
    if cfg.json:
        print(json.dumps(report))
        return 0
    print(f"{heading(cfg)}\n\n{to_text(report)}\n")
    for seed, found in report.get("causality", {}).items():
        print("\n".join([f"causality, seed {seed}", *(f"  {line}" for line in causality_lines(found))]))
    print(f"\nwritten to {folder}/bench.json")
    return 0


def causes(run: Path) -> dict[str, Any]:
    """What `eval causality` finds of a run's best checkpoint."""
    saved = open_toy(run)
    found = causality(saved.agent, held_out_tasks(saved), derive(SEED_BASE, "causality"))
    return {"checkpoint": saved.checkpoint.name, "step": saved.step, **found}


def train(cfg: BenchToyConfig, runs: list[ToyConfig]) -> bool:
    """Start and wait for the runs that are not finished; whether all of them are now. Progress goes to stderr."""
    folder, logs = cfg.folder, cfg.folder / "logs"
    own = ("name", "seed", "arm")
    write_json(folder / "toy.json", {key: value for key, value in to_dict(runs[0]).items() if key not in own})
    command = [sys.executable, "-m", "taskinfer", "toy", "train", "--config", str(folder / "toy.json")]
    jobs: list[ArmJob] = []
    for run in runs:
        argv = [*command, "--arm", run.arm, "--seed", str(run.seed), "--name", str(run.name)]
        jobs.append(ArmJob(len(jobs), str(run.name), str(folder / str(run.name)), argv, {}, run.total_steps))
    waiting = sum(job.state != "finished" for job in jobs)
    if waiting:
        print(f"{waiting} of {len(jobs)} runs to go in {folder}, {cfg.workers} at a time", file=sys.stderr, flush=True)
    with contextlib.redirect_stdout(sys.stderr):
        codes = run_local(jobs, folder, cfg.workers, RETRIES)
    for job in jobs:
        if codes[job.id]:
            print(f"{job.name} failed: {last_line(logs / f'{job.id:04d}.err')}", file=sys.stderr)
    return not any(codes.values())


def last_line(log: Path) -> str:
    """What a run said last, and where it says more."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return f"{lines[-1] if lines else 'it said nothing'} ({log})"


def check_same(cfg: ToyConfig) -> None:
    """UsageError where the folder of a run holds one of other options, or a longer one.

    Finished runs are not started to find out.
    """
    path = cfg.dir / str(cfg.name) / "config.json"
    if not path.exists():
        return
    status = path.with_name("status.json")
    if status.exists() and (step := int(read_json(status)["step"])) >= cfg.total_steps + cfg.stride:
        further = f"to step {step:,}, further than --total-steps {cfg.total_steps:,}"
        raise UsageError(f"{path.parent} has gone {further}: use another --name for a shorter bench")
    free = FREE_ON_RESUME | MAY_CHANGE
    old, new = ({k: v for k, v in c.items() if k not in free} for c in (read_json(path)["config"], to_dict(cfg)))
    if changes := diff(old, new):
        raise UsageError(f"{path.parent} was run with other options ({'; '.join(changes)}): use another --name")


def about(cfg: BenchToyConfig) -> dict[str, Any]:
    """What was compared, and on what."""
    machine = {key: value for key, value in describe_environment("taskinfer").items() if key != "host"}
    return {"seeds": list(parse_seeds(cfg.seeds)), "config": to_dict(cfg.run_config("inferred", 0)), "machine": machine}


def heading(cfg: BenchToyConfig) -> str:
    """One line on what the table is of."""
    return (
        f"{cfg.toy}, tasks {cfg.tasks}, {cfg.total_steps:,} env steps a run; deterministic episodes of "
        f"{cfg.num_eval} held-out tasks"
    )
