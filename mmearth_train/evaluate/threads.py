"""Many small computations side by side, each on one thread."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


@contextmanager
def single_threaded_workers() -> Iterator[ThreadPoolExecutor]:
    """A pool with a worker for each core, in which torch uses one thread.

    The matrices of an evaluation are too small for several threads to share; and so no result depends on how many
    cores there are.
    """
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)
