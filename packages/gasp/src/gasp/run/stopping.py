"""SIGTERM and Ctrl-C ask a collection to stop after the episode it is at; a second Ctrl-C stops it at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from rlcore.errors import Interrupted, Preempted


class Stop:
    """Whether, and how, somebody asked."""

    asked: signal.Signals | None = None

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.asked == signal.SIGINT:
            os.write(2, b"\nstopped at once; what was saved is untouched\n")
            os._exit(Interrupted.exit_code)
        self.asked = signal.Signals(number)
        os.write(2, f"\n{self.asked.name}: stopping after this episode\n".encode())

    def say(self, what: str) -> None:
        """Raises: Preempted or Interrupted with `what` if somebody asked."""
        if self.asked is not None:
            raise (Interrupted if self.asked == signal.SIGINT else Preempted)(what)


@contextlib.contextmanager
def stoppable() -> Iterator[Stop]:
    """Listen to the signals while inside."""
    stop = Stop()
    main = threading.current_thread() is threading.main_thread()  # Python lets no other thread handle signals
    numbers = (signal.SIGTERM, signal.SIGINT) if main else ()
    before = {number: signal.signal(number, stop._ask) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
