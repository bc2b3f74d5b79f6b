"""Chunks of shards in object storage: one GET for each run of chunks that is read, however many they are.

A tile group of training is one range of a shard; a pass over a whole shard gets it at once. Indices are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmearth_data.store.direct import ChunkError, ChunkReader, place_of
from mmearth_data.store.objects import ObjectPath


class RangedReader:
    """Reads the chunks of one array's shards from object storage. Safe to use from several threads at once."""

    def __init__(self, reader: ChunkReader) -> None:
        self._reader = reader
        self._indices: dict[ObjectPath, NDArray[np.uint64]] = {}

    def opened(self, file: ObjectPath, size: int, first: int, last: int) -> Callable[[int, NDArray[Any]], None]:
        """Get chunks ``first`` to ``last`` of ``file``, an object of ``size`` bytes, at once.

        Returns a function that decodes one of them, given by its number, into an array of its size and dtype. Either
        raises ChunkError where a checksum or a length says that the object is not what was written.
        """
        places = [(0, size)]
        if self._reader.index_bytes:
            index = self._index(file, size)
            places = [place_of(index, chunk) for chunk in range(first, last + 1)]
        start = min(offset for offset, _ in places)
        stop = max(offset + length for offset, length in places)
        content = _bytes(file, start, stop)

        def decode(chunk: int, out: NDArray[Any]) -> None:
            offset, length = places[chunk - first]
            self._reader.decode_into(content[offset - start : offset - start + length], out)

        return decode

    def _index(self, file: ObjectPath, size: int) -> NDArray[np.uint64]:
        index = self._indices.get(file)
        if index is None:
            length = self._reader.index_bytes
            if size < length:
                raise ChunkError(f"the object is shorter than its index of {length} bytes")
            index = self._indices[file] = self._reader.index(_bytes(file, size - length, size))
        return index


def _bytes(file: ObjectPath, start: int, stop: int) -> NDArray[np.uint8]:
    content = np.frombuffer(file.read_range(start, stop), dtype=np.uint8)
    if len(content) != stop - start:
        raise ChunkError("the object ends before the chunk does")
    return content
