"""Ctrl-C while a library catches everything."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress

import pytest

from flows.interruption import interruptible


def _careless_library() -> None:
    with suppress(BaseException):
        _interrupted()


def test_a_swallowed_interrupt_is_not_lost() -> None:
    stop, before = threading.Event(), signal.getsignal(signal.SIGINT)
    with interruptible(stop):
        _careless_library()
        assert stop.is_set()
    assert signal.getsignal(signal.SIGINT) is before


def _interrupted() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)


def test_an_interrupt_still_ends_the_block() -> None:
    stop = threading.Event()
    with pytest.raises(KeyboardInterrupt), interruptible(stop):
        _interrupted()
    assert stop.is_set()


def test_other_threads_may_collect_too() -> None:
    entered = threading.Event()

    def work() -> None:
        with interruptible(threading.Event()):
            entered.set()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert entered.is_set()
