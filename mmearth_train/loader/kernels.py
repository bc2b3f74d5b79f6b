"""Crop, flip and, where asked for, scale tiles straight into their places in batches.

Compiled by numba, once per dtype, and kept on disk. They release the interpreter lock. What they read is a block of
decoded images, one band of one tile each, of ``side`` × ``side`` pixels: whole values at memory address ``low``, or
where ``high`` is not 0 the low bytes there and the high bytes at ``high``, as a byte shuffle leaves them. ``first``
counts the images of the group before the block; the group's tiles have ``bands`` images each. Tile t goes to memory
address ``target[k]``, k = ``place[t]`` (none: -1), which has room for (bands, crop, crop) values, from ``corner[k]``
(y, x), turned over where ``flip[k]`` (vertical, horizontal) is 1. Targets are addresses because the tiles of one group
belong to a dozen batches, and a call for each batch costs as much as the copying does.

Each image is first cut out into a buffer that the cache holds, a few dozen values at a time whatever their width: a
loop over a row of 56 pixels takes longer to start and to end than to run. It is streamed to the batch past the caches
from there: the batch is read only when a dozen others later it is full, and a plain store would first fetch the line
that it overwrites.
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
_RUN = 32
"""Values that are cut out at a time; narrower crops are cut value by value."""
_WORD = np.empty(0, dtype=np.uint16)
_BYTE = np.empty(0, dtype=np.uint8)
_NUMBER = np.empty(0, dtype=np.float32)


def _pointer(_: Any, address: Any, like: Any) -> Any:
    """Typing and code of ``pointer(address, like)``: the address as a pointer to values of ``like``'s dtype."""
    kind = types.CPointer(like.dtype)  # type: ignore[no-untyped-call]

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(kind))

    return kind(address, like), generate


def _at(builder: Any, address: Any, bits: int, count: int) -> Any:
    """Code that makes an address one of ``count`` values of ``bits`` bits."""
    return builder.inttoptr(address, ir.VectorType(ir.IntType(bits), count).as_pointer())


def _order(indices: list[int]) -> Any:
    return ir.Constant(ir.VectorType(ir.IntType(32), len(indices)), indices)


def _move_whole(backwards: bool) -> Any:
    """Typing and code of ``move(to, source, like)``: copy a run of ``like``'s values between addresses."""

    def typing(_: Any, to: Any, source: Any, like: Any) -> Any:
        bits = like.dtype.bitwidth
        order = [*range(_RUN)][:: -1 if backwards else 1]

        def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
            values = builder.load(_at(builder, arguments[1], bits, _RUN), align=1)
            values = builder.shuffle_vector(values, values, _order(order))
            builder.store(values, _at(builder, arguments[0], bits, _RUN), align=1)
            return context.get_dummy_value()

        return types.void(to, source, like), generate

    return typing


def _move_joined(backwards: bool) -> Any:
    """Typing and code of ``move(to, low, high)``: write the words whose low and high bytes lie at two addresses."""

    def typing(_: Any, to: Any, low: Any, high: Any) -> Any:
        order = [*range(_RUN)][:: -1 if backwards else 1]
        pairs = [half for value in order for half in (value, _RUN + value)]

        def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
            lows, highs = (builder.load(_at(builder, arguments[n], 8, _RUN), align=1) for n in (1, 2))
            words = builder.shuffle_vector(lows, highs, _order(pairs))
            builder.store(words, _at(builder, arguments[0], 8, 2 * _RUN), align=1)
            return context.get_dummy_value()

        return types.void(to, low, high), generate

    return typing


def _past_caches(builder: Any, line: Any, to: Any) -> None:
    """Code that writes 64 bytes to an address that is a cache line's start, and leaves the caches as they are."""
    store = builder.store(line, builder.inttoptr(to, line.type.as_pointer()), align=_LINE_BYTES)
    store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))


def _stream_line(_: Any, to: Any, source: Any) -> Any:
    """Typing and code of ``stream_line(to, source)``: copy a cache line between addresses; ``to`` is one's start."""

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        _past_caches(builder, builder.load(_at(builder, arguments[1], 8, _LINE_BYTES), align=1), arguments[0])
        return context.get_dummy_value()

    return types.void(to, source), generate


def _scale_line(_: Any, to: Any, source: Any, mean: Any, factor: Any, nodata: Any) -> Any:
    """Typing and code of ``scale_line(to, source, mean, factor, nodata)``: write a cache line, as ``_stream_scaled``.

    The line holds 16 numbers; ``source`` is the address of as many values of ``nodata``'s dtype.
    """
    count, integer = _LINE_BYTES // 4, isinstance(nodata, types.Integer)
    if not integer and nodata != types.float32:
        return None

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        kind, numbers = context.get_value_type(nodata), ir.VectorType(ir.FloatType(), count)

        def all_of(value: Any) -> Any:
            anything = ir.Constant(ir.VectorType(value.type, count), ir.Undefined)
            one = builder.insert_element(anything, value, ir.Constant(ir.IntType(32), 0))
            return builder.shuffle_vector(one, anything, _order([0] * count))

        pointer = builder.inttoptr(arguments[1], ir.VectorType(kind, count).as_pointer())
        values, absent = builder.load(pointer, align=1), all_of(arguments[4])
        if integer:
            missing = builder.icmp_unsigned("==", values, absent)
            values = (builder.sitofp if nodata.signed else builder.uitofp)(values, numbers)
        else:
            missing = builder.fcmp_ordered("==", values, absent)
        scaled = builder.fmul(builder.fsub(values, all_of(arguments[2])), all_of(arguments[3]))
        no_number = ir.Constant(numbers, [float("nan")] * count)
        _past_caches(builder, builder.select(missing, no_number, scaled), arguments[0])
        return context.get_dummy_value()

    return types.void(to, source, mean, factor, nodata), generate


def _fence(_: Any) -> Any:
    """Typing and code of ``fence()``: what was streamed is seen before whatever is written next."""

    def generate(context: Any, builder: Any, *_: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


pointer: Callable[..., Any] = intrinsic(_pointer)
move: Callable[..., None] = intrinsic(_move_whole(backwards=False))
move_backwards: Callable[..., None] = intrinsic(_move_whole(backwards=True))
join: Callable[..., None] = intrinsic(_move_joined(backwards=False))
join_backwards: Callable[..., None] = intrinsic(_move_joined(backwards=True))
stream_line: Callable[..., None] = intrinsic(_stream_line)
scale_line: Callable[..., None] = intrinsic(_scale_line)
fence: Callable[..., None] = intrinsic(_fence)


def _cut_run(to: int, low: int, high: int, at: int, backwards: int, like: NDArray[Any]) -> None:
    """Write a run of values from number ``at`` of a block on to the address ``to``."""
    if high and backwards:
        join_backwards(to, low + at, high + at)
    elif high:
        join(to, low + at, high + at)
    elif backwards:
        move_backwards(to, low + at * like.itemsize, like)
    else:
        move(to, low + at * like.itemsize, like)


def _cut_value(to: int, low: int, high: int, at: int, like: NDArray[Any]) -> None:
    """Write value number ``at`` of a block to the address ``to``."""
    if high:
        low_byte, high_byte = carray(pointer(low + at, _BYTE), 1)[0], carray(pointer(high + at, _BYTE), 1)[0]
        carray(pointer(to, _WORD), 1)[0] = np.uint16(low_byte) | (np.uint16(high_byte) << np.uint16(8))
    else:
        carray(pointer(to, like), 1)[0] = carray(pointer(low + at * like.itemsize, like), 1)[0]


def _cut(made: NDArray[Any], size: int, low: int, high: int, start: int, side: int, upwards: int, back: int) -> None:
    """Write the ``size`` × ``size`` values of an image from number ``start`` of a block on into ``made``.

    The last row comes first where ``upwards``, the last value of each row where ``back``.
    """
    value_bytes = made.itemsize
    step = -size * value_bytes if upwards else size * value_bytes
    first = made.ctypes.data + ((size - 1) * size * value_bytes if upwards else 0)
    for row in range(size):
        to, source = first + row * step, start + row * side
        if size < _RUN:
            for at in range(size):
                cut_value(to + at * value_bytes, low, high, source + (size - 1 - at if back else at), made)
            continue
        for begin in range(0, size, _RUN):
            # The last run of a row begins where it ends with the row: some values are written twice, none beyond it.
            at = min(begin, size - _RUN)
            cut_run(to + at * value_bytes, low, high, source + (size - _RUN - at if back else at), back, made)


def _stream(made: NDArray[Any], count: int, target: int) -> None:
    """Copy ``count`` values to the address ``target``, past the caches where that is the start of a cache line."""
    lines = count * made.itemsize // _LINE_BYTES if target % _LINE_BYTES == 0 else 0
    source = made.ctypes.data
    for at in range(0, lines * _LINE_BYTES, _LINE_BYTES):
        stream_line(target + at, source + at)
    to = carray(pointer(target, made), count)
    for i in range(lines * _LINE_BYTES // made.itemsize, count):
        to[i] = made[i]


def _stream_scaled(made: NDArray[Any], target: int, mean: Any, factor: Any, nodata: Any) -> None:
    """Write (value − ``mean``) × ``factor``, NaN for ``nodata``, of all values to the address ``target``, likewise."""
    count, value_bytes = _LINE_BYTES // 4, made.itemsize
    lines = made.size // count if target % _LINE_BYTES == 0 else 0
    source = made.ctypes.data
    for line in range(lines):
        scale_line(target + line * _LINE_BYTES, source + line * count * value_bytes, mean, factor, nodata)
    to = carray(pointer(target, _NUMBER), made.size)
    for i in range(lines * count, made.size):
        value = made[i]
        to[i] = np.float32(np.nan) if value == nodata else (np.float32(value) - mean) * factor


cut_run: Callable[..., None] = compiled(_cut_run)
cut_value: Callable[..., None] = compiled(_cut_value)
cut: Callable[..., None] = compiled(_cut)
stream: Callable[..., None] = compiled(_stream)
stream_scaled: Callable[..., None] = compiled(_stream_scaled)


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
    made = np.empty(size * size, like.dtype)
    for image in range(images):
        k, band = place[(first + image) // bands], (first + image) % bands
        if k < 0:
            continue
        cut(made, size, low, high, (image * side + corner[k, 0]) * side + corner[k, 1], side, flip[k, 0], flip[k, 1])
        stream(made, made.size, target[k] + band * made.nbytes)
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
    made = np.empty(size * size, like.dtype)
    for image in range(images):
        k, band = place[(first + image) // bands], (first + image) % bands
        if k < 0:
            continue
        cut(made, size, low, high, (image * side + corner[k, 0]) * side + corner[k, 1], side, flip[k, 0], flip[k, 1])
        to = target[k] + band * made.size * mean.itemsize
        stream_scaled(made, to, mean[k, band], np.float32(1) / std[k, band], nodata)
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
    made, found = np.empty(size * size, like.dtype), np.empty(size * size, table.dtype)
    for image in range(images):
        k, band = place[(first + image) // bands], (first + image) % bands
        if k < 0:
            continue
        cut(made, size, low, high, (image * side + corner[k, 0]) * side + corner[k, 1], side, flip[k, 0], flip[k, 1])
        for j in range(np.uint64(made.size)):
            found[j] = table[made[j]]
        stream(found, found.size, target[k] + band * found.nbytes)
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
