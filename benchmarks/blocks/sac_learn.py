"""What rlblocks' SAC learns beside stable-baselines3's, on the same budget and episodes. Writes results/sac_learn.json.

    python -m benchmarks.blocks.sac_learn                # every run that is not there yet, then the record
    python -m benchmarks.blocks.sac_learn --jobs 2

Runs lie in benchmarks/results/sac/, a file each; a run that was cut off starts over. HalfCheetah-v5: 30,000 steps,
update an env step, settings that are both programs' defaults. Pendulum-v1: 15,000 steps. A score is the mean of 20
greedy episodes after the last step. The peer runs on seeds 10 to 14, ours on 15 to 19: ours had been run on 10 to 14
before its temperature's loss was changed (docs/log.md).
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
from rlcore.evaluate import bootstrap_ci, iqm
from rlcore.files import write_atomic

FOLDER = RESULTS / "sac"
OURS, PEER = ["-m", "benchmarks.blocks.sac_loop"], ["benchmarks/peers/sb3_sac.py", "curve"]
PENDULUM = ["--env", "Pendulum-v1", "--steps", "15000"]
ARMS: dict[str, tuple[list[str], range]] = {
    "sb3_cheetah": ([*PEER, "--eval-episodes", "20"], range(10, 15)),
    "ours_f32": (OURS, range(15, 20)),
    "ours_bf16": ([*OURS, "--precision", "bf16"], range(15, 20)),
    "pendulum": ([*OURS, *PENDULUM], range(15, 20)),
}


def run(arm: str, seed: int) -> None:
    """One training run, unless its file is there."""
    path = FOLDER / f"{arm}_{seed}.json"
    if not path.exists():
        command = [sys.executable, *ARMS[arm][0], "--seed", str(seed), "--json", str(path)]
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=RESULTS.parents[1])
        print(path.name, flush=True)


def summary(arm: str) -> dict[str, Any]:
    """Final scores by seed, their interquartile mean and its 95 % bootstrap interval, and the curves."""
    runs = {seed: json.loads((FOLDER / f"{arm}_{seed}.json").read_text()) for seed in ARMS[arm][1]}
    finals = [run["curve"][-1]["return_mean"] for run in runs.values()]
    low, high = bootstrap_ci(np.array(finals))
    return {
        "arm": arm, "seeds": list(runs), "final": [round(score, 1) for score in finals],
        "iqm": round(float(iqm(np.array(finals))), 1), "interval": [round(low, 1), round(high, 1)],
        "cpu_s": [run["cpu_s"] for run in runs.values()], "options": next(iter(runs.values()))["options"],
        "steps": [row["step"] for row in next(iter(runs.values()))["curve"]],
        "curves": [[round(row["return_mean"], 1) for row in run["curve"]] for run in runs.values()],
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.blocks.sac_learn", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one core each")
    args = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(lambda job: run(*job), [(arm, seed) for arm, (_, seeds) in ARMS.items() for seed in seeds]))
    rows = {arm: summary(arm) for arm in ARMS}
    peer, reached = rows["sb3_cheetah"], {}
    for arm in ("ours_f32", "ours_bf16"):
        reached[f"{arm}: interval overlaps or beats the peer's"] = rows[arm]["interval"][1] >= peer["interval"][0]
    reached["pendulum: at least -200 on every seed"] = min(rows["pendulum"]["final"]) >= -200
    environment = json.loads((FOLDER / f"ours_f32_{ARMS['ours_f32'][1][0]}.json").read_text())["env"]
    head = {
        "title": "SAC: HalfCheetah-v5 at 30,000 steps and Pendulum-v1 at 15,000, greedy returns over 20 episodes",
        "machine": {key: environment[key] for key in ("cpu", "cores", "python")}, "versions": environment["packages"],
        "reached": reached,
    }  # fmt: skip
    lines = [f" {json.dumps(key)}: {json.dumps(value)},\n" for key, value in head.items()]
    text = "{\n" + "".join(lines) + ' "arms": [\n  ' + ",\n  ".join(map(json.dumps, rows.values())) + "\n ]\n}\n"
    write_atomic(RESULTS / "sac_learn.json", lambda file: file.write(text.encode()))
    for arm, row in rows.items():
        print(f"{arm:12} {row['final']} IQM {row['iqm']} [{row['interval'][0]}, {row['interval'][1]}]")
    return 0 if all(reached.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
