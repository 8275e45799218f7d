"""Does taskinfer's small batch lose anything? Reconstruction error on held-out tasks, of three learners, two ways.

published: the published networks, batch and step size (published_inference.py). large batch: our networks and step
size with the published batch of 4,096 contexts and 199 transitions. taskinfer: ours as the preset has it. After equal
numbers of updates, where the first two see two hundred times the rows, and after equal CPU seconds: those that
all updates of the published one took; and by the CPU seconds that each takes to the error that the other two end at.
The error is that of next states plus that of rewards, mean squares, compressed. Writes a record; takes minutes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.micro.published_inference import DECODED, WINDOWS, Ours, Published, error, make_data
from benchmarks.micro.timing import RESULTS
from rlcore.files import write_json
from rlcore.provenance import cpu_model
from taskinfer.config import InferenceConfig
from taskinfer.data import EpisodeRing

Side = Ours | Published


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.micro.taskinfer_error", description=__doc__)
    parser.add_argument("--seeds", default="0", help="of weights, tasks and episodes, such as 0,1,2")
    parser.add_argument("--updates", type=int, default=40, help="of each learner")
    parser.add_argument("--json", type=Path, default=RESULTS / "taskinfer_error.json", help="record to write")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    marks = sorted({round(args.updates * share) for share in (0.25, 0.5, 1.0)})
    seeds = [measure(int(seed), marks) for seed in args.seeds.split(",")]
    record = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "machine": cpu_model(), "seeds": args.seeds,
        "updates": marks, "runs": seeds,
    }  # fmt: skip
    write_json(args.json, record)
    show(seeds, marks)
    return 0


def measure(seed: int, marks: Sequence[int]) -> dict[str, Any]:
    """Of each learner: error at first and after `marks` updates, CPU seconds; ours after the CPU seconds of the others.

    Evaluations are not counted.
    """
    large = InferenceConfig(prior="gauss", batch=WINDOWS, targets=DECODED)
    sides = {"published": Published(seed), "large batch": Ours(seed, large), "taskinfer": Ours(seed)}
    found: dict[str, Any] = {}
    for name, side in sides.items():
        ring, held_out = make_data(seed)
        row = {"at first": error(side, held_out), "updates": [], "cpu_s": []}
        done = 0
        for mark in marks:
            row["cpu_s"].append(round(train(side, ring, mark - done) + sum(row["cpu_s"][-1:]), 2))
            row["updates"].append(error(side, held_out))
            done = mark
        found[name] = row
        print(f"seed {seed}, {name}: {json.dumps(row)}", flush=True)
    found["taskinfer"]["equal_cpu"] = until_spent(seed, found["published"]["cpu_s"][-1])
    for name in ("published", "large batch"):
        found["taskinfer"][f"equal_error, {name}"] = until_as_good(seed, found[name]["updates"][-1])
    print(f"seed {seed}, taskinfer: {json.dumps(found['taskinfer'])}", flush=True)
    return found


def until_spent(seed: int, cpu_s: float) -> dict[str, Any]:
    """Ours, anew, for so many CPU seconds."""
    (ring, held_out), side, spent, done = make_data(seed), Ours(seed), 0.0, 0
    while spent < cpu_s:
        spent, done = spent + train(side, ring, 100), done + 100
    return {"updates": done, "cpu_s": round(spent, 1), "error": error(side, held_out)}


def until_as_good(seed: int, goal: float) -> dict[str, Any]:
    """Ours, anew, until its error is no larger than `goal`."""
    (ring, held_out), side, spent, done = make_data(seed), Ours(seed), 0.0, 0
    while (now := error(side, held_out)) > goal:
        spent, done = spent + train(side, ring, 1), done + 1
    return {"updates": done, "cpu_s": round(spent, 2), "error": now}


def train(side: Side, ring: EpisodeRing, updates: int) -> float:
    """CPU seconds of so many updates."""
    begin = time.process_time()
    for _ in range(updates):
        side.update(ring)
    return time.process_time() - begin


def show(seeds: Sequence[dict[str, Any]], marks: Sequence[int]) -> None:
    """Means over seeds."""
    print(f"{'held-out error after':22}" + "".join(f"{mark:>7} updates" for mark in marks) + "   CPU s an update")
    for name in seeds[0]:
        errors = np.mean([seed[name]["updates"] for seed in seeds], 0)
        cost = np.mean([seed[name]["cpu_s"][-1] for seed in seeds]) / marks[-1]
        print(f"{name:22}" + "".join(f"{e:15.4f}" for e in errors) + f"   {cost:.4f}")
    equal = [seed["taskinfer"]["equal_cpu"] for seed in seeds]
    said = f"{np.mean([e['error'] for e in equal]):.4f} after {np.mean([e['updates'] for e in equal]):.0f} updates"
    print(f"taskinfer in the CPU seconds of the published ones: {said}")
    for name in ("published", "large batch"):
        same = [seed["taskinfer"][f"equal_error, {name}"] for seed in seeds]
        updates = np.mean([e["updates"] for e in same])
        if all(e["updates"] for e in same):
            ratio = np.mean([seed[name]["cpu_s"][-1] / e["cpu_s"] for seed, e in zip(seeds, same)])
            print(f"taskinfer to the error of {name}: {updates:.0f} updates, {ratio:.0f} times fewer CPU seconds")
        else:
            print(f"taskinfer to the error of {name}: {updates:.0f} updates; it is as good before its first one")


if __name__ == "__main__":
    raise SystemExit(main())
