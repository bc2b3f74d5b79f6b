"""Inner chunks read and decoded straight into given arrays, without Zarr between the disk and the codec.

A shard file is inner chunks and, at its end, an index of their offsets and lengths with a CRC-32C (Zarr v3, sharding
codec 1.0). Only what ``codecs.py`` writes is read here: little-endian values, Blosc or Zstandard, CRC-32C on every
chunk. Blosc, Zstandard and the disk release the interpreter lock, so threads decode side by side.

What memory cannot hold is read past the page cache, where the file system lets it: there it would only push out what
others keep, and copying it there costs more processor time than checking and decoding does.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import blosc, zstd
from numpy.typing import NDArray

_CRC_BYTES = 4
_ALIGNMENT = 4096
"""What offsets, lengths and memory are multiples of, as reading past the page cache asks (open(2), O_DIRECT)."""
_DIRECT = getattr(os, "O_DIRECT", 0)  # macOS has none
_LARGE_PAGE = 1 << 21
_WIPE_ON_FORK = 18  # MADV_WIPEONFORK of madvise(2), which Python does not name
_ABSENT = np.uint64(2**64 - 1)
_LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
_SINGLE_BYTES = {"name": "bytes"}
_CRC = {"name": "crc32c"}

# Blosc's own threads are one pool for the whole process; here each reading thread decodes by itself.
blosc.use_threads = False


class ChunkError(Exception):
    """Bytes of a shard are not what was written; the message says which check they fail."""


def _decode_blosc(stored: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    _check_size(int.from_bytes(stored[4:8].tobytes(), "little"), out)  # Blosc's header: the decoded size
    blosc.decompress(stored, out)


def _decode_zstd(stored: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    content = zstd.decompress(stored)
    _check_size(len(content), out)
    out[:] = np.frombuffer(content, dtype=np.uint8)


def _check_size(size: int, out: NDArray[np.uint8]) -> None:
    # A decoder given too little would leave the rest of ``out`` as it was.
    if size != len(out):
        raise ChunkError(f"it holds {size} bytes of values where {len(out)} belong")


_DECODERS: dict[str, Callable[[NDArray[np.uint8], NDArray[np.uint8]], None]] = {
    "blosc": _decode_blosc,
    "zstd": _decode_zstd,
}


class _Buffer(threading.local):
    """Memory that one thread of one process reads into."""

    def __init__(self) -> None:
        self._bytes, self._process = np.empty(0, dtype=np.uint8), os.getpid()

    def of(self, size: int) -> NDArray[np.uint8]:
        """The first ``size`` bytes, from a page's start on; what was there may be gone."""
        if self._process != os.getpid() or len(self._bytes) < size:
            self._bytes, self._process = _pages(size + size // 4), os.getpid()
        return self._bytes[:size]


def _pages(size: int) -> NDArray[np.uint8]:
    """Memory for ``size`` bytes, of large pages where it fills one: reading into those costs half the time.

    A process that is forked while it is read into past the page cache must not share it for writing, or either of the
    two may get what is read (open(2)): it finds none of it, or shares all of it where the system cannot do that.
    """
    length = size + _LARGE_PAGE
    memory = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        memory.madvise(_WIPE_ON_FORK)
    except OSError:
        memory = mmap.mmap(-1, length)
    with suppress(AttributeError, OSError):  # not every system has them
        if size >= _LARGE_PAGE // 2:
            memory.madvise(mmap.MADV_HUGEPAGE)
    content = np.frombuffer(memory, dtype=np.uint8)
    return content[-content.ctypes.data % _LARGE_PAGE :]


class ChunkReader:
    """Decodes the chunks of one array's shard files.

    ``rows`` is the number of rows per chunk, ``codec`` the name of what compressed them, ``cached`` whether files are
    read through the page cache. Safe to use from several threads at once, and in processes that were forked.
    """

    def __init__(self, rows: int, chunks: int, sharded: bool, codec: str) -> None:
        self.cached = True
        self.rows = rows
        self._chunks = chunks
        self._sharded = sharded
        self.codec = codec
        self._indices: dict[Path, NDArray[np.uint64]] = {}
        self._buffer = _Buffer()

    def read_into(self, file: Path, chunk: int, out: NDArray[Any]) -> None:
        """Decode chunk number ``chunk`` of ``file`` into ``out``, C-contiguous and of the chunk's size and dtype.

        Raises ChunkError where a checksum, a length or the codec says so, OSError where the file cannot be read.
        """
        self.decode(self.content(file, chunk), out)

    def content(self, file: Path, chunk: int) -> NDArray[np.uint8]:
        """The bytes of a chunk, which agree with their CRC-32C, to be decoded before this thread's next call.

        Raises ChunkError where a checksum or a length says so, OSError where the file cannot be read.
        """
        cached = self.cached
        try:
            descriptor = os.open(file, os.O_RDONLY | (0 if cached else _DIRECT))
            try:
                offset, length = self._place(descriptor, file, chunk)
                return self._checked(descriptor, offset, length)
            finally:
                os.close(descriptor)
        except OSError as error:
            if cached or error.errno != errno.EINVAL:
                raise
            self.cached = True  # this file system has no other way, and says so here or as it reads
            return self.content(file, chunk)

    def decode_into(self, stored: NDArray[np.uint8], out: NDArray[Any]) -> None:
        """Decode a chunk's bytes, with the CRC-32C at their end, as ``read_into`` does those of a file."""
        self.decode(_content(stored), out)

    def decode(self, content: NDArray[np.uint8], out: NDArray[Any]) -> None:
        """Decode a chunk's bytes, as ``content`` gives them; raises ChunkError where they are not ``out``'s."""
        target = out.reshape(-1).view(np.uint8)
        try:
            _DECODERS[self.codec](content, target)
        except (RuntimeError, ValueError) as error:
            raise ChunkError(str(error)) from error

    @property
    def index_bytes(self) -> int:
        """Length of the index at the end of a shard, 0 where a file is one chunk without an index."""
        return 16 * self._chunks + _CRC_BYTES if self._sharded else 0

    def index(self, stored: NDArray[np.uint8]) -> NDArray[np.uint64]:
        """Offset and length of each chunk, shape (chunks, 2), from the bytes of a shard's index."""
        return _content(stored).view("<u8").reshape(-1, 2).copy()

    def _place(self, descriptor: int, file: Path, chunk: int) -> tuple[int, int]:
        size = os.fstat(descriptor).st_size
        if not self._sharded:
            return 0, size
        index = self._indices.get(file)
        if index is None:
            length = self.index_bytes
            if size < length:
                raise ChunkError(f"the file is shorter than its index of {length} bytes")
            index = self._checked(descriptor, size - length, length).view("<u8").reshape(-1, 2).copy()
            self._indices[file] = index
        return place_of(index, chunk)

    def _checked(self, descriptor: int, offset: int, length: int) -> NDArray[np.uint8]:
        """The bytes before the CRC-32C of a piece of the file, in this thread's buffer."""
        before = offset % _ALIGNMENT
        size = -(-(before + length) // _ALIGNMENT) * _ALIGNMENT
        buffer, read = self._buffer.of(size), 0
        while read < before + length:
            # Some file systems give less at a time than they are asked for.
            count = os.preadv(descriptor, [buffer[read:].data], offset - before + read)
            if not count:
                raise ChunkError("the file ends before the chunk does")
            read += count
        return _content(buffer[before : before + length])


def _content(piece: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The bytes before the CRC-32C that they end with; raises ChunkError where it is not theirs."""
    if len(piece) < _CRC_BYTES:
        raise ChunkError(f"it is shorter than its CRC-32C of {_CRC_BYTES} bytes")
    content = piece[:-_CRC_BYTES]
    if google_crc32c.value(content) != int.from_bytes(piece[-_CRC_BYTES:].tobytes(), "little"):
        raise ChunkError("its CRC-32C is not the one that was written")
    return content


def place_of(index: NDArray[np.uint64], chunk: int) -> tuple[int, int]:
    """Offset and length of a chunk in its shard; raises ChunkError where it is not there."""
    if index[chunk, 0] == _ABSENT:
        raise ChunkError("the chunk is not in the file")
    return int(index[chunk, 0]), int(index[chunk, 1])


def chunk_reader(array: dict[str, Any]) -> ChunkReader | None:
    """A reader of the array with this Zarr metadata, or None where it is not encoded as ``codecs.py`` does it."""
    codecs, shape = array["codecs"], array["chunk_grid"]["configuration"]["chunk_shape"]
    sharded = len(codecs) == 1 and codecs[0]["name"] == "sharding_indexed"
    chunk, chunks = shape, 1
    if sharded:
        configuration = codecs[0]["configuration"]
        if configuration["index_codecs"] != [_LITTLE, _CRC] or configuration.get("index_location", "end") != "end":
            return None
        codecs, chunk = configuration["codecs"], configuration["chunk_shape"]
        chunks = shape[0] // chunk[0]
    separator = array["chunk_key_encoding"].get("configuration", {}).get("separator", "/")
    whole_tiles = chunk[1:] == shape[1:] == array["shape"][1:]
    known = len(codecs) == 3 and codecs[0] in (_LITTLE, _SINGLE_BYTES) and codecs[2] == _CRC
    if not (whole_tiles and known and separator == "/" and codecs[1]["name"] in _DECODERS):
        return None
    return ChunkReader(chunk[0], chunks, sharded, codecs[1]["name"])
