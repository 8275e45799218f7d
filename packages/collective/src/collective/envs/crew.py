"""Envs in worker processes around one board in shared memory: bit-equal to envs stepped in this process.

A worker that dies or hangs is replaced, and its episodes are replayed to where they were: nothing is lost and nothing
changes. After three replacements of one worker the env it was at is named, with the episode that can be run again.
Workers leave the terminal's and the scheduler's signals to the trainer, which saves first.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import signal
import warnings
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from collective.envs.single import Array, Plan
from collective.envs.slots import Board, Slots
from rlcore.envs import failure
from rlcore.errors import QuintetError, QuintetWarning

HANG_SECONDS = 120.0  # a worker silent for longer is given up
RESTARTS = 3  # of one worker


class Crew:
    """What `Slots` does, by `count` processes; worker w has every count-th env from w on."""

    def __init__(self, plan: Plan, count: int) -> None:
        self.plan, self.restarts = plan, 0
        memory = multiprocessing.RawArray("b", Board.size(plan.num_envs, plan.horizon))
        self.board = Board(memory, plan.num_envs, plan.horizon)
        self.board.episode[:] = -1
        self.workers = [Worker(plan, memory, list(range(w, plan.num_envs, count))) for w in range(count)]
        atexit.register(self.close)  # they ignore SIGTERM: multiprocessing's own exit would wait for ever
        self._side = 0
        self._remember()
        try:
            for worker in self.workers:
                worker.start()
            self._gather("open", 0)
        except BaseException:
            self.close()
            raise

    def reset(self, side: int) -> None:
        self._do("reset", side)

    def step(self, side: int) -> None:
        self._do("step", side)

    def replay(self, side: int) -> None:
        self._do("replay", side)

    def render(self, i: int) -> Array:
        self._remember()
        worker = self.workers[i % len(self.workers)]
        worker.send("render", i)
        return np.asarray(self._answer(worker, "render", i))

    def _do(self, command: str, side: int) -> None:
        self._remember()
        self._side = side
        for worker in self.workers:
            worker.send(command, side)
        self._gather(command, side)

    def _gather(self, command: str, side: int) -> None:
        answers = [self._answer(worker, command, side) for worker in self.workers]  # all, even where the first failed
        for answer in answers:
            if isinstance(answer, QuintetError):
                raise answer

    def _remember(self) -> None:
        board = self.board
        self._before = board.episode.copy(), board.t.copy(), board.unstable.copy()

    def _answer(self, worker: Worker, command: str, argument: int) -> Any:
        """What the worker says to the command it was sent; of one that took its place, what it says to the same."""
        asked = 1
        while True:
            try:
                answers = [worker.receive() for _ in range(asked)]
                return next((answer for answer in answers if isinstance(answer, QuintetError)), answers[-1])
            except (EOFError, OSError) as error:
                self._replace(worker, error)
                again = [("replay", self._side), (command, argument)]
                again = {"open": [], "replay": again[:1]}.get(command, again)
                for order in again:
                    worker.send(*order)
                asked = 1 + len(again)  # the first is to its opening

    def _replace(self, worker: Worker, error: Exception) -> None:
        worker.kill()
        board, members = self.board, worker.members
        what = "gave no answer for too long" if isinstance(error, TimeoutError) else f"died ({worker.died})"
        at = next((i for i in members if board.busy[i]), members[0])
        env, episode = self.plan.first_env + at, int(self._before[0][at])
        if worker.restarts == RESTARTS:
            self.close()
            raise failure(self.plan.seed, env, episode, f"its worker process {what}, {RESTARTS + 1} times")
        worker.restarts += 1
        self.restarts += 1
        warnings.warn(f"the worker process of env {env} {what}: replaced", QuintetWarning, stacklevel=5)
        for array, before in zip((board.episode, board.t, board.unstable), self._before):
            array[members] = before[members]
        board.busy[members] = False
        worker.start()

    def close(self) -> None:
        """End all processes; twice is once."""
        atexit.unregister(self.close)
        for worker in self.workers:
            worker.kill()


class Worker:
    """One process and the pipe to it."""

    def __init__(self, plan: Plan, memory: Any, members: list[int]) -> None:
        self.plan, self.memory, self.members = plan, memory, members
        self.restarts, self.died = 0, ""
        self.process: Any = None
        self.pipe: Connection[Any, Any] | None = None

    def start(self) -> None:
        """It opens its envs, then answers."""
        self.pipe, theirs = multiprocessing.Pipe()
        args = (theirs, self.pipe, self.plan, self.memory, self.members)
        self.process = multiprocessing.Process(target=_work, args=args, daemon=True)
        self.process.start()
        theirs.close()

    def send(self, command: str, argument: int) -> None:
        assert self.pipe is not None, "closed"
        with contextlib.suppress(OSError):  # a dead one is found out by `receive`
            self.pipe.send((command, argument))

    def receive(self) -> Any:
        """Its answer: nothing, a picture, or what a user should be told. EOFError or OSError where it died or hangs."""
        assert self.pipe is not None, "closed"
        if not self.pipe.poll(HANG_SECONDS):
            raise TimeoutError
        return self.pipe.recv()

    def kill(self) -> None:
        if self.pipe is not None:
            self.pipe.close()
            self.pipe = None
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.died = f"exit code {self.process.exitcode}"
            self.process = None


def _work(pipe: Any, other: Any, plan: Plan, memory: Any, members: list[int]) -> None:
    """A worker's life: it ends when the trainer's end of the pipe does."""
    other.close()  # inherited by fork: kept open, it would hide the trainer's death
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(name, signal.SIG_IGN)
    slots: Slots | None = None
    command, argument = "open", 0
    with contextlib.suppress(EOFError, OSError):
        while True:
            answer: Any = None
            try:
                if slots is None:
                    slots = Slots(plan, Board(memory, plan.num_envs, plan.horizon), members)
                else:
                    answer = getattr(slots, command)(argument)
            except QuintetError as error:
                answer = error
            pipe.send(answer)
            command, argument = pipe.recv()
