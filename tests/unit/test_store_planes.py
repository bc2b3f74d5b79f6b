"""Blocks of a chunk, put together, are the chunk that Blosc decodes; what is not such a chunk is left or refused."""

from __future__ import annotations

import ctypes
import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import blosc
from numpy.typing import NDArray

from mmearth_data.modalities import MODALITIES
from mmearth_data.store import StoreError, open_store, planes
from mmearth_data.store.direct import ChunkError, ChunkReader
from mmearth_data.store.planes import Block, blocks
from tests.synthetic import make_store

RUN = 256


def _chunk(values: NDArray[np.generic], **options: object) -> NDArray[np.uint8]:
    settings = {"cname": b"lz4hc", "clevel": 5, "shuffle": int(values.itemsize > 1), "blocksize": 0, **options}
    return np.frombuffer(blosc.compress(values, typesize=values.itemsize, **settings), dtype=np.uint8).copy()


def _at(address: int, size: int) -> NDArray[np.uint8]:
    return np.frombuffer(ctypes.string_at(address, size), dtype=np.uint8)


def _values(block: Block, dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    if not block.high:
        return _at(block.low, block.values * dtype.itemsize).view(dtype)
    low, high = _at(block.low, block.values), _at(block.high, block.values)
    return (low + high.astype(np.uint16) * 256).view(dtype)


def _together(content: NDArray[np.uint8], values: int, dtype: np.dtype[np.generic]) -> NDArray[np.generic] | None:
    found = blocks(content, np.empty(values * dtype.itemsize, dtype=np.uint8), values, dtype.itemsize, RUN)
    if found is None:
        return None
    out, ends = np.zeros(values, dtype=dtype), [0]
    for block in found:
        assert block.first == ends[-1]
        ends.append(block.first + block.values)
        out[block.first : ends[-1]] = _values(block, dtype)
    assert ends[-1] == values
    return out


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["uint8", "int16", "uint16"]),
    st.integers(1, 1100),
    st.sampled_from([2, 20, 200, 5000, 65536]),
    st.booleans(),
    st.sampled_from([0, 1024, 16384, 1 << 20]),
)
def test_blocks_are_the_values_that_were_compressed(
    dtype: str, runs: int, spread: int, alternating: bool, block_size: int
) -> None:
    """Of few values and of many: so streams of low bytes, of high ones or of both lie in the chunk as they are."""
    kind = np.dtype(dtype)
    random = np.random.default_rng(runs)
    values = random.integers(0, spread, runs * RUN).astype(kind)
    if alternating:
        values[: len(values) // 2] = 7
    content = _chunk(values, blocksize=block_size)
    uncompressed = bool(content[2] & 0b10)
    found = _together(content, len(values), kind)
    assert (found is None) == uncompressed
    if found is not None:
        np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("options", [{"shuffle": 2}, {"cname": b"zstd"}, {"shuffle": 0}, {"clevel": 0}])
def test_other_encodings_are_left_to_whole_chunks(options: dict[str, object]) -> None:
    values = np.arange(64 * RUN, dtype=np.uint16) // 16
    assert _together(_chunk(values, **options), len(values), values.dtype) is None


def test_images_that_blocks_would_cut_are_left_to_whole_chunks() -> None:
    values = np.arange(300 * 1000, dtype=np.uint16) // 16
    content = _chunk(values, blocksize=1 << 16)
    assert blocks(content, np.empty(values.nbytes, dtype=np.uint8), len(values), 2, 1000) is None


@pytest.mark.parametrize(("dtype", "itemsize"), [("uint8", 2), ("uint16", 1)])
def test_values_of_another_size_are_left_to_whole_chunks(dtype: str, itemsize: int) -> None:
    """Which refuse them. As many bytes as there should be words would be read as words, to beyond their end."""
    values = (np.arange(64 * RUN) // 300).astype(dtype)
    assert blocks(_chunk(values), np.empty(2 * values.nbytes, dtype=np.uint8), len(values), itemsize, RUN) is None


def test_a_chunk_of_other_than_its_values_is_refused() -> None:
    values = np.arange(64 * RUN, dtype=np.int16) // 16
    with pytest.raises(ChunkError, match="it holds 32768 bytes of values where 32256 belong"):
        _together(_chunk(values), 63 * RUN, values.dtype)
    with pytest.raises(ChunkError, match="shorter than Blosc's header"):
        _together(_chunk(values)[:15], len(values), values.dtype)


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 2**32 - 1), st.integers(16, 10**6), st.sampled_from([1, 4]))
def test_a_wrong_length_is_refused_and_nothing_beyond_the_chunk_is_read(number: int, at: int, step: int) -> None:
    """Whatever stands in it, a chunk gives its number of values or an error: no address outside of its memory."""
    values = (np.random.default_rng(1).integers(0, 40, 80 * RUN)).astype(np.uint16)
    content = _chunk(values, blocksize=8192)
    at = 16 + at // step * step % (len(content) - 19)
    struct.pack_into("<I", content.data, at, number)
    scratch = np.empty(values.nbytes, dtype=np.uint8)
    places = [(piece.ctypes.data, piece.ctypes.data + len(piece)) for piece in (content, scratch)]
    found = blocks(content, scratch, len(values), 2, RUN)
    assert found is not None
    try:
        for block in found:
            for address in (block.low, block.high):
                assert any(start <= address and address + block.values <= stop for start, stop in places)
    except ChunkError:
        pass


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("planes") / "s", rows=28, tile_pixels=64, shard_rows=28)


def test_a_store_gives_the_blocks_of_its_tiles(path: Path) -> None:
    store = open_store(path)
    for name in ("sentinel2", "sentinel1", "esa_worldcover"):
        kind = MODALITIES[name].numpy_dtype
        expected = store.read(name, 0, store.chunk_rows)
        found = store.blocks(name, 0, np.empty(expected.nbytes, dtype=np.uint8))
        assert found is not None
        parts = [_values(block, kind) for block in found]
        np.testing.assert_array_equal(np.concatenate(parts), expected.reshape(-1))


def test_where_lz4_hides_its_function_chunks_are_decoded_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert planes._decompress is not None
    monkeypatch.setattr(planes, "_decompress", None)
    store = open_store(path)
    expected = store.read("sentinel2", 0, store.chunk_rows)
    scratch = np.empty(expected.nbytes, dtype=np.uint8)
    found = store.blocks("sentinel2", 0, scratch)
    assert found is not None
    assert list(found) == [Block(0, expected.size, scratch.ctypes.data, 0)]
    np.testing.assert_array_equal(scratch.view(expected.dtype), expected.reshape(-1))


def test_a_chunk_that_has_no_such_blocks_is_one_and_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images of 60 pixels' side are no whole part of Blosc's blocks."""
    store = open_store(make_store(tmp_path / "s", rows=28, tile_pixels=60, shard_rows=28))
    expected = store.read("sentinel2", 0, store.chunk_rows)
    asked, content = [], ChunkReader.content

    def counted(reader: ChunkReader, file: Path, chunk: int) -> NDArray[np.uint8]:
        asked.append(chunk)
        return content(reader, file, chunk)

    monkeypatch.setattr(ChunkReader, "content", counted)
    scratch = np.empty(expected.nbytes, dtype=np.uint8)
    found = store.blocks("sentinel2", 0, scratch)
    assert found is not None
    assert list(found) == [Block(0, expected.size, scratch.ctypes.data, 0)]
    np.testing.assert_array_equal(scratch.view(expected.dtype), expected.reshape(-1))
    assert asked == [0]


def test_chunks_of_another_number_of_tiles_are_left_to_reading(path: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(path, tmp_path / "s"))
    array = zarr.open_array(copy / "aster", mode="r")
    values, options = array[:], {"compressors": array.compressors, "dimension_names": array.metadata.dimension_names}
    chunks, shards = (7, *values.shape[1:]), (28, *values.shape[1:])
    zarr.create_array(copy / "aster", data=values, chunks=chunks, shards=shards, overwrite=True, **options)
    root = json.loads((copy / "zarr.json").read_text())
    root["consolidated_metadata"]["metadata"]["aster"] = json.loads((copy / "aster" / "zarr.json").read_text())
    (copy / "zarr.json").write_text(json.dumps(root))
    record, name = copy / "_commits" / "000000.json", "aster/c/0/0/0/0"
    document = json.loads(record.read_text())
    document["files"][name]["size"] = (copy / name).stat().st_size
    record.write_text(json.dumps(document))
    store = open_store(copy)
    assert store.blocks("aster", 0, np.empty(values.nbytes, dtype=np.uint8)) is None
    np.testing.assert_array_equal(store.read("aster", 0, 28), values)


def test_damage_is_named_by_rows_modality_and_file(path: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(path, tmp_path / "s"))
    file = copy / "aster" / "c" / "0" / "0" / "0" / "0"
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    scratch = np.empty(1 << 20, dtype=np.uint8)
    with pytest.raises(StoreError, match=r"^rows 0 to 28 of aster cannot be decoded .*CRC-32C.*c/0/0/0/0 is damaged"):
        open_store(copy).blocks("aster", 0, scratch)
    store = open_store(copy)
    store.read("esa_worldcover", 0, 28)
    (copy / "esa_worldcover" / "c" / "0" / "0" / "0" / "0").unlink()
    with pytest.raises(StoreError, match="c/0/0/0/0 is missing though its shard is committed"):
        store.blocks("esa_worldcover", 0, scratch)
