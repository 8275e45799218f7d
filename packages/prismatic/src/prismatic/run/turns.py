"""What calls cost, measured in turns: a machine that grows slower slows all sides, and hardly changes their ratios."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

TURNS = 5
Array = np.ndarray[Any, Any]
Clock = Callable[[], float]


def clock_for(device: torch.device, threads: int) -> tuple[Clock, str]:
    """A clock in seconds, and what it shows. CPU time of one thread: waiting for others on the machine is not in it."""
    if device.type == "cuda":

        def synchronised() -> float:
            torch.cuda.synchronize(device)
            return time.perf_counter()

        return synchronised, "wall time, the device synchronised"
    if threads == 1:
        return time.process_time, "CPU time, 1 thread"
    return time.perf_counter, f"wall time, {threads} threads"


def in_turns(sides: Mapping[str, Callable[[], Any]], seconds: float, now: Clock) -> dict[str, Array]:
    """Seconds a call of each side, one number a turn: (TURNS,).

    Each side is called twice to warm up. Then `seconds` are shared by all sides and turns; a side is called at least
    once a turn, however long that takes.
    """
    share, calls, costs = seconds / (TURNS * len(sides)), dict[str, int](), dict[str, list[float]]()
    for name, side in sides.items():
        side()
        calls[name] = max(1, round(share / max(_timed(side, 1, now), 1e-6)))
        costs[name] = []
    for _ in range(TURNS):
        for name, side in sides.items():
            costs[name].append(_timed(side, calls[name], now) / calls[name])
    return {name: np.array(spent) for name, spent in costs.items()}


def _timed(side: Callable[[], Any], calls: int, now: Clock) -> float:
    begin = now()
    for _ in range(calls):
        side()
    return now() - begin


class Laps:
    """What parts of a call cost: methods of one object, wrapped from outside while they are measured."""

    def __init__(self, now: Clock) -> None:
        self.now, self.spent = now, dict[str, float]()

    def timed(self, function: Callable[..., Any], *parts: str) -> Callable[..., Any]:
        """`function`, its time added to `parts`: the first call's to the first one, and round again."""
        turn = itertools.cycle(parts)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            begin = self.now()
            result = function(*args, **kwargs)
            part = next(turn)
            self.spent[part] = self.spent.get(part, 0.0) + self.now() - begin
            return result

        return wrapped

    @contextlib.contextmanager
    def inside(self, owner: object, parts: Mapping[str, tuple[str, ...]]) -> Iterator[None]:
        """Time the methods of `owner` that `parts` names; it is as before afterwards."""
        own = {name: vars(owner).get(name) for name in parts}
        for name, labels in parts.items():
            setattr(owner, name, self.timed(getattr(owner, name), *labels))
        try:
            yield
        finally:
            for name, before in own.items():
                if before is None:
                    delattr(owner, name)
                else:
                    setattr(owner, name, before)

    def read(self) -> dict[str, float]:
        """Seconds by part since the last reading."""
        spent, self.spent = self.spent, {}
        return spent
