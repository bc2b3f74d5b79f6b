"""Crop, flip and, where asked for, scale tiles straight into their places in batches.

Compiled by numba, once per dtype, and kept on disk. They release the interpreter lock. What they read is a block of
decoded images, one band of one tile each, of ``side`` × ``side`` pixels: whole values at memory address ``low``, or
where ``high`` is not 0 the low bytes there and the high bytes at ``high``, as a byte shuffle leaves them. ``first``
counts the images of the group before the block; the group's tiles have ``bands`` images each. Tile t goes to memory
address ``target[k]``, k = ``place[t]`` (none: -1), which has room for (bands, crop, crop) values, from ``corner[k]``
(y, x), turned over where ``flip[k]`` (vertical, horizontal) is 1. Targets are addresses because the tiles of one group
belong to a dozen batches, and a call for each batch costs as much as the copying does.

Each image passes through buffers that the cache holds. Its rows are first laid there in one long run, because a
vector loop over a row of 56 pixels takes longer to start and to end than to run; backwards, where it is turned over
sideways. Then they are cut to the crop, and streamed to the batch past the caches: that is read only when a dozen
batches later it is full, and a plain store would first fetch the line that it overwrites.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import carray, types  # type: ignore[attr-defined]  # carray is public, only untyped
from numba.extending import intrinsic
from numpy.typing import NDArray

from mmearth_data.compiled import compiled

Int = NDArray[np.int64]

_LINE_BYTES = 64
_WORD = np.empty(0, dtype=np.uint16)
_BYTE = np.empty(0, dtype=np.uint8)


def _pointer(_: Any, address: Any, like: Any) -> Any:
    """Typing and code of ``pointer(address, like)``: the address as a pointer to values of ``like``'s dtype."""
    kind = types.CPointer(like.dtype)  # type: ignore[no-untyped-call]

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(kind))

    return kind(address, like), generate


def _copy_line(builder: Any, arguments: Any, align: int) -> Any:
    """Code that copies 64 bytes to one address, a multiple of ``align``, from another; gives the store."""
    line = ir.VectorType(ir.IntType(8), _LINE_BYTES).as_pointer()
    value = builder.load(builder.inttoptr(arguments[1], line), align=1)
    return builder.store(value, builder.inttoptr(arguments[0], line), align=align)


def _move_line(_: Any, to: Any, source: Any) -> Any:
    """Typing and code of ``move_line(to, source)``: copy 64 bytes between addresses."""

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        _copy_line(builder, arguments, 1)
        return context.get_dummy_value()

    return types.void(to, source), generate


def _stream_line(_: Any, to: Any, source: Any) -> Any:
    """Typing and code of ``stream_line(to, source)``: copy a cache line between addresses; ``to`` is one's start."""

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        store = _copy_line(builder, arguments, _LINE_BYTES)
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(to, source), generate


def _fence(_: Any) -> Any:
    """Typing and code of ``fence()``: what was streamed is seen before whatever is written next."""

    def generate(context: Any, builder: Any, *_: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


pointer: Callable[..., Any] = intrinsic(_pointer)
move_line: Callable[..., None] = intrinsic(_move_line)
stream_line: Callable[..., None] = intrinsic(_stream_line)
fence: Callable[..., None] = intrinsic(_fence)

# Below, ``last - j`` is unsigned: numba then leaves out the check for an index counted from the end, without which the
# compiler finds no vector loop, and a tile that is turned over costs seven times one that is not.


def _lay(run: NDArray[Any], count: int, low: int, high: int, start: int, backwards: int) -> None:
    """Write values ``start`` to ``start + count`` of a block into ``run``, the last one first where ``backwards``."""
    last, number = np.uint64(count - 1), np.uint64(count)
    if high:
        words = carray(pointer(run.ctypes.data, _WORD), count)
        lows, highs = carray(pointer(low + start, _BYTE), count), carray(pointer(high + start, _BYTE), count)
        if backwards:
            for j in range(number):
                words[j] = np.uint16(lows[last - j]) | (np.uint16(highs[last - j]) << np.uint16(8))
        else:
            for j in range(number):
                words[j] = np.uint16(lows[j]) | (np.uint16(highs[j]) << np.uint16(8))
    else:
        values = carray(pointer(low + start * run.itemsize, run), count)
        if backwards:
            for j in range(number):
                run[j] = values[last - j]
        else:
            for j in range(number):
                run[j] = values[j]


def _cut(run: NDArray[Any], side: int, size: int, column: int, upwards: int, made: NDArray[Any]) -> None:
    """Write ``size`` columns from ``column`` on of the rows of ``run`` into ``made``, the last row first: ``upwards``.

    Whole lines are copied: what is too much of one row the next one overwrites. Either has room for a line at its end.
    """
    row_bytes, step = size * run.itemsize, side * run.itemsize
    source, to = run.ctypes.data + column * run.itemsize, made.ctypes.data
    if upwards:
        source, step = source + (size - 1) * step, -step
    for row in range(size):
        for at in range(0, row_bytes, _LINE_BYTES):
            move_line(to + row * row_bytes + at, source + row * step + at)


def _stream(made: NDArray[Any], count: int, target: int) -> None:
    """Copy ``count`` values to the address ``target``, past the caches where that is the start of a cache line."""
    lines = count * made.itemsize // _LINE_BYTES if target % _LINE_BYTES == 0 else 0
    source = made.ctypes.data
    for at in range(0, lines * _LINE_BYTES, _LINE_BYTES):
        stream_line(target + at, source + at)
    to = carray(pointer(target, made), count)
    for i in range(lines * _LINE_BYTES // made.itemsize, count):
        to[i] = made[i]


def _buffer(count: int, like: NDArray[Any]) -> NDArray[Any]:
    """Room for ``count`` values and a line."""
    return np.empty(count + _LINE_BYTES, like.dtype)


lay: Callable[..., None] = compiled(_lay)
cut: Callable[..., None] = compiled(_cut)
stream: Callable[..., None] = compiled(_stream)
buffer: Callable[..., NDArray[Any]] = compiled(_buffer)


def _put(run: NDArray[Any], side: int, size: int, x: int, flip: Int, made: NDArray[Any], target: int) -> None:
    """Bring an image to the address ``target`` from its rows, laid backwards where it is turned over sideways."""
    column = side - size - x if flip[1] else x
    cut(run, side, size, column, flip[0] != flip[1], made)
    stream(made, size * size, target)


put: Callable[..., None] = compiled(_put)


def _copy(
    low: int,
    high: int,
    first: int,
    images: int,
    side: int,
    bands: int,
    place: Int,
    corner: Int,
    flip: Int,
    target: Int,
    size: int,
    like: NDArray[Any],
) -> None:
    """Values as they are, of ``like``'s dtype."""
    count = size * side
    run, made = buffer(count, like), buffer(size * size, like)
    for image in range(images):
        k, band = place[(first + image) // bands], (first + image) % bands
        if k < 0:
            continue
        lay(run, count, low, high, (image * side + corner[k, 0]) * side, flip[k, 1])
        put(run, side, size, corner[k, 1], flip[k], made, target[k] + band * size * size * like.itemsize)
    fence()


def _scale(
    low: int,
    high: int,
    first: int,
    images: int,
    side: int,
    bands: int,
    place: Int,
    corner: Int,
    flip: Int,
    target: Int,
    size: int,
    like: NDArray[Any],
    mean: NDArray[np.float32],
    std: NDArray[np.float32],
    nodata: Any,
) -> None:
    """(value − mean) / std in float32, NaN for ``nodata``; ``mean`` and ``std`` are (tiles that are placed, bands)."""
    count, missing = size * side, np.float32(np.nan)
    run, scaled, made = buffer(count, like), buffer(count, mean), buffer(size * size, mean)
    for image in range(images):
        k, band = place[(first + image) // bands], (first + image) % bands
        if k < 0:
            continue
        m, factor = mean[k, band], np.float32(1) / std[k, band]
        lay(run, count, low, high, (image * side + corner[k, 0]) * side, flip[k, 1])
        for j in range(np.uint64(count)):
            value = run[j]
            number = (np.float32(value) - m) * factor
            scaled[j] = missing if value == nodata else number
        put(scaled, side, size, corner[k, 1], flip[k], made, target[k] + band * size * size * made.itemsize)
    fence()


def _look_up(
    low: int,
    high: int,
    first: int,
    images: int,
    side: int,
    bands: int,
    place: Int,
    corner: Int,
    flip: Int,
    target: Int,
    size: int,
    like: NDArray[Any],
    table: Int,
) -> None:
    """``table[value]`` of each value."""
    count = size * side
    run, found, made = buffer(count, like), buffer(count, table), buffer(size * size, table)
    for image in range(images):
        k, band = place[(first + image) // bands], (first + image) % bands
        if k < 0:
            continue
        lay(run, count, low, high, (image * side + corner[k, 0]) * side, flip[k, 1])
        for j in range(np.uint64(count)):
            found[j] = table[run[j]]
        put(found, side, size, corner[k, 1], flip[k], made, target[k] + band * size * size * made.itemsize)
    fence()


def _place(source: NDArray[np.uint8], rows: Int, target: Int) -> None:
    """The bytes of ``source[rows[k]]``, which is (rows, bytes), as they are."""
    for k in range(len(rows)):
        to = carray(pointer(target[k], source), source.shape[1])
        for j in range(source.shape[1]):
            to[j] = source[rows[k], j]


copy: Callable[..., None] = compiled(_copy)
scale: Callable[..., None] = compiled(_scale)
look_up: Callable[..., None] = compiled(_look_up)
place: Callable[..., None] = compiled(_place)
