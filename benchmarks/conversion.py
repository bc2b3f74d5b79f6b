"""What each direction of ``mmearth convert``, and the statistics of a store, cost beside the plain way to do the same.

    python benchmarks/conversion.py [--tiles 224] [--rounds 3] [--cases to-hdf5 …] [--folder DIR]

Every run has a process of its own, ours one that has done the same with four tiles before: importing and compiling take
about a second, however many tiles follow. They take turns and each figure is the median of the rounds. MB are those of
a store's values as they are read, before compression; CPU is that of all threads together. Plain is one tile after
another through h5py and its gzip, whole shards through zarr-python with the store's codecs, tarfile and numpy.save,
and NumPy's bincount of every band. Plain checks nothing, ours reads back what it wrote. Limit is the compression and
decompression that ours cannot do without, alone. Peak memory is that of ours over these tiles and over twice as many.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import shutil
import statistics as stdlib_statistics
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tyro
import zarr
from numpy.typing import NDArray
from zarr.storage import MemoryStore

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import original_format
from mmearth_data import statistics
from mmearth_data.convert.crop import crop_store
from mmearth_data.convert.from_published import import_published
from mmearth_data.convert.published import cyclic
from mmearth_data.convert.to_published import GZIP_LEVEL, export_published
from mmearth_data.convert.to_webdataset import export_webdataset
from mmearth_data.modalities import MODALITIES, STORED, get
from mmearth_data.splits import SPLITS
from mmearth_data.store import open_store
from mmearth_data.store.codecs import DEFAULT_CODECS, compressors
from mmearth_data.store.schema import VACANT_FLAG, chunk_rows
from tests.synthetic import make_store

PIXELS, SHARD_ROWS, CHUNK_ROWS, CROP = 128, 112, 8, 64
PUBLISHED = "data_128"


@dataclass(frozen=True)
class Settings:
    """What to time."""

    tiles: int = 224
    """Rows of the store, whole shards of 112: half the size of collected ones, so that few tiles are several shards."""
    rounds: int = 3
    cases: tuple[str, ...] = ("to-hdf5", "from-hdf5", "to-webdataset", "to-64", "statistics")
    """Which of them to time."""
    folder: Path | None = None
    """Where the tiles are written for the while; by default where temporary files lie."""


@dataclass(frozen=True)
class Run:
    """Seconds, seconds of computing and peak resident MiB of one run."""

    wall: float
    busy: float
    peak: float


Work = Callable[[Path, Path], object]
"""Does one thing with the tiles in the first folder (``store``, ``data_128``), writing to the second."""


def plain_to_hdf5(made: Path, out: Path) -> None:
    store = open_store(made / "store")
    out.mkdir()
    writer = original_format.Writer(out / "plain.h5", int((store.level != VACANT_FLAG).sum()), PIXELS)
    for at, (row, arrays) in enumerate(_stored_tiles(made)):
        angles = {"lat": store.lat[row], "lon": store.lon[row], "month": 1.0}
        derived = {name: cyclic(name, np.array([angle]))[0] for name, angle in angles.items()}
        writer.write(at, arrays | derived)
    writer.file.close()


def _stored_tiles(made: Path) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
    """Row and arrays of each tile, by zarr-python a chunk at a time."""
    group, level = zarr.open_group(made / "store", mode="r"), open_store(made / "store").level
    for start in range(0, len(level), CHUNK_ROWS):
        chunk = {m.name: np.asarray(group[m.name][start : start + CHUNK_ROWS]) for m in STORED}
        for at in range(CHUNK_ROWS):
            if level[start + at] != VACANT_FLAG:
                yield start + at, {name: values[at] for name, values in chunk.items()}


def _plain_array(where: Any, name: str, rows: int, pixels: int) -> Any:
    modality = MODALITIES[name]
    side = (pixels, pixels) if modality.scope == "pixel" else ()
    shape = (len(modality.bands), *side)
    return zarr.create_array(
        where,
        name=name,
        shape=(rows, *shape),
        shards=(SHARD_ROWS, *shape),
        chunks=(chunk_rows(pixels, SHARD_ROWS), *shape),
        dtype=modality.dtype,
        compressors=compressors(DEFAULT_CODECS, modality),
    )


def plain_from_hdf5(made: Path, out: Path) -> None:
    with h5py.File(made / PUBLISHED / f"{PUBLISHED}.h5") as file:
        rows = len(file["metadata"])
        names = [m.name for m in STORED if m.name in file]
        arrays = {name: _plain_array(out, name, -(-rows // SHARD_ROWS) * SHARD_ROWS, PIXELS) for name in names}
        for start in range(0, rows, SHARD_ROWS):
            for name, array in arrays.items():
                tiles = np.stack([file[name][row] for row in range(start, min(start + SHARD_ROWS, rows))])
                if MODALITIES[name].classes and tiles.ndim == 2:
                    tiles = tiles.argmax(axis=1, keepdims=True)
                elif name == "sentinel1":
                    tiles = np.where(np.isfinite(tiles), np.rint(tiles * 100), -32768)
                array[start : start + len(tiles)] = tiles.astype(MODALITIES[name].dtype)


def plain_to_tars(made: Path, out: Path) -> None:
    out.mkdir()
    with tarfile.open(out / "plain.tar", "w") as tar:
        for row, arrays in _stored_tiles(made):
            for name, values in arrays.items():
                content = io.BytesIO()
                np.save(content, values)
                member = tarfile.TarInfo(f"{row:08d}.{name}.npy")
                member.size = content.tell()
                content.seek(0)
                tar.addfile(member, content)


def plain_to_64(made: Path, out: Path) -> None:
    group, inside = zarr.open_group(made / "store", mode="r"), slice((PIXELS - CROP) // 2, (PIXELS + CROP) // 2)
    for modality in STORED:
        source: Any = group[modality.name]
        rows = source.shape[0]
        array = _plain_array(out, modality.name, rows, CROP)
        for start in range(0, rows, SHARD_ROWS):
            tiles = source[start : start + SHARD_ROWS]
            array[start : start + SHARD_ROWS] = tiles[..., inside, inside] if modality.scope == "pixel" else tiles


def plain_statistics(made: Path, out: Path) -> None:
    store = open_store(made / "store")
    for modality in map(get, store.modalities):
        for first in range(0, store.rows, SHARD_ROWS):
            tiles = store.read(modality.name, first, first + SHARD_ROWS)
            for split in SPLITS:
                rows = store.select(split)
                rows = rows[(rows >= first) & (rows < first + SHARD_ROWS)] - first
                for level in (0, 1) if modality.name == "sentinel2" else (None,):
                    members = rows if level is None else rows[store.level[first + rows] == level]
                    for band in range(tiles.shape[1] if members.size else 0):
                        values = tiles[members, band].reshape(-1)
                        if values.dtype.kind == "f":
                            np.unique(values, return_counts=True)
                        else:
                            np.bincount(values.view(f"u{values.itemsize}"), minlength=1 << 8 * values.itemsize)


def _chunks(made: Path) -> Iterator[bytes]:
    with h5py.File(made / PUBLISHED / f"{PUBLISHED}.h5") as file:
        for array in file.values():
            for row in range(len(array)):
                yield array.id.read_direct_chunk((row, *(0,) * (array.ndim - 1)))[1]


def _compress(made: Path, pixels: int) -> None:
    """A store's values, decoded and compressed once with its codecs."""
    store = open_store(made / "store")
    for modality in map(get, store.modalities):
        for first in range(0, store.rows, SHARD_ROWS):
            tiles = store.read(modality.name, first, first + SHARD_ROWS)
            cut = tiles[..., :pixels, :pixels] if modality.scope == "pixel" else tiles
            _plain_array(MemoryStore(), modality.name, SHARD_ROWS, pixels)[:] = cut


def limit_from_hdf5(made: Path, out: Path) -> None:
    for chunk in _chunks(made):
        zlib.decompress(chunk)
    _compress(made, PIXELS)


def limit_to_hdf5(made: Path, out: Path) -> None:
    for chunk in _chunks(made):
        zlib.compress(zlib.decompress(chunk), GZIP_LEVEL)  # inflated once, as for reading back


def limit_to_64(made: Path, out: Path) -> None:
    _compress(made, CROP)


def limit_reading(made: Path, out: Path) -> None:
    store = open_store(made / "store")
    for name in store.modalities:
        for first in range(0, store.rows, CHUNK_ROWS):
            store.read(name, first, first + CHUNK_ROWS)


def ours_to_hdf5(made: Path, out: Path) -> object:
    return export_published(made / "store", out)


def ours_from_hdf5(made: Path, out: Path) -> object:
    return import_published(made / PUBLISHED, out, shard_rows=SHARD_ROWS)


def ours_to_tars(made: Path, out: Path) -> object:
    return export_webdataset(made / "store", out)


def ours_to_64(made: Path, out: Path) -> object:
    return crop_store(made / "store", out, CROP)


def ours_statistics(made: Path, out: Path) -> object:
    return statistics.compute(made / "store")


CASES: dict[str, tuple[Work, Work, Work]] = {
    "to-hdf5": (ours_to_hdf5, plain_to_hdf5, limit_to_hdf5),
    "from-hdf5": (ours_from_hdf5, plain_from_hdf5, limit_from_hdf5),
    "to-webdataset": (ours_to_tars, plain_to_tars, limit_reading),
    "to-64": (ours_to_64, plain_to_64, limit_to_64),
    "statistics": (ours_statistics, plain_statistics, limit_reading),
}


def _measured(work: Work, made: Path, out: Path, first: Path | None, answer: Any) -> None:
    if first:
        work(first, out)
        shutil.rmtree(out, ignore_errors=True)
    start, busy = time.perf_counter(), time.process_time()
    work(made, out)
    wall, busy = time.perf_counter() - start, time.process_time() - busy
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    answer.put(Run(wall, busy, int(peak.split()[1]) / 1024))


def run(work: Work, made: Path, first: Path | None = None) -> Run:
    """One run in a process of its own, which may start with other tiles; what it wrote is removed."""
    context = multiprocessing.get_context("spawn")
    answer, out = context.SimpleQueue(), made / "out"
    process = context.Process(target=_measured, args=(work, made, out, first, answer))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{work.__name__} ended with {process.exitcode}")
    shutil.rmtree(out, ignore_errors=True)
    found: Run = answer.get()
    return found


def make(folder: Path, tiles: int, shard_rows: int = SHARD_ROWS) -> Path:
    """A store of ``tiles`` rows and its export."""
    folder.mkdir()
    make_store(folder / "store", rows=tiles, tile_pixels=PIXELS, shard_rows=shard_rows)
    export_published(folder / "store", folder / PUBLISHED)
    return folder


def main() -> None:
    settings = tyro.cli(Settings, description=__doc__)
    with tempfile.TemporaryDirectory(dir=settings.folder) as name:
        made, twice = (make(Path(name) / str(times), times * settings.tiles) for times in (1, 2))
        few = make(Path(name) / "few", 4, shard_rows=4)
        stored = int((open_store(made / "store").level != VACANT_FLAG).sum())
        megabytes = sum(get(m).numpy_dtype.itemsize * len(get(m).bands) * PIXELS**2 for m in _pixels(made)) / 1e6
        print(f"{stored} tiles of {megabytes:.2f} MB, {os.cpu_count()} cores, on which {os.getloadavg()[0]:.1f} wait")
        print(f"{'':14} tiles/s   MB/s  CPU ms/tile  plain  limit  × plain  × limit  peak MiB  of twice as many")
        for what in settings.cases:
            works = CASES[what]
            rounds = [[run(works[0], made, few), *(run(w, made) for w in works[1:])] for _ in range(settings.rounds)]
            ours, plain, limit = (_median([found[at].busy for found in rounds]) / stored for at in range(3))
            faster = _median([found[1].busy / found[0].busy for found in rounds])
            above = _median([found[0].busy / found[2].busy for found in rounds])
            rate = stored / _median([found[0].wall for found in rounds])
            peak = _median([found[0].peak for found in rounds])
            most = run(works[0], twice).peak
            print(
                f"{what:14} {rate:7.0f} {rate * megabytes:6.0f} {1e3 * ours:12.2f} {1e3 * plain:6.2f} "
                f"{1e3 * limit:6.2f} {faster:8.2f} {above:8.2f} {peak:9.0f} {most:17.0f}",
                flush=True,
            )


def _pixels(made: Path) -> list[str]:
    return [name for name in open_store(made / "store").modalities if get(name).scope == "pixel"]


def _median(values: list[float]) -> float:
    return float(stdlib_statistics.median(values))


if __name__ == "__main__":
    main()
