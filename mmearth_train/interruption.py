"""Stopping between two steps when the system asks for it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

ASKING = signal.SIGTERM, signal.SIGINT
"""The signals that ask a run to stop."""
_WATCH_SECONDS = 0.2


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

    def follow_parent(self) -> None:
        """Stop as for SIGTERM once the process that started this one is gone."""
        parent = os.getppid()

        def watch() -> None:
            while os.getppid() == parent:
                time.sleep(_WATCH_SECONDS)
            self.signal = self.signal or signal.SIGTERM

        threading.Thread(target=watch, daemon=True).start()

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
