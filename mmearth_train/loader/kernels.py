"""Crop, flip and, where asked for, scale tiles straight into their places in batches: one pass over the pixels.

Compiled by numba, once per dtype, and kept on disk. They release the interpreter lock. ``source`` is (rows, bands, H,
W), C-contiguous; tile ``rows[k]`` goes to memory address ``target[k]``, which has room for (bands, crop, crop) values,
from ``corner[k]`` (y, x), turned over where ``flip[k]`` (vertical, horizontal) is 1. Targets are addresses because the
tiles of one decoded group belong to a dozen batches, and a call for each batch costs as much as the copying does.

Values that are wider than stored are made band by band in a buffer that the cache holds and streamed from there to the
batch, past the caches: it is read only when a dozen batches later it is full, and a plain store would first fetch the
line that it overwrites, which took half of the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import carray, njit, types  # type: ignore[attr-defined]  # carray is public, only untyped
from numba.extending import intrinsic
from numpy.typing import NDArray

Int = NDArray[np.int64]

_LINE_BYTES = 64


def _pointer(_: Any, address: Any, like: Any) -> Any:
    """Typing and code of ``pointer(address, like)``: the address as a pointer to values of ``like``'s dtype."""
    kind = types.CPointer(like.dtype)  # type: ignore[no-untyped-call]

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(kind))

    return kind(address, like), generate


def _stream_line(_: Any, to: Any, source: Any) -> Any:
    """Typing and code of ``stream_line(to, source)``: copy a cache line between addresses; ``to`` is one's start."""

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        line = ir.VectorType(ir.IntType(8), _LINE_BYTES).as_pointer()
        value = builder.load(builder.inttoptr(arguments[1], line), align=1)
        store = builder.store(value, builder.inttoptr(arguments[0], line), align=_LINE_BYTES)
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(to, source), generate


def _fence(_: Any) -> Any:
    """Typing and code of ``fence()``: what was streamed is seen before whatever is written next."""

    def generate(context: Any, builder: Any, *_: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


def _start(tile: int, bands: int, band: int, height: int, width: int, y: int, x: int) -> int:
    """Where pixel (y, x) of a band lies in the flat source."""
    return ((tile * bands + band) * height + y) * width + x


_compiled = njit(nogil=True, cache=True)
pointer: Callable[..., Any] = intrinsic(_pointer)
start_of: Callable[..., Any] = _compiled(_start)
stream_line: Callable[..., None] = intrinsic(_stream_line)
fence: Callable[..., None] = intrinsic(_fence)


def _stream(band: NDArray[Any], target: int) -> None:
    """Copy ``band`` (flat) to the address ``target``, past the caches where that is the start of a cache line."""
    lines = band.nbytes // _LINE_BYTES if target % _LINE_BYTES == 0 else 0
    source = band.ctypes.data
    for at in range(0, lines * _LINE_BYTES, _LINE_BYTES):
        stream_line(target + at, source + at)
    to = carray(pointer(target, band), len(band))
    for i in range(lines * _LINE_BYTES // band.itemsize, len(band)):
        to[i] = band[i]


stream: Callable[..., None] = _compiled(_stream)

# Below, ``last - j`` is unsigned: numba then leaves out the check for an index counted from the end, without which the
# compiler finds no vector loop, and a tile that is turned over costs seven times one that is not.


def _copy(source: NDArray[Any], rows: Int, corner: Int, flip: Int, target: Int, size: int) -> None:
    """Values as they are, of the same dtype."""
    bands, height, width = source.shape[1:]
    values, last = source.reshape(-1), np.uint64(size - 1)
    for k in range(len(rows)):
        tile = carray(pointer(target[k], source), (bands, size, size))
        for band in range(bands):
            for i in range(size):
                y = corner[k, 0] + (size - 1 - i if flip[k, 0] else i)
                start = start_of(rows[k], bands, band, height, width, y, corner[k, 1])
                line, to = values[start : start + size], tile[band, i]
                if flip[k, 1]:
                    for j in range(np.uint64(size)):
                        to[j] = line[last - j]
                else:
                    for j in range(np.uint64(size)):
                        to[j] = line[j]


def _scale(
    source: NDArray[Any],
    rows: Int,
    corner: Int,
    flip: Int,
    target: Int,
    size: int,
    mean: NDArray[np.float32],
    std: NDArray[np.float32],
    nodata: Any,
) -> None:
    """(value − mean) / std in float32, NaN for ``nodata``; ``mean`` and ``std`` are (len(rows), bands)."""
    bands, height, width = source.shape[1:]
    values, last, missing = source.reshape(-1), np.uint64(size - 1), np.float32(np.nan)
    made = np.empty(size * size, mean.dtype)
    lines = made.reshape(size, size)
    for k in range(len(rows)):
        for band in range(bands):
            m, factor = mean[k, band], np.float32(1) / std[k, band]
            for i in range(size):
                y = corner[k, 0] + (size - 1 - i if flip[k, 0] else i)
                start = start_of(rows[k], bands, band, height, width, y, corner[k, 1])
                line, to = values[start : start + size], lines[i]
                if flip[k, 1]:
                    for j in range(np.uint64(size)):
                        value = line[last - j]
                        scaled = (np.float32(value) - m) * factor
                        to[j] = missing if value == nodata else scaled
                else:
                    for j in range(np.uint64(size)):
                        value = line[j]
                        scaled = (np.float32(value) - m) * factor
                        to[j] = missing if value == nodata else scaled
            stream(made, target[k] + band * made.nbytes)
    fence()


def _look_up(source: NDArray[np.uint8], rows: Int, corner: Int, flip: Int, target: Int, size: int, table: Int) -> None:
    """``table[value]`` of each value."""
    bands, height, width = source.shape[1:]
    values, last = source.reshape(-1), np.uint64(size - 1)
    made = np.empty(size * size, table.dtype)
    lines = made.reshape(size, size)
    for k in range(len(rows)):
        for band in range(bands):
            for i in range(size):
                y = corner[k, 0] + (size - 1 - i if flip[k, 0] else i)
                start = start_of(rows[k], bands, band, height, width, y, corner[k, 1])
                line, to = values[start : start + size], lines[i]
                if flip[k, 1]:
                    for j in range(np.uint64(size)):
                        to[j] = table[line[last - j]]
                else:
                    for j in range(np.uint64(size)):
                        to[j] = table[line[j]]
            stream(made, target[k] + band * made.nbytes)
    fence()


def _place(source: NDArray[np.uint8], rows: Int, target: Int) -> None:
    """The bytes of ``source[rows[k]]``, which is (rows, bytes), as they are."""
    for k in range(len(rows)):
        to = carray(pointer(target[k], source), source.shape[1])
        for j in range(source.shape[1]):
            to[j] = source[rows[k], j]


copy: Callable[..., None] = _compiled(_copy)
scale: Callable[..., None] = _compiled(_scale)
look_up: Callable[..., None] = _compiled(_look_up)
place: Callable[..., None] = _compiled(_place)
