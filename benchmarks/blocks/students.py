"""Students of collective's five-task policy beside plain soft actor-critic. Writes results/collective_students.json.

    python -m benchmarks --tier collective --only mt5,collective      # the teachers, one a seed
    python -m benchmarks.blocks.students                              # every run, from where it stands, then the record
    python -m benchmarks.blocks.students --jobs 2

Three tasks, seeds 10 to 14, `collective train-student --preset cpu`: 15,000 env steps, of which the last 7,000 are
without the teacher. The teacher of a seed is that seed's policy in results/collective/runs. Runs lie in
results/students; one that was cut off goes on. Both arms of a seed have the same goals, first weights and evaluation
episodes, and are compared in pairs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks.__main__ import RESULTS
from rlcore.evaluate import bootstrap_ci
from rlcore.files import read_json, write_atomic
from rlcore.plots import read_metrics

FOLDER, TEACHERS = RESULTS / "students", RESULTS / "collective" / "runs"
TASKS = ("window-open-v3", "button-press-topdown-v3", "push-v3")
ARMS = ("taught", "plain")
SEEDS = (10, 11, 12, 13, 14)  # 100 chose the settings
FIRST, BAR = 10_000, 1.2
LAST, LOSS = 2, 0.05  # evaluations averaged when the teacher goes, and at the end; what success may lose in between


def collective(*words: str) -> str:
    """Run `collective WORDS`; returns what it printed."""
    environ, root = os.environ | {"OMP_NUM_THREADS": "1"}, RESULTS.parents[1]
    command = [sys.executable, "-m", "collective", *words]
    return subprocess.run(command, check=True, env=environ, cwd=root, stdout=subprocess.PIPE, text=True).stdout


def run(task: str, arm: str, seed: int) -> str:
    """One student, from where it stands; returns its name."""
    name = f"{task}-{arm}-s{seed}"
    teacher = "none" if arm == "plain" else str(TEACHERS / f"mt5-collective-s{seed}")
    words = f"train-student --preset cpu --task {task} --seed {seed} --name {name} --quiet"
    collective(*words.split(), "--teacher", teacher, "--dir", str(FOLDER))  # refuses a run of other settings
    print(name, flush=True)
    return name


def curve(name: str) -> dict[str, Any]:
    """Its evaluations, rounded."""
    rows = read_metrics(FOLDER / name)
    found = [row for row in rows if row["kind"] == "eval"]
    gone = read_json(FOLDER / name / "config.json")["config"]["expire"]
    return {
        "run": name, "cpu_s": round(rows[-1]["cpu_s"]), "gone": gone, "steps": [row["step"] for row in found],
        "return": [round(row["return_mean"], 1) for row in found], "success": [row["success"] for row in found],
    }  # fmt: skip


def lasting(curves: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By task: success of the taught in the last evaluations with the teacher, in the last ones of all, and the change.

    Means over seeds; the change with its 95 % bootstrap interval over seeds. `plain`: of the others at the end.
    """
    found: dict[str, dict[str, Any]] = {}
    for task in TASKS:
        taught, plain = ([c for c in curves if c["run"].startswith(f"{task}-{arm}-")] for arm in ARMS)
        until = np.array([np.mean(c["success"][: c["steps"].index(c["gone"]) + 1][-LAST:]) for c in taught])
        ends, others = (np.array([np.mean(c["success"][-LAST:]) for c in arm]) for arm in (taught, plain))
        low, high = bootstrap_ci(ends - until, np.mean)
        found[task] = {"taught": until.mean(), "at the end": ends.mean(), "plain": others.mean(),
                       "change": (ends - until).mean(), "interval": [low, high]}  # fmt: skip
        found[task] = {name: np.round(value, 3).tolist() for name, value in found[task].items()}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.blocks.students", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one core each")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="fewer, for a first look; no record then")
    args = parser.parse_args()
    jobs = [(task, arm, seed) for seed in args.seeds for task in TASKS for arm in ARMS]
    with ThreadPoolExecutor(args.jobs) as pool:
        names = list(pool.map(lambda job: run(*job), jobs))
    compare = ["compare-students", *names, "--dir", str(FOLDER), "--first", str(FIRST)]
    found = json.loads(collective(*compare, "--json"))
    curves = [curve(name) for name in names]
    kept = lasting(curves)
    taught = [row for task in found["tasks"] for row in task["rows"] if not row["plain"]]
    facts = read_json(FOLDER / names[0] / "env.json")
    commits = sorted({read_json(FOLDER / name / "env.json")["git"]["commit"] for name in names})
    record = {
        "title": f"Students with a distilled teacher beside plain: area under the return curve, {FIRST:,} env steps",
        "cpu": facts["cpu"], "versions": facts["packages"], "commits": commits, "found": found,
        "reached": {
            f"area at least {BAR} times plain, on each task": all(row["ratio"]["value"] >= BAR for row in taught),
            "success at the end not lower, on each task": all(row["success_gain"]["value"] >= 0 for row in taught),
            f"at most {LOSS} of success is lost without the teacher, on each task": all(
                row["change"] >= -LOSS for row in kept.values()
            ),
        },
        f"success, mean of {LAST} evaluations": kept,
    }  # fmt: skip
    lines = "".join(f" {json.dumps(key)}: {json.dumps(value)},\n" for key, value in record.items())
    text = "{\n" + lines + ' "runs": [\n  ' + ",\n  ".join(map(json.dumps, curves)) + "\n ]\n}\n"
    if args.seeds == SEEDS:
        write_atomic(RESULTS / "collective_students.json", lambda file: file.write(text.encode()))
    print(collective(*compare))
    return 0 if all(record["reached"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
