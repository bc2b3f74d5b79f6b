"""Ctrl-C that cannot get lost: whoever swallows the exception, the run knows that it is to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType


@contextmanager
def interruptible(stop: Event) -> Iterator[None]:
    """Let Ctrl-C set ``stop`` in the block before it raises KeyboardInterrupt, which a library at work may catch.

    Only the main thread of a process gets signals; elsewhere nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        stop.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
