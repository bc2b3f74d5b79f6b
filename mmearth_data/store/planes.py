"""Chunks decoded block by block, their shuffled bytes left apart: what a reader that only copies parts of them needs.

Blosc compresses a chunk in blocks, and of shuffled values in a block the low bytes and the high bytes by themselves
(c-blosc 1, README_CHUNK_FORMAT). Putting those together writes and reads everything once more, which whoever cuts out
of it does on the way; and a block lies in the processor's cache, where a chunk does not.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numcodecs import lz4
from numpy.typing import NDArray

from mmearth_data.store.direct import ChunkError

_HEADER = struct.Struct("<4B3I")
_LENGTH = struct.Struct("<I")
_SHUFFLED, _WHOLE, _CODEC, _LZ4 = 0b1, 0b10000, 0b11100000, 0b100000
_OTHERWISE = 0b1110
"""Flags of chunks that are not compressed, or shuffled by bits."""
_LEAST_SPLIT = 128
"""Values of the smallest blocks whose low and high bytes Blosc compresses by themselves."""


def _lz4() -> Callable[[int, int, int, int], int] | None:
    """LZ4's own function (lz4.h) from the library that numcodecs brings along; None where that hides it.

    It takes the address of what is compressed, the address for the bytes, the number of the former and the room for
    the latter, and gives how many there were, or less than 0. It needs no copy of a header, and calling it no look at
    what its arguments are, which for the many blocks of a store is a tenth of the loader's time.
    """
    function = getattr(ctypes.CDLL(lz4.__file__), "LZ4_decompress_safe", None)
    if function is not None:
        function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int)
    return function


_decompress = _lz4()


class Block(NamedTuple):
    """Values ``first`` to ``first + values`` of a chunk, as they lie in memory.

    They are whole ones at address ``low``, or where ``high`` is not 0 their low bytes are there and their high bytes
    at ``high``.
    """

    first: int
    values: int
    low: int
    high: int


def blocks(
    content: NDArray[np.uint8], scratch: NDArray[np.uint8], values: int, itemsize: int, run: int
) -> Iterator[Block] | None:
    """The blocks of a chunk of ``values`` values of ``itemsize`` bytes, each a multiple of ``run`` of them.

    None where they cannot be had so, as where the chunk's values are of another size.

    A block is valid until the next one, as long as nobody writes to ``content`` and ``scratch``, which has room for a
    chunk. Raises ChunkError where the chunk is not what was written.
    """
    if len(content) < _HEADER.size:
        raise ChunkError(f"it is shorter than Blosc's header of {_HEADER.size} bytes")
    _, _, flags, typesize, size, block_size, _ = _HEADER.unpack_from(content.data)
    if flags & _OTHERWISE or flags & _CODEC != _LZ4 or (typesize, flags & _SHUFFLED) not in ((1, 0), (2, 1)):
        return None
    if typesize != itemsize or not block_size or block_size % (run * typesize) or _decompress is None:
        return None
    if size != values * typesize:
        raise ChunkError(f"it holds {size} bytes of values where {values * typesize} belong")
    split = not flags & _WHOLE and block_size // typesize >= _LEAST_SPLIT
    return _decoded(content, scratch, size, block_size, typesize, typesize if split else 1)


def _decoded(
    content: NDArray[np.uint8], scratch: NDArray[np.uint8], size: int, block_size: int, typesize: int, streams: int
) -> Iterator[Block]:
    assert _decompress is not None
    stored, length_at = content.data, _LENGTH.unpack_from
    source, target = content.ctypes.data, scratch.ctypes.data
    try:
        for number, start in enumerate(range(0, size, block_size)):
            stop = min(size, start + block_size)
            # The last block is compressed whole where it is shorter than the others.
            parts = streams if stop - start == block_size else 1
            part = (stop - start) // parts
            (at,) = length_at(stored, _HEADER.size + _LENGTH.size * number)
            addresses = []
            for stream in range(parts):
                (length,) = length_at(stored, at)
                begin, at = at + _LENGTH.size, at + _LENGTH.size + length
                if at > len(stored):
                    raise ChunkError("it ends before its blocks do")
                if length == part:  # it did not shrink, and lies there as it is
                    addresses.append(source + begin)
                    continue
                addresses.append(target + stream * part)
                if _decompress(source + begin, target + stream * part, length, part) != part:
                    raise ChunkError("a block of it is not what LZ4 made")
            high = 0 if typesize == 1 else addresses[-1] + (part // 2 if parts == 1 else 0)
            yield Block(start // typesize, (stop - start) // typesize, addresses[0], high)
    except struct.error:
        raise ChunkError("it ends before its blocks do") from None
