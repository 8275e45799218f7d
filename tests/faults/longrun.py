"""Train tiny nets for many env steps, watching memory, file descriptors and threads: R7 of docs/reliability.md.

python tests/faults/longrun.py mpn 1000000
python tests/faults/longrun.py prismatic 100000
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

from rlcore.logger import rss_mib
from rlcore.run import Run

LOOKS = 100  # at the process, over the run
OPTIONS = {
    "mpn": """--env mpn/TMaze-v0 --total-steps {steps} --save-every 5000 --eval-every 5000 --log-every 1000
        --num-envs 16 --train-freq 32""",
    "prismatic": """--steps {steps} --utd 1 --n-experts 2 --horizon 1 --save-every {often} --eval-every {often}
        --log-every {often} --num-envs 8""",  # one update a step
}


def main() -> None:
    method, steps = sys.argv[1], int(sys.argv[2])
    command, every = importlib.import_module(f"{method}.cli").main, max(steps // LOOKS, 1)
    seen: list[tuple[int, float, int, int]] = []
    going = Run.going

    def watched(self: Run, step: int) -> bool:
        if step // every > len(seen):
            seen.append((step, rss_mib(), len(os.listdir("/proc/self/fd")), threading.active_count()))
        return going(self, step)

    Run.going = watched  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        options = OPTIONS[method].format(steps=steps, often=max(steps // 20, 1)).split()
        assert command(["train", "--preset", "debug", "--name", "long", "--dir", folder, "--quiet", *options]) == 0
        files = len(list(Path(folder).rglob("*")))
    warm = np.array([row for row in seen if row[0] > steps // 5], np.float64)
    slope = np.polyfit(warm[:, 0], warm[:, 1], 1)[0] * 1e5
    print(
        json.dumps(
            {
                "steps": steps,
                "mib_per_1e5_steps": round(float(slope), 3),
                "largest_step_mib": round(float(np.diff(warm[:, 1]).max()), 3),
                "mib": [round(float(warm[0, 1]), 1), round(float(warm[-1, 1]), 1)],
                "file_descriptors": [int(warm[0, 2]), int(warm[-1, 2])],
                "threads": [int(warm[0, 3]), int(warm[-1, 3])],
                "files": files,
            }
        )
    )


if __name__ == "__main__":
    main()
