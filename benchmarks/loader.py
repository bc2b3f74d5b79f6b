"""Rates of the loader and sizes of the store beside MMEarth's published way and raw memory maps, on one core.

    python benchmarks/loader.py [--pixels 64 128] [--rounds 5] [--folder DIR]

Every figure is the median of rounds that take turns, warm (files in the page cache) and cold (dropped from it before
each pass; ours reads then as it does a store that memory cannot hold, past the cache), on synthetic, spatially
correlated tiles of all twelve modalities. Rates are per second and per second of processor time; ratios are of the
latter within a round, which other work on the machine disturbs less. The figures that the store is held to come last,
each beside its bound.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics as stdlib_statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import tyro
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import original_format
from mmearth_data import statistics
from mmearth_data.modalities import MODALITIES, STORED
from mmearth_data.store import Store, consolidate, layout, open_store
from mmearth_data.store.codecs import CODEC_SETS
from mmearth_data.store.commits import CommitRecord, FileRecord, array_file_name, row_table, table_name, write_record
from mmearth_data.store.files import sha256, sha256_of_file
from mmearth_data.store.shards import ShardData, commit_shard
from mmearth_train.loader import Loader, cyclic, scalings
from mmearth_train.masking import split_patches
from mmearth_train.model import MPMAE, PATCHES_PER_SIDE
from mmearth_train.tasks import GROUPS, Scaling
from tests.synthetic import ShardMaker
from tests.train_batches import random_spec

SHARD_ROWS = 224
SHARDS = {64: 6, 128: 3}
TIMES = 5
"""How often a store holds the tiles: then it is one that the loader reads anew in every epoch, not from its memory."""
CROP = {64: 56, 128: 112}
ORIGINAL_SAMPLES = {64: 128, 128: 64}
FIRST = 32
"""Samples with which the published way is timed from the opening of its file on."""
BATCH = 64
TRAINED_BATCHES, TRAINED_BATCH = 8, 32
NORMALISED, STORED_DTYPES = "normalised float32", "stored dtypes"
TIMES_ORIGINAL = {64: {NORMALISED: 50, STORED_DTYPES: 60}, 128: {NORMALISED: 28, STORED_DTYPES: 35}}
WRITTEN_TIMES_ORIGINAL = {"mid": 1.5, "bal": 7}

Pass = Callable[[int], Iterator[int]]


@dataclass(frozen=True)
class Settings:
    """What to time."""

    pixels: tuple[int, ...] = (64, 128)
    rounds: int = 5
    folder: Path | None = None
    """Where the tiles are written for the while; by default where temporary files lie."""


@dataclass(frozen=True)
class Rate:
    """Samples per second, and per second that the process computed."""

    wall: float
    busy: float


@dataclass(frozen=True)
class Held:
    """A figure and the bound that it is held to, from below or, with ``most``, from above."""

    what: str
    figure: float
    bound: float
    most: bool = False

    def line(self) -> str:
        """The figure beside its bound."""
        kept = self.figure <= self.bound if self.most else self.figure >= self.bound
        sign = "at most" if self.most else "at least"
        return f"{self.what:58} {self.figure:8.2f}  {sign} {self.bound:5.2f}  {'yes' if kept else 'NO'}"


@dataclass(frozen=True)
class Made:
    """The same tiles in every format."""

    stores: dict[str, Path]
    original: Path
    raw: Path
    channels: int
    written: dict[str, list[Rate]]


def make(folder: Path, pixels: int) -> Made:
    """Write the tiles in each format, timing that; formats take turns, shard by shard."""
    shards = SHARDS[pixels]
    rows = shards * SHARD_ROWS
    maker = ShardMaker(rows, pixels, seed=0)
    stores = {codecs: folder / codecs for codecs in CODEC_SETS}
    for codecs in CODEC_SETS:
        layout.create(stores[codecs], tile_pixels=pixels, shard_rows=SHARD_ROWS, attrs={}, codecs=codecs)
        layout.resize(stores[codecs], rows)
    writer = original_format.Writer(folder / "original.h5", rows, pixels)
    channels = sum(len(MODALITIES[name].bands) for name in original_format.PIXEL)
    raw = np.memmap(folder / "raw.f32", np.float32, "w+", shape=(rows, channels, pixels, pixels))
    found: dict[str, list[Rate]] = {"original": [], **{codecs: [] for codecs in CODEC_SETS}}
    for shard in range(shards):
        data = maker.shard(shard, SHARD_ROWS)
        for codecs, path in stores.items():
            found[codecs].append(timed(lambda path=path, data=data, shard=shard: _commit(path, shard, data)))
        tiles = list(_tiles(data))
        first = shard * SHARD_ROWS
        found["original"].append(timed(lambda tiles=tiles, first=first: _write_original(writer, first, tiles)))
        raw[first : first + SHARD_ROWS] = np.concatenate([data.arrays[name] for name in original_format.PIXEL], axis=1)
    writer.file.close()
    raw.flush()
    for path in stores.values():
        statistics.finalize(path)
        repeat(path, shards)
        consolidate(path)
    return Made(stores, folder / "original.h5", folder / "raw.f32", channels, found)


def repeat(path: Path, shards: int) -> None:
    """Add further shards to a store, with the files of its ``shards`` and locations of their own."""
    layout.resize(path, TIMES * shards * SHARD_ROWS)
    for shard in range(shards, TIMES * shards):
        files = {}
        for modality in STORED:
            name = array_file_name(modality, shard)
            copied = path / array_file_name(modality, shard % shards)
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(copied, path / name)
            files[name] = FileRecord(copied.stat().st_size, sha256_of_file(copied))
        rows = np.arange(shard * SHARD_ROWS, (shard + 1) * SHARD_ROWS)
        table = row_table(path, shard % shards)
        for column, values in (("row", rows), ("location_id", -1 - rows)):
            at = table.schema.get_field_index(column)
            table = table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))
        pq.write_table(table, path / table_name(shard))
        content = (path / table_name(shard)).read_bytes()
        files[table_name(shard)] = FileRecord(len(content), sha256(content))
        write_record(path, CommitRecord(shard, files))


def timed(work: Callable[[], int]) -> Rate:
    """The rate of ``work``, which gives the number of samples it did."""
    start, busy = time.perf_counter(), time.process_time()
    samples = work()
    return Rate(samples / (time.perf_counter() - start), samples / (time.process_time() - busy))


def median(rates: list[Rate]) -> Rate:
    """Of each of the two by itself."""
    return Rate(*(stdlib_statistics.median(values) for values in zip(*map(astuple, rates), strict=True)))


def beside(found: dict[str, list[Rate]], name: str, baseline: str) -> float:
    """How many times the baseline's rate per second of computing ``name`` has: the median over rounds."""
    pairs = zip(found[name], found[baseline], strict=True)
    return stdlib_statistics.median(one.busy / other.busy for one, other in pairs)


def _commit(path: Path, shard: int, data: ShardData) -> int:
    commit_shard(path, shard, data)
    return SHARD_ROWS


def _tiles(data: ShardData) -> Iterator[dict[str, NDArray[Any]]]:
    lon, lat = (np.nan_to_num(data.table[name].to_numpy().astype(np.float64)) for name in ("lon", "lat"))
    when = np.nan_to_num(data.table["time"].to_numpy().astype(np.float64)).astype(np.int64)
    derived = {name: cyclic(name, lon, lat, when) for name in ("lat", "lon", "month")}
    for row in range(SHARD_ROWS):
        tile = {name: values[row] for name, values in (data.arrays | derived).items()}
        # The one-hot classes of the published file have no place for an unknown one.
        yield tile | {name: tile[name] % len(MODALITIES[name].classes) for name in ("biome", "eco_region")}


def _write_original(writer: original_format.Writer, first: int, tiles: list[dict[str, NDArray[Any]]]) -> int:
    for at, tile in enumerate(tiles):
        writer.write(first + at, tile)
    writer.file.flush()
    return len(tiles)


def passes(made: Made, pixels: int, cold: bool) -> dict[str, tuple[list[Path], Pass]]:
    """What is timed: the files that a pass reads, and a pass that gives the size of each batch it delivers."""
    store = open_store(made.stores["mid"])
    rows, crop, scaling = store.select(), CROP[pixels], scalings(store, GROUPS["all"])
    dataset = original_format.Dataset(made.original, _numbers(scaling))
    found: dict[str, tuple[list[Path], Pass]] = {
        "original": ([made.original], lambda number: _original(dataset, ORIGINAL_SAMPLES[pixels], number))
    }
    for codecs, path in made.stores.items():
        files = [file for file in path.rglob("*") if file.is_file()]
        for what, scale in ((NORMALISED, scaling), (STORED_DTYPES, None)):
            loader = Loader(
                open_store(path, cached=not cold),
                rows,
                GROUPS["all"],
                batch_size=BATCH,
                crop=crop,
                seed=0,
                memory_bytes=0,
                scaling=scale,
            )
            found[f"ours, {codecs}, {what}"] = (files, lambda number, loader=loader: _ours(loader, number))
    found["np.memmap float32"] = (
        [made.raw],
        lambda number: _raw(made, rows[rows < SHARDS[pixels] * SHARD_ROWS], pixels, number),
    )
    return found


def _numbers(scaling: dict[str, Scaling]) -> original_format.Numbers:
    numbers = {name: {"mean": [0.0] * 2, "std": [1.0] * 2} for name in ("lat", "lon", "month")}
    for name, values in scaling.items():
        for group, mean, std in zip(("sentinel2_l1c", "sentinel2_l2a"), values.mean, values.std, strict=False):
            numbers[group if name == "sentinel2" else name] = {"mean": list(mean), "std": list(std)}
    return numbers


def first_samples(made: Made, rounds: int) -> Rate:
    """The rate of the published way's first samples: the file is cold, and opened for them."""
    numbers, found = _numbers(scalings(open_store(made.stores["mid"]), GROUPS["all"])), []
    for number in range(rounds):
        drop([made.original])
        found.append(
            timed(lambda number=number: sum(_original(original_format.Dataset(made.original, numbers), FIRST, number)))
        )
    return median(found)


def _original(dataset: original_format.Dataset, samples: int, number: int) -> Iterator[int]:
    for batch in original_format.batches(dataset, samples, number):
        yield len(batch["id"])


def _ours(loader: Loader, number: int) -> Iterator[int]:
    for batch in loader.epoch(number):
        yield len(batch["level"])


def _raw(made: Made, rows: NDArray[np.int64], pixels: int, number: int) -> Iterator[int]:
    tiles = np.memmap(made.raw, np.float32, "r").reshape(-1, made.channels, pixels, pixels)
    random, crop = np.random.default_rng(number), CROP[pixels]
    order = random.permutation(rows)
    corner = random.integers(0, pixels - crop + 1, (len(rows), 2))
    flip = 1 - 2 * random.integers(0, 2, (len(rows), 2))
    for start in range(0, len(rows), BATCH):
        part = slice(start, start + BATCH)
        chosen = zip(order[part].tolist(), corner[part].tolist(), flip[part].tolist(), strict=True)
        crops = [tiles[row, :, y : y + crop, x : x + crop][:, ::v, ::h] for row, (y, x), (v, h) in chosen]
        yield len(torch.from_numpy(np.stack(crops)))


def drop(files: list[Path]) -> None:
    """Ask the kernel to forget the files' pages."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def rates(contenders: dict[str, tuple[list[Path], Pass]], rounds: int, cold: bool) -> dict[str, list[Rate]]:
    """The rates of each contender; they take turns, and the first turn does not count."""
    found: dict[str, list[Rate]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, (files, run) in contenders.items():
            if cold:
                drop(files)
            found[name].append(timed(lambda run=run, number=number: sum(run(number))))
    return {name: values[1:] for name, values in found.items()}


def waiting(store: Store) -> float:
    """Fraction of the time that training atto on the CPU waits for batches, from the second one on."""
    loader = Loader(store, store.select(), GROUPS["all"], batch_size=TRAINED_BATCH, crop=56, seed=0, memory_bytes=0)
    model = MPMAE(random_spec())
    waited = trained = 0.0
    batches = loader.epoch(0)
    next(batches)
    for _ in range(TRAINED_BATCHES):
        start = time.perf_counter()
        batch = next(batches)
        ready = time.perf_counter()
        ids = batch["location_id"].numpy()
        visible, masked = (torch.from_numpy(p) for p in split_patches(0, 0, ids, PATCHES_PER_SIDE**2))
        model.objective(model(batch, visible, masked)).backward()
        waited, trained = waited + ready - start, trained + time.perf_counter() - ready
    return waited / (waited + trained)


def memory(store: Store) -> tuple[float, float]:
    """Resident MiB after the second and the tenth epoch."""
    loader = Loader(store, store.select(), GROUPS["all"], batch_size=BATCH, crop=56, seed=0, memory_bytes=0)
    seen = []
    for epoch in range(10):
        for batch in loader.epoch(epoch):
            del batch
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        seen.append(pages * resource.getpagesize() / 2**20)
    return seen[1], seen[9]


def report(pixels: int, rounds: int, folder: Path) -> list[Held]:
    """Print what one size of tiles shows; gives the figures that are held to a bound."""
    made = make(folder, pixels)
    tiles = SHARDS[pixels] * SHARD_ROWS
    sizes = {"original": made.original.stat().st_size / tiles / 1024}
    for codecs, path in made.stores.items():
        stored = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        sizes[codecs] = stored / (TIMES * tiles) / 1024
    held = []
    print(f"\n{pixels} px, {tiles} tiles   KB/tile  beside  written/s  per CPU s  beside")
    for name, found in made.written.items():
        size, faster, rate = sizes[name] / sizes["original"], beside(made.written, name, "original"), median(found)
        print(f"{name:20} {sizes[name]:8.1f} {size:7.2f} {rate.wall:10.0f} {rate.busy:10.0f} {faster:7.1f}")
        if name in WRITTEN_TIMES_ORIGINAL:
            held.append(Held(f"{pixels} px, {name}, bytes of the original's", size, 0.75, most=True))
            held.append(Held(f"{pixels} px, {name}, times the rate of writing", faster, WRITTEN_TIMES_ORIGINAL[name]))
    first = first_samples(made, rounds)
    print(f"{'original, first samples, cold':30} {first.wall:6.0f} {first.busy:10.0f}")
    for cold in (False, True):
        state = "cold" if cold else "warm"
        read = rates(passes(made, pixels, cold), rounds, cold)
        print(f"{pixels} px, {state}                   read/s  per CPU s  × original  × np.memmap")
        for name, found in read.items():
            rate, memmap = median(found), beside(read, name, "np.memmap float32")
            print(f"{name:30} {rate.wall:6.0f} {rate.busy:10.0f} {beside(read, name, 'original'):11.1f} {memmap:12.2f}")
        for what, bound in TIMES_ORIGINAL[pixels].items():
            faster = beside(read, f"ours, mid, {what}", "original")
            held.append(Held(f"{pixels} px, {state}, {what}, times the original", faster, bound))
        memmap = beside(read, f"ours, mid, {NORMALISED}", "np.memmap float32")
        held.append(Held(f"{pixels} px, {state}, {NORMALISED}, times np.memmap", memmap, 0.5))
    if pixels == min(CROP):
        store = open_store(made.stores["mid"])
        before, after = memory(store)
        print(f"resident memory after ten epochs: {after:.0f} MiB, {after - before:+.1f} since the second epoch's end")
        held.append(Held("resident memory after ten epochs, times that after two", after / before, 1.05, most=True))
        held.append(Held("percent of training atto on this core spent waiting", 100 * waiting(store), 2, most=True))
    return held


def main() -> None:
    settings = tyro.cli(Settings, description=__doc__)
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    print(f"one core of {os.cpu_count()}, on which {load:.1f} others wait; medians of {settings.rounds} rounds")
    held = []
    for pixels in settings.pixels:
        with tempfile.TemporaryDirectory(dir=settings.folder) as folder:
            held += report(pixels, settings.rounds, Path(folder))
    print("", *(figure.line() for figure in held), sep="\n")


if __name__ == "__main__":
    main()
