"""Stop a real training run at random instants, again and again, and compare its end with a run never stopped.

    python tests/faults/interrupt.py --kills 200      SIGKILL: R1 of docs/reliability.md
    python tests/faults/interrupt.py --signals 50     SIGTERM and SIGINT, once and twice: R3

One process imports everything, then forks a child for each session: the children are real processes, training with the
real command line, and starting one takes milliseconds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from mpn.cli import main as mpn
from rlcore import checkpoint

STEPS, SAVE_EVERY = 2_400, 100
OPTIONS = f"""train --preset debug --name run --env CartPole-v1 --total-steps {STEPS} --num-envs 4 --train-freq 4
    --save-every {SAVE_EVERY} --eval-every 400 --log-every 80 --eval-episodes 2 --learning-starts 80 --seed 3""".split()


def start(folder: Path) -> int:
    """Fork a training session in `folder`; returns its process id. Its words go to session.log."""
    (folder / "session.log").write_text("")
    child = os.fork()
    if child:
        return child
    log = os.open(folder / "session.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    code = 1
    try:
        code = mpn([*OPTIONS, "--dir", str(folder)])
    finally:
        os._exit(code)


def wait(child: int, limit: float = 60.0) -> int:
    """Exit code of a session (-9 for SIGKILL); it must end within `limit` seconds."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    raise AssertionError(f"the session did not end within {limit:.0f} s of being asked to")


def newest(folder: Path) -> int:
    """Step of the newest checkpoint that was committed, 0 without any."""
    steps = checkpoint.Checkpoints(folder / "run" / "checkpoints").steps()
    return steps[-1] if steps else 0


def resumed_at(folder: Path) -> int:
    """The step that the last session says it started from."""
    said = re.search(r"resuming at step ([\d,]+)", (folder / "session.log").read_text())
    return int(said[1].replace(",", "")) if said else 0


def ending(folder: Path) -> dict[str, Any]:
    """Everything of a finished run that must not depend on how often it was stopped."""
    clocks = {"wall_s", "cpu_s", "env_steps_per_s", "updates_per_s", "rss_mib"}
    run = folder / "run"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    state = checkpoint.load(run / "checkpoints" / "final_model.pt")
    kept = {name: state[name] for name in ("parts", "rng", "meters", "best", "step")}
    del kept["parts"]["buffer"]  # which files hold it depends on when it was saved; its contents are compared below
    return {
        "rows": [{k: v for k, v in row.items() if k not in clocks} for row in rows],
        "history": json.loads((run / "training_history.json").read_text()),
        "checkpoint": kept,
        "replay": replay_bytes(run, state),
        "best": os.readlink(run / "checkpoints" / "best_model.pt"),
    }


def replay_bytes(run: Path, state: dict[str, Any]) -> list[torch.Tensor]:
    """What the replay memory holds, read back by the product itself."""
    import numpy as np

    from mpn.agent import Agent
    from mpn.config import TrainConfig
    from mpn.run.train import make_replay
    from rlcore.config import from_dict

    full = checkpoint.load(run / "checkpoints" / "final_model.pt")
    cfg = from_dict(TrainConfig, full["config"], "checkpoint")
    model = full["parts"]["agent"]["model"]
    agent = Agent(cfg, model["obs_dim"], model["action_dim"], torch.device("cpu"))
    replay = make_replay(cfg, agent, np.random.default_rng(0))
    replay.load(run / "replay", full["parts"]["buffer"])
    memory = [data.clone() for buffer in (replay.steps, replay.states) for data in buffer._data]
    return [torch.from_numpy(replay.steps.rng.random(4)), *memory]


def same(a: Any, b: Any, where: str = "") -> None:
    """Assert that two nested values are equal bit for bit, naming the place where they are not."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), f"{where} differs"
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), f"{where}: {a.keys() ^ b.keys()}"
        for key in a:
            same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), f"{where}: {len(a)} against {len(b)}"
        for i, (x, y) in enumerate(zip(a, b)):
            same(x, y, f"{where}[{i}]")
    else:
        assert a == b or (a != a and b != b), f"{where}: {a} against {b}"


def reference(root: Path) -> tuple[dict[str, Any], float]:
    """The run that nobody stops, and how long it takes."""
    folder = root / "whole"
    folder.mkdir()
    began = time.monotonic()
    assert wait(start(folder), 300) == 0, (folder / "session.log").read_text()
    return ending(folder), time.monotonic() - began


def kills(root: Path, count: int, rng: random.Random) -> dict[str, Any]:
    """R1: `count` SIGKILLs, each followed by the same command."""
    expected, seconds = reference(root)
    done = runs = 0
    while done < count:
        folder = root / f"killed{runs}"
        folder.mkdir()
        while True:
            committed = newest(folder) if (folder / "run").exists() else 0
            child = start(folder)
            if done < count:
                time.sleep(rng.uniform(0, 0.7 * seconds))
            else:
                wait(child)
            running = os.waitpid(child, os.WNOHANG)[0] == 0 if done < count else False
            if running:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                done += 1
            said = resumed_at(folder)
            assert said in (0, committed) or not running, f"resumed at {said}, but {committed} was committed"
            if not running:
                assert said == committed, f"resumed at {said}, but {committed} was committed"
                break
        same(expected, ending(folder), f"run {runs}")
        runs += 1
        shutil.rmtree(folder)
    return {"kills": done, "runs": runs, "seconds_uninterrupted": round(seconds, 2)}


def signals(root: Path, count: int, rng: random.Random) -> dict[str, Any]:
    """R3: SIGTERM and SIGINT at random instants; every fifth time a second SIGINT at once."""
    expected, seconds = reference(root)
    sent = {"SIGTERM": 0, "SIGINT": 0, "SIGINT twice": 0}
    folder, runs = root / "stopped0", 0
    folder.mkdir()
    while sum(sent.values()) < count:
        kind = ("SIGTERM", "SIGINT", "SIGTERM", "SIGINT", "SIGINT twice")[sum(sent.values()) % 5]
        committed = newest(folder) if (folder / "run").exists() else 0
        child = start(folder)
        while status_of(folder)[0] != child:  # a signal before the run has its folder has nothing to save
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.5 * seconds))
        try:
            os.kill(child, signal.SIGTERM if kind == "SIGTERM" else signal.SIGINT)
            if kind == "SIGINT twice":
                os.kill(child, signal.SIGINT)
        except ProcessLookupError:
            pass
        code = wait(child, 10)
        said = (folder / "session.log").read_text()
        # it had finished before; a signal while the interpreter shuts down still decides the exit code
        if code == 0 or status_of(folder) == (child, "finished"):
            same(expected, ending(folder), f"run {runs}")
            runs += 1
            assert runs <= 10 * count, "signals do not stop the run"
            folder = root / f"stopped{runs}"
            folder.mkdir()
            continue
        assert code == (85 if kind == "SIGTERM" else 130), (kind, code, said)
        if kind != "SIGINT twice":
            step = int(re.search(r"saved at step ([\d,]+)", said)[1].replace(",", ""))  # type: ignore[index]
            assert newest(folder) == step, (kind, step, newest(folder))
        assert newest(folder) >= committed
        if newest(folder):
            checkpoint.load(checkpoint.Checkpoints(folder / "run" / "checkpoints").path(newest(folder)))
        sent[kind] += 1
    assert wait(start(folder)) == 0
    same(expected, ending(folder), f"run {runs}")
    return {**sent, "runs": runs + 1}


def status_of(folder: Path) -> tuple[int, str]:
    """Process and state in status.json."""
    try:
        status = json.loads((folder / "run" / "status.json").read_text())
    except (OSError, ValueError):
        return 0, ""
    return status["pid"], status["state"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--signals", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = {}
    for name, test in (("kills", kills), ("signals", signals)):
        if getattr(asked, name):
            with tempfile.TemporaryDirectory() as root:
                report[name] = test(Path(root), getattr(asked, name), random.Random(asked.seed))
    print(json.dumps(report))
    sys.exit(0)
