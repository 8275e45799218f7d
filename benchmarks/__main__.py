"""`python -m benchmarks`: train the methods beside their peers, then print and write a report.

Results lie in benchmarks/results/<name>/. The same command continues a bench that was stopped, and repeats only the
report when all is there.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import run
from benchmarks.kinds import ROOT, Job
from benchmarks.progress import Progress
from benchmarks.suite import METHODS, TASKS, TIERS, make_jobs
from rlcore.errors import QuintetError, UsageError
from rlcore.files import read_json, write_atomic

RESULTS = ROOT / "benchmarks" / "results"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, allow_abbrev=False)
    tiers = "; ".join(f"{name}: {tier.about}" for name, tier in TIERS.items())
    parser.add_argument("--tier", choices=TIERS, default="quick", help=tiers)
    parser.add_argument("--only", default="", metavar="WORDS", help="parts of task and method names: mpn,gru or tmaze")
    parser.add_argument("--seeds", type=_seeds, metavar="0,1,2", help="instead of the tier's own")
    parser.add_argument("--name", help="folder of the results in benchmarks/results; the tier's name if left out")
    parser.add_argument("--fresh", action="store_true", help="start over; otherwise what is there is kept")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="jobs at a time, one thread each")
    parser.add_argument(
        "--record",
        action="store_true",
        help="also write benchmarks/results/<tier>.json, to commit; runs that it has and that are not here stay in it",
    )
    parser.add_argument("--list", action="store_true", help="only print the commands")
    parser.add_argument("--readme", action="store_true", help="only bring the README up to date with the records")
    return parser.parse_args(argv)


def _seeds(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(","))


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0; 1 when a job failed or a claim does not hold; 2 for wrong options; 130 when stopped."""
    args = parse(sys.argv[1:] if argv is None else argv)
    try:
        return bench(args)
    except QuintetError as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return error.exit_code


def bench(args: argparse.Namespace) -> int:
    if args.readme:
        from benchmarks import readme

        readme.write(RESULTS)
        return 0
    results = RESULTS / (args.name or args.tier)
    shown = results.relative_to(ROOT) if results.is_relative_to(ROOT) else results
    jobs = make_jobs(args.tier, f"{shown}/runs", args.only, args.seeds)
    if not jobs:
        known = f"tasks: {', '.join(TASKS)}; methods: {', '.join(METHODS)}"
        raise UsageError(f"--only {args.only!r} leaves nothing to run in tier {args.tier}; {known}")
    if args.workers < 1:
        raise UsageError(f"--workers must be at least 1, got {args.workers}")
    if args.list:
        print("\n".join(shlex.join(command) for job in jobs for command in (job.train, job.evaluate)))
        return 0
    groups = TIERS[args.tier].groups
    named = {group.task: TASKS[group.task] for group in groups} | {m: METHODS[m] for g in groups for m in g.methods}
    if absent := [name for name, what in named.items() if not what.installed()]:
        print(f"not installed, so not in the table: {', '.join(absent)}", file=sys.stderr)
    results.mkdir(parents=True, exist_ok=True)
    if args.fresh:
        with run.locked(results):
            for folder in run.FOLDERS:
                shutil.rmtree(results / folder, ignore_errors=True)
    code = run.run(jobs, results, args.workers, Progress(jobs, results))
    everything = make_jobs(args.tier, f"{shown}/runs", seeds=args.seeds)
    if args.record:  # which is of all the tier's seeds, whichever run today
        own = make_jobs(args.tier, f"{shown}/runs")
        everything = [*own, *(job for job in everything if job not in own)]
    there = [job for job in everything if args.record or job in jobs or run.is_done(results, job, "evaluate")]
    holds = write_report(there, results, args)
    if code == 130:
        print("stopped; the same command continues", file=sys.stderr)
    return code or int(not holds)


def write_report(jobs: list[Job], results: Path, args: argparse.Namespace) -> bool:
    """Print the tables, write report.html, .md and .json; False when a claim does not hold."""
    from benchmarks import collect, page, report

    record = RESULTS / f"{args.tier}.json"
    earlier = read_json(record) if args.record and record.exists() else None
    made = collect.collect(jobs, results, args.tier, f"python -m benchmarks --tier {args.tier}", earlier)
    write_text(results / "report.html", page.to_html(made))
    write_text(results / "report.md", report.to_markdown(made))
    for path in (results / "report.json", *([record] if args.record else [])):
        write_text(path, report.to_json(made))
    report.print_terminal(made)
    print(f"report: {results / 'report.html'} (also .md and .json)")
    return all(claim["holds"] is not False for claim in made["claims"])


def write_text(path: Path, text: str) -> None:
    write_atomic(path, lambda file: file.write(text.encode()))


if __name__ == "__main__":
    sys.exit(main())
