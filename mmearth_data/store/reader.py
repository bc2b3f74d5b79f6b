"""Reading a store: only rows of committed shards, and an error instead of a fill value wherever something is wrong.

Plain Zarr reads a missing file as no-data; this reader checks commit records and file sizes first, and the CRC-32C
of each inner chunk is checked as it is decoded. Arrays that are encoded otherwise than ``codecs.py`` does it are read
through Zarr.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray

from mmearth_data.modalities import BIOME_NAMES, ECOREGION_NAMES, get
from mmearth_data.splits import SPLITS
from mmearth_data.store import planes, rows
from mmearth_data.store import statistics as store_statistics
from mmearth_data.store.commits import FileRecord, array_file_name, committed, read_record
from mmearth_data.store.direct import ChunkError, ChunkReader, chunk_reader
from mmearth_data.store.files import StoreError, asking, readable, sha256_of_file, unreadable, zarr_store
from mmearth_data.store.layout import LOCATIONS, Layout, read_layout
from mmearth_data.store.memory import memory_bytes
from mmearth_data.store.objects import ObjectPath, Place
from mmearth_data.store.ranged import RangedReader
from mmearth_data.store.schema import LEVELS, NO_TIME, VACANT_FLAG, Status, tile_shape
from mmearth_data.store.statistics import Statistics

_log = logging.getLogger(__name__)

_COLUMNS = ["row", "location_id", "outcome", "lon", "lat", "time", "year", "level", "split", "biome", "ecoregion"]


class Store:
    """A store opened for reading, with one array of shape (rows,) per fact of a row.

    ``location_id`` int64 (0: no location), ``lon``, ``lat`` degrees, ``time`` int64 ms since 1970 (NO_TIME: vacant),
    ``year``, ``level`` uint8 (0 L1C, 1 L2A, 255 vacant), ``split`` uint8 (0 train, 1 val, 2 test, 255 vacant),
    ``biome`` uint8 and ``eco_region`` uint16 class ids (the registry's no-data where unknown), ``status`` uint8
    (rows, modalities). Rows that are not consolidated are vacant in all of them.
    """

    def __init__(self, layout: Layout, cached: bool | None = None) -> None:
        self._layout = layout
        self._checked: dict[tuple[str, int], Place] = {}
        self._records: dict[int, dict[str, FileRecord]] = {}
        self._ranged: dict[str, RangedReader] = {}
        self._readers = {modality.name: chunk_reader(layout.arrays[modality.name]) for modality in layout.modalities}
        self.path: Place = layout.path
        self.tile_pixels: int = layout.tile_pixels
        self.rows: int = layout.rows
        self.shard_rows: int = layout.shard_rows
        self.chunk_rows: int = layout.chunk_rows
        self.attrs: dict[str, Any] = layout.attrs
        self.modalities: tuple[str, ...] = tuple(modality.name for modality in layout.modalities)
        table = self._table()
        # Listed after the table was read, so that what others commit and consolidate meanwhile is not missed here.
        self._shards = committed(self.path)
        table = table.filter(pc.less(table["row"], self.rows))
        self._compare(set((table["row"].to_numpy() // self.shard_rows).tolist()))
        if cached is None:
            cached = isinstance(self.path, ObjectPath) or self._bytes() <= memory_bytes()
        for reader in filter(None, self._readers.values()):
            reader.cached = cached
        self._read_rows(table)

    def _bytes(self) -> int:
        """Bytes of the committed chunks, taking every shard to be as large as the largest of three."""
        shards = sorted(self._shards)
        tried = {shards[at] for at in (0, len(shards) // 2, -1)} if shards else ()
        return len(shards) * max((self._bytes_of(shard) for shard in tried), default=0)

    def _bytes_of(self, shard: int) -> int:
        found = 0
        for modality in self._layout.modalities:
            with suppress(OSError):  # reading tells, if these rows are ever asked for
                found += (self.path / array_file_name(modality, shard)).stat().st_size
        return found

    def _compare(self, consolidated: set[int]) -> None:
        """Tell what the table of all rows has too few, and what it has too many, which is refused as it is read."""
        if newer := len(self._shards - consolidated):
            rows = newer * self.shard_rows
            _log.warning("%d committed rows of %s are not consolidated; run mmearth finalize", rows, self.path)
        if gone := sorted(consolidated - self._shards):
            _log.warning(
                "%d shards of %s, the first of them %d, have lost their commit records; restore those from a copy of "
                "the store, or collect again",
                len(gone),
                self.path,
                gone[0],
            )

    def _read_rows(self, table: pa.Table) -> None:
        at, stored = table["row"].to_numpy(), rows.is_stored(table)

        def spread(values: NDArray[Any], dtype: str, vacant: float) -> NDArray[Any]:
            array = np.full((self.rows, *values.shape[1:]), vacant, dtype=dtype)
            array[at] = values
            return array

        def code(column: str, words: tuple[str, ...], missing: int) -> NDArray[np.int64]:
            return rows.codes(table, column, words, missing)

        biome, eco_region = int(get("biome").nodata), int(get("eco_region").nodata)
        status = np.stack([table[f"status_{name}"].to_numpy() for name in self.modalities], axis=1)
        self.location_id = spread(table["location_id"].to_numpy(), "int64", 0)
        self.lon = spread(rows.values(table, "lon", np.nan), "float64", np.nan)
        self.lat = spread(rows.values(table, "lat", np.nan), "float64", np.nan)
        self.year = spread(rows.values(table, "year", 0), "int16", 0)
        self.time = spread(np.where(stored, rows.values(table, "time", NO_TIME), NO_TIME), "int64", NO_TIME)
        self.level = spread(np.where(stored, code("level", LEVELS, VACANT_FLAG), VACANT_FLAG), "uint8", VACANT_FLAG)
        self.split = spread(np.where(stored, code("split", SPLITS, VACANT_FLAG), VACANT_FLAG), "uint8", VACANT_FLAG)
        self.biome = spread(code("biome", BIOME_NAMES, biome), "uint8", biome)
        self.eco_region = spread(code("ecoregion", ECOREGION_NAMES, eco_region), "uint16", eco_region)
        self.status = spread(status, "uint8", Status.VACANT)

    def _table(self) -> pa.Table:
        file = self.path / LOCATIONS
        columns = [*_COLUMNS, *(f"status_{name}" for name in self.modalities)]
        try:
            return pq.read_table(readable(file), columns=columns, page_checksum_verification=True)
        except FileNotFoundError:
            raise StoreError(f"{self.path} is not consolidated; run: mmearth finalize --store {self.path}") from None
        except (OSError, pa.ArrowException, KeyError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise unreadable(file, error) from error
            raise StoreError(f"{file} is damaged; make it again with: mmearth finalize --store {self.path}") from error

    def select(self, split: str | None = None) -> NDArray[np.int64]:
        """Rows with complete sentinel2, ascending, of one split ('train', 'val', 'test') or of all."""
        chosen = self.status[:, self.modalities.index("sentinel2")] == Status.COMPLETE
        if split is not None:
            if split not in SPLITS:
                raise StoreError(f"there is no split {split!r}; choose from: {', '.join(SPLITS)}")
            chosen &= self.split == SPLITS.index(split)
        return np.flatnonzero(chosen).astype(np.int64)

    def read(self, modality: str, start: int, stop: int, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Rows ``start`` to ``stop`` of a stored modality in its stored dtype, (n, bands, y, x) or (n, bands).

        Aligned to ``chunk_rows`` nothing is decoded twice; vacant rows of a committed shard hold no-data. ``out``, a
        C-contiguous array of that shape and dtype, is filled and returned instead of a new one. Safe to use from
        several threads. Raises StoreError where the range leaves the store, touches a shard that is not committed or
        a damaged file.
        """
        if not get(modality).stored:
            raise StoreError(f"{modality} is not stored but derived from location and time; compute it from those")
        if modality not in self._readers:
            raise StoreError(
                f"{self.path} was collected without {modality}; collect a store with --downstream {modality}"
            )
        if not 0 <= start <= stop <= self.rows:
            raise StoreError(f"{self.path} has rows 0 to {self.rows}; rows {start} to {stop} are not all among them")
        for shard in range(start // self.shard_rows, -(-stop // self.shard_rows)) if stop > start else ():
            self._check(modality, shard)
        if out is None:
            shape = tile_shape(get(modality), self.tile_pixels)
            out = np.empty((stop - start, *shape), dtype=get(modality).numpy_dtype)
        reader = self._readers[modality]
        if reader is None:
            out[:] = self._through_zarr(modality, start, stop)
            return out
        for shard in range(start // self.shard_rows, -(-stop // self.shard_rows)) if stop > start else ():
            low, high = max(start, shard * self.shard_rows), min(stop, (shard + 1) * self.shard_rows)
            self._read_shard(reader, modality, shard, low, high, out[low - start : high - start])
        return out

    def blocks(self, modality: str, start: int, scratch: NDArray[np.uint8]) -> Iterator[planes.Block] | None:
        """The pixels of the ``chunk_rows`` rows from ``start`` on, a multiple of that, decoded block by block.

        Each block holds whole images, one band of one tile; a chunk that has no such blocks is one. It lies in
        ``scratch``, which has room for the rows, or in this thread's buffer, and is valid until the next one or the
        thread's next reading. None where the rows can be had by ``read`` alone. Raises StoreError as ``read`` does,
        also while blocks are asked for.
        """
        reader = self._readers.get(modality)
        if reader is None or reader.codec != "blosc" or isinstance(self.path, ObjectPath):
            return None
        if reader.rows != self.chunk_rows:  # somebody else's chunks
            return None
        shard, chunk = start // self.shard_rows, start % self.shard_rows // reader.rows
        file = self._check(modality, shard)
        assert isinstance(file, Path)
        values = reader.rows * math.prod(tile_shape(get(modality), self.tile_pixels))
        itemsize = get(modality).numpy_dtype.itemsize
        with _naming(modality, start, start + reader.rows, file):
            content = reader.content(file, chunk)
            found = planes.blocks(content, scratch, values, itemsize, self.tile_pixels**2)
            if found is None:
                reader.decode(content, scratch[: values * itemsize])
                return iter((planes.Block(0, values, scratch.ctypes.data, 0),))
        return _named(found, modality, start, start + reader.rows, file)

    def _read_shard(
        self, reader: ChunkReader, modality: str, shard: int, start: int, stop: int, out: NDArray[Any]
    ) -> None:
        """Rows ``start`` to ``stop`` of the store, all of one shard, into ``out``."""
        name, origin = array_file_name(get(modality), shard), shard * self.shard_rows
        file, chunks = self.path / name, range((start - origin) // reader.rows, -(-(stop - origin) // reader.rows))
        with _naming(modality, start, start + reader.rows, file):
            decode = self._opened(reader, modality, file, self._records[shard][name].size, chunks)
        for chunk in chunks:
            first = origin + chunk * reader.rows
            low, high = max(start, first), min(stop, first + reader.rows)
            target = out[low - start : high - start]
            with _naming(modality, first, first + reader.rows, file):
                if len(target) == reader.rows:
                    decode(chunk, target)
                else:
                    whole = np.empty((reader.rows, *out.shape[1:]), dtype=out.dtype)
                    decode(chunk, whole)
                    target[:] = whole[low - first : high - first]

    def _opened(
        self, reader: ChunkReader, modality: str, file: Place, size: int, chunks: range
    ) -> Callable[[int, NDArray[Any]], None]:
        """What decodes one of these chunks of ``file`` into an array."""
        if isinstance(file, ObjectPath):
            ranged = self._ranged.setdefault(modality, RangedReader(reader))
            return ranged.opened(file, size, chunks[0], chunks[-1])
        return partial(reader.read_into, file)

    def _through_zarr(self, modality: str, start: int, stop: int) -> NDArray[Any]:
        try:
            with asking(self.path, "read"):
                values: NDArray[Any] = self._zarr[modality][start:stop]
        except (ValueError, RuntimeError, OSError) as error:
            # Decoders raise OSError too, without a number of the operating system's.
            if isinstance(error, OSError) and error.errno is not None:
                raise unreadable(self.path / modality, error) from error
            shards = range(start // self.shard_rows, -(-stop // self.shard_rows))
            files = ", ".join(str(self.path / array_file_name(get(modality), shard)) for shard in shards)
            raise _undecodable(modality, start, stop, files, error) from error
        return values

    @cached_property
    def _zarr(self) -> Any:
        return zarr.open_group(zarr_store(self.path), mode="r", use_consolidated=True)

    def _check(self, modality: str, shard: int) -> Place:
        """The file of a shard's modality; raises StoreError unless it is what was committed. Each is checked once.

        Of files of pixels the size is compared, of small ones the content too.
        """
        if (modality, shard) in self._checked:
            return self._checked[modality, shard]
        if shard not in self._shards:
            raise StoreError(
                f"rows {shard * self.shard_rows} to {(shard + 1) * self.shard_rows} of {self.path} are not committed; "
                "finish the collection, then open the store again"
            )
        if shard not in self._records:
            self._records[shard] = read_record(self.path, shard, self._layout.modalities).files
        name = array_file_name(get(modality), shard)
        expected, file = self._records[shard][name], self.path / name
        try:
            size = file.stat().st_size
            # Another shard's file has sound checksums too, and where it is small easily the same size.
            same = get(modality).scope == "pixel" or size != expected.size or sha256_of_file(file) == expected.sha256
        except OSError as error:
            raise _not_given(file, error) from error
        if size != expected.size:
            raise StoreError(f"{file} is torn: {size} bytes of {expected.size}; restore it from a copy")
        if not same:
            raise StoreError(f"{file} is damaged (its SHA-256 is not the committed one); restore it from a copy")
        self._checked[modality, shard] = file
        return file

    @cached_property
    def statistics(self) -> Statistics:
        """The train split's statistics; raises StoreError where they were not computed."""
        return store_statistics.load(self.path)


@contextmanager
def _naming(modality: str, start: int, stop: int, file: Place) -> Iterator[None]:
    """Raise errors of reading these rows as StoreErrors that name them."""
    try:
        yield
    except OSError as error:
        raise _not_given(file, error) from error
    except ChunkError as error:
        raise _undecodable(modality, start, stop, str(file), error) from error


def _named(blocks: Iterator[planes.Block], modality: str, start: int, stop: int, file: Place) -> Iterator[planes.Block]:
    with _naming(modality, start, stop, file):
        yield from blocks


def _not_given(file: Place, error: OSError) -> StoreError:
    """The StoreError for a committed file that cannot be read: it is not there, or the operating system refuses."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return StoreError(f"{file} is missing though its shard is committed; restore it from a copy")
    return unreadable(file, error)


def _undecodable(modality: str, start: int, stop: int, files: str, error: Exception) -> StoreError:
    return StoreError(
        f"rows {start} to {stop} of {modality} cannot be decoded ({error}): {files} is damaged; restore it from a copy"
    )


def open_store(path: str | Place, cached: bool | None = None) -> Store:
    """Open the store at ``path`` for reading; raises StoreError where there is none that this version can read.

    ``cached`` says whether chunks are read through the page cache: by default those of stores that memory can hold
    whole. Of a larger store a part that it can hold may be worth True.
    """
    return Store(read_layout(path), cached)
