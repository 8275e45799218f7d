"""Train tiny nets for many env steps, watching memory, file descriptors and threads: R7 of docs/reliability.md.

python tests/faults/longrun.py 1000000
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

from mpn.cli import main as mpn
from rlcore.logger import rss_mib
from rlcore.run import Run

EVERY = 1_000


def main() -> None:
    steps = int(sys.argv[1])
    seen: list[tuple[int, float, int, int]] = []
    going = Run.going

    def watched(self: Run, step: int) -> bool:
        if step % EVERY < self.stride:
            seen.append((step, rss_mib(), len(os.listdir("/proc/self/fd")), threading.active_count()))
        return going(self, step)

    Run.going = watched  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        options = f"""train --preset debug --name long --dir {folder} --env mpn/TMaze-v0 --total-steps {steps}
            --save-every 5000 --eval-every 5000 --log-every 1000 --num-envs 16 --train-freq 32 --quiet""".split()
        assert mpn(options) == 0
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
