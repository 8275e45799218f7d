"""Let every write, fsync and rename of a training run fail once, one run each: R4 of docs/reliability.md.

    python tests/faults/diskfull.py [STRIDE] [mpn | toy | low | skills | rl]

Started by its test with LD_PRELOAD=failio.so. STRIDE: only every so many calls. Prints a JSON report.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import errno
import io
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

import gasp.cli
import mpn.cli
import taskinfer.cli
from rlcore import checkpoint

METHODS = {
    "mpn": (mpn.cli.main, """train --total-steps 240 --save-every 120 --eval-every 120 --log-every 120
        --learning-starts 40 --batch-size 4 --eval-episodes 1 --max-episode-steps 30"""),
    "toy": (taskinfer.cli.main, """toy train --total-steps 240 --save-every 80 --eval-every 160 --log-every 80
        --inference.prior gauss --horizon 10 --num-train 8 --warmup-rounds 1"""),
    "low": (taskinfer.cli.main, """low train --body tiny_bodies:slider --steps 240 --save-every 80 --eval-every 160
        --log-every 80 --learning-starts 40 --batch-size 4"""),
    "skills": (gasp.cli.main, "skills train --data DEMOS --epochs 2 --save-every 6 --eval-every 6"),
    "rl": (gasp.cli.main, """rl train --skills SKILLS --steps 240 --save-every 80 --eval-every 160 --log-every 80
        --warmup 80 --batch-size 4 --eval-episodes 1"""),
}  # fmt: skip


def demos() -> str:
    """A file of walks on gasp's toy, until this process ends."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    assert gasp.cli.main(f"data collect toy --transitions 300 --out {folder}/toy.h5 --quiet".split()) == 0
    return str(folder / "toy.h5")


def skills() -> str:
    """A folder of skills that hardly learnt anything, until this process ends."""
    data = demos()
    folder = Path(data).parent
    words = f"skills train --preset debug --epochs 1 --data {data} --dir {folder} --name skills --quiet"
    assert gasp.cli.main(words.split()) == 0
    return str(folder / "skills")


METHOD = sys.argv[2] if len(sys.argv) > 2 else "mpn"
MAIN, OPTIONS = METHODS[METHOD][0], [*METHODS[METHOD][1].split(), *"--preset debug --name run --quiet --seed 1".split()]
MADE = {"SKILLS": skills, "DEMOS": demos}
OPTIONS = [MADE[word]() if word in MADE else word for word in OPTIONS]
sys.path.append(str(Path(__file__).parents[2] / "packages" / "taskinfer" / "tests"))  # for tiny_bodies
KEPT = 2  # --keep-checkpoints; a run that stops before it deletes the older ones has more for a while
SHIM = ctypes.CDLL(None)
SHIM.failio_last.restype = ctypes.c_char_p


def train(root: Path, *options: str, fail: int = 0, error: int = errno.ENOSPC) -> tuple[int, str]:
    """One run with the `fail`-th call failing; exit code and what was said."""
    said = io.StringIO()
    SHIM.failio_arm(fail, error, str(root).encode())
    try:
        with contextlib.redirect_stderr(said):
            code = MAIN([*OPTIONS, "--dir", str(root), *options])
    finally:
        calls = SHIM.failio_count()
        SHIM.failio_arm(0, 0, b"")
    train.calls = calls  # type: ignore[attr-defined]
    return code, said.getvalue()


def sound(root: Path) -> int:
    """Every checkpoint under a final name loads; returns how many there are. No half-written one has such a name."""
    paths = sorted((root / "run" / "checkpoints").glob("step_*.pt"))
    for path in paths:
        checkpoint.load(path)
    return len(paths)


def weights(root: Path) -> torch.Tensor:
    """Every tensor of the final agent."""

    def tensors(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            yield value.flatten().double()
        for each in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
            yield from tensors(each)

    return torch.cat(list(tensors(checkpoint.load(root / "run" / "checkpoints" / "final.pt")["parts"]["agent"])))


def main() -> None:
    torch.set_num_threads(1)
    stride = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        assert train(root)[0] == 0
        total, expected = train.calls, weights(root)  # type: ignore[attr-defined]
        report: dict[str, Any] = {"calls": total, "stopped": 0, "harmless": 0, "continued": 0}
        for n in range(1, total + 1, stride):
            shutil.rmtree(root / "run")
            code, said = train(root, fail=n)
            last = SHIM.failio_last().decode()
            lines = [line for line in said.splitlines() if "error" in line]
            assert code in (0, 5), (n, last, code, said)
            if code == 5:  # one line that names the path's run and the cause
                assert len(lines) == 1, (last, said)
                assert "No space left on device" in lines[0], (last, said)
                assert str(root) in lines[0], (last, said)
            view = "status.json" in last or last == f"fsync {root / 'run'}"  # and the fsync that follows its rename
            assert code or view, (last, "failed unnoticed")
            report["stopped" if code else "harmless"] += 1
            before = sound(root)
            assert train(root)[0] == 0, (last, "could not go on")
            assert sound(root) >= min(before, KEPT), (last, "checkpoints were lost")
            assert torch.equal(weights(root), expected), (last, "the resumed run ended elsewhere")
            assert not list((root / "run").rglob(".tmp-*")), (last, "left-overs")
            shutil.rmtree(root / "run")
            code, said = train(root, "--on-save-error", "continue", fail=n)
            assert code in (0, 5), (last, said)  # 5 only while the run's own folder is being made
            report["continued"] += code == 0
            sound(root)
        print(json.dumps(report))


if __name__ == "__main__":
    main()
