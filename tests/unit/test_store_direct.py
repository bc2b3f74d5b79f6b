"""Decoding straight into place gives what Zarr gives, names what is damaged, and leaves foreign encodings to Zarr."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import mmap
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from mmearth_data.modalities import STORED
from mmearth_data.store import Store, StoreError, direct, layout, open_store, reader
from mmearth_data.store.codecs import CODEC_SETS
from mmearth_data.store.direct import ChunkError, ChunkReader, chunk_reader
from tests.synthetic import make_store

ROWS, SHARD_ROWS = 112, 56


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Two chunks of 28 tiles make a shard.
    return make_store(tmp_path_factory.mktemp("direct") / "s", rows=ROWS, tile_pixels=64, shard_rows=SHARD_ROWS)


@pytest.fixture(scope="module")
def store(path: Path) -> Store:
    return open_store(path)


@pytest.fixture(scope="module")
def past_the_cache(path: Path) -> Store:
    return open_store(path, cached=False)


@pytest.mark.parametrize("codecs", CODEC_SETS)
def test_every_array_of_a_store_is_read_directly(tmp_path: Path, codecs: str) -> None:
    layout.create(tmp_path / "s", tile_pixels=64, shard_rows=224, attrs={}, codecs=codecs)  # type: ignore[arg-type]
    arrays = layout.read_layout(tmp_path / "s").arrays
    assert all(chunk_reader(arrays[modality.name]) is not None for modality in STORED)


@settings(deadline=None, max_examples=50)
@given(st.sampled_from([m.name for m in STORED]), st.integers(0, ROWS), st.integers(0, ROWS))
def test_any_rows_are_those_that_zarr_reads(
    path: Path, store: Store, past_the_cache: Store, name: str, a: int, b: int
) -> None:
    start, stop = sorted((a, b))
    expected = zarr.open_array(path / name, mode="r")[start:stop]
    found = store.read(name, start, stop)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(past_the_cache.read(name, start, stop), expected)
    out = np.empty_like(found)
    assert store.read(name, start, stop, out=out) is out
    np.testing.assert_array_equal(out, expected)


def forget(file: Path) -> None:
    """Drop a file's pages from the page cache."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def is_cached(file: Path) -> bool:
    """Whether the page cache holds the file's first page: mincore(2), which unlike a read leaves it as it is."""
    libc, found = ctypes.CDLL(None, use_errno=True), ctypes.c_ubyte()
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        first = ctypes.c_char.from_buffer(mapped)
        failed = libc.mincore(ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(1), ctypes.byref(found))
        del first
    assert not failed, os.strerror(ctypes.get_errno())
    return bool(found.value & 1)


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="this operating system has no reads past the page cache")
@pytest.mark.parametrize(("memory", "cached"), [(2**40, True), (0, False)])
def test_a_store_that_memory_cannot_hold_is_read_past_the_page_cache(
    path: Path, monkeypatch: pytest.MonkeyPatch, memory: int, cached: bool
) -> None:
    file = path / "sentinel2" / "c" / "0" / "0" / "0" / "0"
    monkeypatch.setattr(reader, "memory_bytes", lambda: memory)
    store = open_store(path)
    forget(file)
    if is_cached(file):
        pytest.skip(f"{path} lies in memory")
    store.read("sentinel2", 0, SHARD_ROWS)
    assert is_cached(file) == cached


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="needs a file system without reads past the page cache")
def test_where_the_file_system_has_no_way_past_the_page_cache_it_is_used() -> None:
    chunks = ChunkReader(1, 1, sharded=False, codec="zstd")
    chunks.cached = False
    with pytest.raises(ChunkError, match="shorter than its CRC-32C"):  # these files say that they are empty
        chunks.content(Path("/proc/version"), 0)
    assert chunks.cached


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="this operating system has no reads past the page cache")
def test_where_reads_past_the_page_cache_open_a_file_and_then_fail_it_is_used(
    path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the disk asks for pieces larger than a page."""
    preadv = os.preadv

    def refuse(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return preadv(descriptor, buffers, offset)

    expected = store.read("sentinel2", 3, 90)
    monkeypatch.setattr(os, "preadv", refuse)
    np.testing.assert_array_equal(open_store(path, cached=False).read("sentinel2", 3, 90), expected)


@pytest.mark.parametrize("cached", [True, False])
def test_a_file_system_that_gives_a_page_at_a_time_is_read_to_the_end(
    path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, cached: bool
) -> None:
    preadv = os.preadv

    def give_a_page(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        return preadv(descriptor, [buffers[0][:4096]], offset)

    expected = store.read("sentinel2", 3, 90)
    monkeypatch.setattr(os, "preadv", give_a_page)
    np.testing.assert_array_equal(open_store(path, cached).read("sentinel2", 3, 90), expected)


def test_threads_do_not_disturb_each_other(store: Store) -> None:
    jobs = [(name, chunk) for name in ("sentinel2", "aster", "esa_worldcover", "era5") for chunk in range(4)] * 4

    def read(job: tuple[str, int]) -> bytes:
        return store.read(job[0], job[1] * 28, job[1] * 28 + 28).tobytes()

    alone = [read(job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read, jobs)) == alone


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize(
    "wiped", [pytest.param(True, marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux alone wipes")), False]
)
def test_a_forked_process_reads_into_memory_of_its_own(
    path: Path, cached: bool, wiped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not wiped:
        monkeypatch.setattr(direct, "_WIPE_ON_FORK", -1)  # as where the system knows no such advice
    store = open_store(path, cached)
    expected = store.read("sentinel2", 28, 56)
    chunks = store._readers["sentinel2"]
    assert chunks is not None
    content = chunks.content(path / "sentinel2" / "c" / "0" / "0" / "0" / "0", 0)
    before = content.copy()
    if not (child := os.fork()):
        found, inherited = b"", bool(content.any())
        with contextlib.suppress(StoreError):
            found = store.read("sentinel2", 28, 56).tobytes()
        os._exit(found != expected.tobytes() or inherited == wiped)
    assert os.waitpid(child, 0)[1] == 0
    np.testing.assert_array_equal(content, before)


def test_damage_names_rows_modality_and_file_and_spares_the_other_chunks(path: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(path, tmp_path / "s"))
    file = copy / "sentinel1" / "c" / "1" / "0" / "0" / "0"
    content = bytearray(file.read_bytes())
    rows = open_store(copy).chunk_rows
    chunks = SHARD_ROWS // rows
    index = np.frombuffer(bytes(content[-16 * chunks - 4 : -4]), "<u8").reshape(-1, 2)
    content[int(index[1, 0]) + 100] ^= 1
    file.write_bytes(content)
    store = open_store(copy)
    first = SHARD_ROWS + rows
    with pytest.raises(StoreError, match=rf"^rows {first} to {first + rows} of sentinel1 .*CRC-32C.*c/1/0/0/0 is dam"):
        store.read("sentinel1", SHARD_ROWS, 2 * SHARD_ROWS)
    np.testing.assert_array_equal(
        store.read("sentinel1", SHARD_ROWS, first), open_store(path).read("sentinel1", SHARD_ROWS, first)
    )


def test_a_chunk_that_was_never_written_is_an_error_and_not_no_data(path: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(path, tmp_path / "s"))
    array = zarr.open_array(copy / "esa_worldcover", mode="r+")
    rows = open_store(copy).chunk_rows
    array[:rows] = array.fill_value
    file = copy / "esa_worldcover" / "c" / "0" / "0" / "0" / "0"
    record = next((copy / "_commits").glob("000000.json"))
    document = json.loads(record.read_text())
    document["files"]["esa_worldcover/c/0/0/0/0"]["size"] = file.stat().st_size
    record.write_text(json.dumps(document))
    with pytest.raises(StoreError, match=r"rows 0 to \d+ of esa_worldcover .*the chunk is not in the file"):
        open_store(copy).read("esa_worldcover", 0, 1)


def test_another_encoding_is_read_through_zarr(path: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(path, tmp_path / "s"))
    expected = open_store(path).read("aster", 3, 40)
    values = zarr.open_array(copy / "aster", mode="r")[:]
    shutil.rmtree(copy / "aster" / "c")
    zarr.create_array(
        copy / "aster",
        data=values,
        chunks=(7, *values.shape[1:]),
        shards=(SHARD_ROWS, *values.shape[1:]),
        compressors=zarr.codecs.GzipCodec(level=1),
        overwrite=True,
        dimension_names=["location", "aster_band", "y", "x"],
    )
    root = json.loads((copy / "zarr.json").read_text())
    root["consolidated_metadata"]["metadata"]["aster"] = json.loads((copy / "aster" / "zarr.json").read_text())
    (copy / "zarr.json").write_text(json.dumps(root))
    for record in (copy / "_commits").glob("*.json"):
        document = json.loads(record.read_text())
        for name in document["files"]:
            if name.startswith("aster/"):
                document["files"][name]["size"] = (copy / name).stat().st_size
        record.write_text(json.dumps(document))
    assert chunk_reader(layout.read_layout(copy).arrays["aster"]) is None
    np.testing.assert_array_equal(open_store(copy).read("aster", 3, 40), expected)
