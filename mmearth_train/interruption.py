"""Stopping between two steps when the system asks for it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ASKING = signal.SIGTERM, signal.SIGINT
"""The signals that ask a run to stop."""


def ended_by(number: int) -> KeyboardInterrupt | SystemExit:
    """What to raise when a run has stopped as signal ``number`` asked: SIGINT is an error, SIGTERM is not."""
    if number == signal.SIGINT:
        return KeyboardInterrupt("the same command with --resume carries on from here")
    return SystemExit(0)


@contextmanager
def held_back() -> Iterator[None]:
    """Processes that are started meanwhile take no signal that asks to stop, until they listen for it themselves."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Stop:
    """Set by SIGTERM or SIGINT, so that the step under way is finished and saved; a second signal acts at once."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen while the context lasts, also for what was ``held_back``; only the main thread may."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in ASKING}

        def stop(number: int, _: object) -> None:
            self.signal = number
            signal.signal(number, before[signal.Signals(number)])

        for number in before:
            signal.signal(number, stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKING)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
