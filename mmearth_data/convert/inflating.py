"""Reading rows of an HDF5 array with several threads, which HDF5's own gzip filter does not do."""

from __future__ import annotations

import zlib
from concurrent.futures import Executor
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray


def read_rows(array: h5py.Dataset, start: int, stop: int, pool: Executor) -> NDArray[Any]:
    """Rows ``start`` to ``stop`` of ``array``, as ``array[start:stop]`` gives them; raises OSError where damaged.

    Where each row is a chunk of its own, compressed with gzip alone, as in the published files, its bytes are taken
    from the file as they are and inflated by ``pool``.
    """
    stop = min(stop, len(array))
    if not _is_gzip_by_row(array):
        return np.asarray(array[start:stop])
    rows = np.empty((stop - start, *array.shape[1:]), array.dtype)
    corner = (0,) * (array.ndim - 1)

    def inflate(at: int, chunk: bytes) -> None:
        rows[at] = np.frombuffer(zlib.decompress(chunk), array.dtype).reshape(array.shape[1:])

    try:
        chunks = [array.id.read_direct_chunk((row, *corner))[1] for row in range(start, stop)]
        list(pool.map(inflate, range(stop - start), chunks))
    except (OSError, RuntimeError, ValueError, zlib.error):
        # A chunk that was never written, or is damaged: HDF5 knows the fill value of the one and names the other.
        return np.asarray(array[start:stop])
    return rows


def _is_gzip_by_row(array: h5py.Dataset) -> bool:
    only_gzip = array.compression == "gzip" and array.id.get_create_plist().get_nfilters() == 1
    return bool(only_gzip and array.chunks == (1, *array.shape[1:]))
