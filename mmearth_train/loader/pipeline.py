"""Threads that fill batches ahead of whoever takes them, and never further ahead than a bound."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from mmearth_train.loader.order import Piece
from mmearth_train.loader.ring import Ring, Slot

Fill = Callable[[Piece, Callable[[int], Slot]], None]
"""Decodes a piece and writes its rows into the slots of the batches that it belongs to."""


class Pipeline:
    """One pass over ``pieces`` (in the order they are needed) by ``threads`` threads.

    ``samples`` is the number of samples of each batch. Batches are at most ``depth`` ahead of the consumer, which must
    be more than any piece spans: then whatever the consumer waits for is never behind a piece that waits for it.
    """

    def __init__(
        self, pieces: Sequence[Piece], samples: Sequence[int], ring: Ring, fill: Fill, *, depth: int, threads: int
    ) -> None:
        self._pieces, self._samples, self._ring, self._fill, self._depth = pieces, samples, ring, fill, depth
        self._next = 0
        self._taken = 0
        self._closed = False
        self._error: BaseException | None = None
        self._due = list(samples)
        self._slots: dict[int, Slot] = {}
        self._full: dict[int, Slot] = {}
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._work, name=f"mmearth-loader-{number}", daemon=True)
            for number in range(min(threads, len(pieces)))
        ]

    def batches(self, first: int) -> Iterator[dict[str, Tensor]]:
        """The batches from ``first`` on, in order; an error of a thread is raised where its batch would have come."""
        self._taken = first
        for thread in self._threads:
            thread.start()
        try:
            for number in range(first, len(self._samples)):
                yield self._take(number)
                with self._changed:
                    self._taken = number + 1
                    self._changed.notify_all()
        finally:
            with self._changed:
                self._closed = True
                self._changed.notify_all()
            for thread in self._threads:
                thread.join()

    def _take(self, number: int) -> dict[str, Tensor]:
        samples = self._samples[number]
        if not samples:
            return self._ring.batch(self._ring.take(), 0)
        with self._changed:
            self._changed.wait_for(lambda: number in self._full or self._error)
            slot = self._full.pop(number, None)
        if slot is None:
            assert self._error is not None
            raise self._error
        return self._ring.batch(slot, samples)

    def _work(self) -> None:
        try:
            while (piece := self._next_piece()) is not None:
                self._fill(piece, self._slot)
                self._done(piece)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised by the consumer
            with self._changed:
                self._error = self._error or error
                self._changed.notify_all()

    def _next_piece(self) -> Piece | None:
        with self._changed:
            if self._next == len(self._pieces):
                return None
            piece = self._pieces[self._next]
            self._next += 1
            self._changed.wait_for(lambda: self._closed or self._error or piece.last < self._taken + self._depth)
            return None if self._closed or self._error else piece

    def _slot(self, batch: int) -> Slot:
        with self._changed:
            if batch not in self._slots:
                self._slots[batch] = self._ring.take()
            return self._slots[batch]

    def _done(self, piece: Piece) -> None:
        with self._changed:
            for batch, part in piece.parts():
                self._due[batch] -= part.stop - part.start
                if not self._due[batch]:
                    self._full[batch] = self._slots.pop(batch)
            self._changed.notify_all()
