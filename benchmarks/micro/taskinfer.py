"""taskinfer's toy and its inference update.

The toy is measured against its promise of five million steps a CPU second, and against one point at a time in Python.
The inference update, with the preset's batch, against the published one of 4,096 windows with 199 decoded transitions
each (published_inference.py), both with the drawing of their batches. What either is worth in error on held-out tasks
is measured by taskinfer_error.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from benchmarks.micro.published_inference import FAMILIES, HORIZON, Ours, Published, make_data
from benchmarks.micro.timing import Row, Side, compare, per_call, run
from taskinfer.config import InferenceConfig
from taskinfer.envs.toy import VectorToy
from taskinfer.tasks import make_task_sets

POINTS, PROMISE = 256, 5e6  # points at once; steps a CPU second


def main(argv: Sequence[str] | None = None) -> int:
    torch.set_num_threads(1)
    packages = ("taskinfer", "rlcore", "rlblocks", "torch", "numpy")
    return run("taskinfer", "taskinfer: the toy and the inference update", measure, packages, argv)


def measure(repetitions: int) -> Iterator[Row]:
    toy = (f"taskinfer, {POINTS} points at once", per_step(toy_episode(), POINTS * HORIZON))
    name, unit = f"toy: a step of one of {POINTS} points", "CPU time a step"
    promise = ("the promise: 5 million a CPU second", lambda _: 1 / PROMISE)
    yield compare(name, toy, promise, bar=1, unit=unit, repetitions=repetitions)
    single = ("one point, plain Python and numpy", per_step(plain_episode, HORIZON))
    yield compare(name, toy, single, bar=None, unit=unit, repetitions=repetitions)

    ring = make_data(0)[0]
    cfg = InferenceConfig()
    ours, published = Ours(0, cfg), Published(0)
    ours.inference.fit_prior(ring)
    shape = f"taskinfer, {cfg.batch} x {cfg.targets}, mixture prior"
    yield compare(
        "inference: an update", (shape, per_call(lambda: ours.update(ring))),
        ("published shape, 4,096 x 199", per_call(lambda: published.update(ring))),
        bar=50, unit="CPU time an update", repetitions=repetitions,
    )  # fmt: skip


def per_step(episode: Callable[[], None], steps: int) -> Side:
    """A side whose unit is a step of an `episode` of so many."""
    side = per_call(episode)
    return lambda k: side(k) / steps


def toy_episode() -> Callable[[], None]:
    env = VectorToy("toy1d", make_task_sets(FAMILIES, POINTS, 0, 0)[0], 0, horizon=HORIZON)
    actions = np.random.default_rng(0).uniform(-1, 1, (HORIZON, POINTS, 1)).astype(np.float32)

    def episode() -> None:
        env.reset()
        for action in actions:
            env.step(action)

    return episode


def plain_episode() -> None:
    """The same for one point, as one writes it first: a state of two numbers, clipped, and a reward."""
    rng, goal = np.random.default_rng(0), 5.0
    x, v = rng.uniform(-0.01, 0.01), rng.normal(0.0, 0.1)
    for action in rng.uniform(-1, 1, (HORIZON, 1)).astype(np.float32):
        force = np.clip(action, -1.0, 1.0)[0]
        v = np.clip(v + 0.1 * (50.0 * force - 10.0 * v), -5.0, 5.0)
        x = x + 0.1 * v
        np.array([x, v], np.float32), -abs(x - goal) / abs(goal)


if __name__ == "__main__":
    raise SystemExit(main())
