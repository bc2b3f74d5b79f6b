"""Reading rows of an HDF5 array with several threads, which HDF5's own gzip filter does not do."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

_Result = TypeVar("_Result")


def each_row(
    array: h5py.Dataset, start: int, stop: int, pool: Executor, work: Callable[[int, NDArray[Any]], _Result]
) -> list[_Result]:
    """``work`` of each row from ``start`` to ``stop``, numbered from 0, by ``pool``; raises OSError where damaged.

    Where each row is a chunk of its own, compressed with gzip alone, as in the published files, its bytes are taken
    from the file as they are, inflated and worked on while the caches hold them.
    """
    stop = min(stop, len(array))
    if not _is_gzip_by_row(array):
        return list(pool.map(work, range(stop - start), np.asarray(array[start:stop])))
    shape, dtype, corner = array.shape[1:], array.dtype, (0,) * (array.ndim - 1)
    size = math.prod(shape) * dtype.itemsize

    def inflate(at: int) -> _Result:
        try:
            _, chunk = array.id.read_direct_chunk((start + at, *corner))
            content = zlib.decompress(chunk)
        except (OSError, RuntimeError, ValueError, zlib.error):
            # A chunk that was never written, or is damaged: HDF5 knows the fill value of the one and names the other.
            return work(at, np.asarray(array[start + at]))
        if len(content) != size:
            # HDF5 would give what happens to be in memory for what is missing.
            raise OSError(f"row {start + at} holds {len(content)} bytes of values where {size} belong")
        return work(at, np.frombuffer(content, dtype).reshape(shape))

    return list(pool.map(inflate, range(stop - start)))


def read_rows(array: h5py.Dataset, start: int, stop: int, pool: Executor) -> NDArray[Any]:
    """Rows ``start`` to ``stop`` of ``array``, as ``array[start:stop]`` gives them; raises OSError where damaged."""
    rows = np.empty((max(min(stop, len(array)) - start, 0), *array.shape[1:]), array.dtype)
    each_row(array, start, stop, pool, rows.__setitem__)
    return rows


def _is_gzip_by_row(array: h5py.Dataset) -> bool:
    only_gzip = array.compression == "gzip" and array.id.get_create_plist().get_nfilters() == 1
    return bool(only_gzip and array.chunks == (1, *array.shape[1:]))
