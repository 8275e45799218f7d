"""Students of collective's five-task policy beside plain soft actor-critic. Writes results/collective_students.json.

    python -m benchmarks --tier collective --only mt5,collective      # the teachers, one a seed
    python -m benchmarks.blocks.students                              # every run that is not there yet, then the record
    python -m benchmarks.blocks.students --jobs 2

Three tasks, seeds 10 to 14, `collective train-student --preset cpu`: 10,000 env steps, the teacher of a seed is that
seed's policy in results/collective/runs. Runs lie in results/students; one that was cut off goes on. Both arms of a
seed have the same goals, first weights and evaluation episodes, and are compared in pairs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.__main__ import RESULTS
from collective.analysis.student_views import draw, to_markdown
from collective.analysis.students import PLAIN, Curve, compare, read_run
from rlcore import plots
from rlcore.files import read_json, write_atomic

FOLDER, TEACHERS = RESULTS / "students", RESULTS / "collective" / "runs"
TASKS = ("window-open-v3", "button-press-topdown-v3", "push-v3")
SEEDS = (10, 11, 12, 13, 14)  # 100 chose the settings
FIRST, BAR = 10_000, 1.2


def run(task: str, arm: str, seed: int) -> Path:
    """One student, from where it stands; returns its folder."""
    name = f"{task}-{arm}-s{seed}"
    teacher = "none" if arm == PLAIN else str(TEACHERS / f"mt5-collective-s{seed}")
    command = f"-m collective train-student --preset cpu --task {task} --teacher {teacher} --seed {seed} --name {name}"
    status = FOLDER / name / "status.json"
    if not status.exists() or read_json(status)["state"] != "finished":
        words = [sys.executable, *command.split(), "--dir", str(FOLDER), "--quiet"]
        subprocess.run(words, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=RESULTS.parents[1])
        print(name, flush=True)
    return FOLDER / name


def curve(found: Curve) -> dict[str, Any]:
    """Its evaluations, rounded."""
    return {
        "task": found.task, "method": found.method, "seed": found.seed, "cpu_s": round(found.cpu_s),
        "area": round(found.area(FIRST), 1), "steps": found.step.astype(int).tolist(),
        "return": [round(value, 1) for value in found.value], "success": found.success.tolist(),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.blocks.students", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one core each")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    args = parser.parse_args()
    jobs = [(task, arm, seed) for seed in args.seeds for task in TASKS for arm in ("taught", PLAIN)]
    with ThreadPoolExecutor(args.jobs) as pool:
        folders = list(pool.map(lambda job: run(*job), jobs))
    curves = [read_run(folder, FIRST) for folder in folders]
    found = compare(curves, FIRST)
    taught = [row for task in found["tasks"] for row in task["rows"] if not row["plain"]]
    facts = read_json(folders[0] / "env.json")
    record = {
        "title": f"Students with a distilled teacher beside plain: area under the return curve, {FIRST:,} env steps",
        "cpu": facts["cpu"], "versions": facts["packages"], "found": found,
        "reached": {
            f"area at least {BAR} times plain, mean over tasks": found["overall"][0]["ratio"]["value"] >= BAR,
            "success at the end not lower, on each task": all(row["success_gain"]["value"] >= 0 for row in taught),
        },
    }  # fmt: skip
    lines = "".join(f" {json.dumps(key)}: {json.dumps(value)},\n" for key, value in record.items())
    text = "{\n" + lines + ' "runs": [\n  ' + ",\n  ".join(json.dumps(curve(each)) for each in curves) + "\n ]\n}\n"
    write_atomic(RESULTS / "collective_students.json", lambda file: file.write(text.encode()))
    plots.save(draw(curves), FOLDER / "students.png")
    print(to_markdown(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
