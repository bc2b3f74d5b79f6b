"""Damage is named, by verify and by reading, and never read as data."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from mmearth_data.store import Store, StoreError, consolidate, open_store
from mmearth_data.store.files import temporary_of
from mmearth_data.store.layout import resize
from mmearth_data.store.shards import commit_shard, row_table, verify
from tests.synthetic import ShardMaker, make_store

FILE = "sentinel2/c/1/0/0/0"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("damage") / "s", rows=56, tile_pixels=16, shard_rows=28)


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "s"))


def _findings(path: Path) -> list[str]:
    return [str(finding) for finding in verify(path)]


def _read_all(store: Store) -> None:
    for name in store.modalities:
        store.read(name, 0, store.rows)


def test_an_intact_store_has_no_finding(path: Path) -> None:
    assert _findings(path) == []
    _read_all(open_store(path))


def _flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 0x10
    file.write_bytes(content)


def test_a_flipped_bit_is_found_wherever_it_is(path: Path) -> None:
    file = path / FILE
    intact = file.read_bytes()
    for at in [*np.random.default_rng(0).integers(0, len(intact), size=20).tolist(), 0, len(intact) - 1]:
        file.write_bytes(intact)
        _flip(file, at)
        assert _findings(path) == [f"damaged: {FILE}"]
        with pytest.raises(StoreError, match=f"{FILE} is damaged; restore it") as caught:
            open_store(path).read("sentinel2", 28, 56)
        assert "\n" not in str(caught.value)
        np.testing.assert_array_equal(open_store(path).read("sentinel2", 0, 1).shape, (1, 13, 16, 16))


@pytest.mark.parametrize("name", ["era5/c/1/0", "biome/c/1/0", "dynamic_world/c/1/0/0/0", "sentinel1/c/1/0/0/0"])
def test_a_flipped_bit_is_found_in_every_kind_of_array(path: Path, name: str) -> None:
    _flip(path / name, (path / name).stat().st_size // 2)
    assert _findings(path) == [f"damaged: {name}"]
    with pytest.raises(StoreError, match=f"{name} is damaged"):
        open_store(path).read(name.split("/")[0], 40, 41)


def test_a_truncated_file_is_torn(path: Path) -> None:
    file = path / FILE
    file.write_bytes(file.read_bytes()[:-1000])
    assert _findings(path) == [f"torn: {FILE}"]
    with pytest.raises(StoreError, match=f"{FILE} is torn"):
        open_store(path).read("sentinel2", 28, 29)


def test_a_missing_file_is_missing_and_not_no_data(path: Path) -> None:
    (path / FILE).unlink()
    assert _findings(path) == [f"missing: {FILE}"]
    with pytest.raises(StoreError, match=f"{FILE} is missing though its shard is committed"):
        open_store(path).read("sentinel2", 0, 56)


def test_foreign_files_are_named_and_left_overs_told_apart(path: Path) -> None:
    for name in ("sentinel2/c/7/0/0/0", "aster/notes.txt", "_commits/readme", "_commits/.000001.json.tmp"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("x")
    assert set(_findings(path)) == {
        "foreign: sentinel2/c/7/0/0/0",
        "foreign: aster/notes.txt",
        "foreign: _commits/readme",
        "uncommitted: _commits/.000001.json.tmp",
    }
    _read_all(open_store(path))


def test_another_shards_file_in_a_shards_place_is_never_read(path: Path) -> None:
    for name in ("era5/c/1/0", "eco_region/c/1/0", "aster/c/1/0/0/0", FILE):
        file, modality = path / name, name.split("/")[0]
        own, other = file.read_bytes(), (path / name.replace("c/1", "c/0")).read_bytes()
        assert own != other
        file.write_bytes(other)
        assert [finding.rsplit(": ")[1] for finding in _findings(path)] == [name]
        with pytest.raises(StoreError, match=f"{name} is (torn|damaged)"):
            open_store(path).read(modality, 28, 56)
        # Of the committed size, too: files of pixels differ in every chunk, small ones in their SHA-256.
        file.write_bytes(other[: len(own)].ljust(len(own), b"\0"))
        assert _findings(path) == [f"damaged: {name}"]
        with pytest.raises(StoreError, match=f"{name} is damaged"):
            open_store(path).read(modality, 28, 56)
        file.write_bytes(own)
    assert _findings(path) == []


def test_a_sound_file_of_the_same_size_with_other_values_is_never_read(path: Path, tmp_path: Path) -> None:
    # Every row of another store's shard has the same biomes in another order: compressed alike, checksummed soundly.
    file = path / "biome" / "c" / "1" / "0"
    own = zarr.open_array(path / "biome", mode="r")[28:]
    spec = json.loads((path / "biome" / "zarr.json").read_text())
    other = Path(shutil.copytree(path / "biome", tmp_path / "biome"))
    for shift in range(1, 14):
        zarr.open_array(other, mode="r+")[28:] = np.where(own == spec["fill_value"], own, (own + shift) % 14)
        content = (other / "c" / "1" / "0").read_bytes()
        if len(content) == file.stat().st_size and content != file.read_bytes():
            break
    else:
        pytest.fail("no other content of the same size was found")
    file.write_bytes(content)
    assert _findings(path) == ["damaged: biome/c/1/0"]
    with pytest.raises(StoreError, match=r"biome/c/1/0 is damaged \(its SHA-256 is not the committed one\)"):
        open_store(path).read("biome", 28, 56)


def test_a_half_written_shard_is_not_read_and_is_written_again(path: Path) -> None:
    (path / "_commits" / "000001.json").unlink()
    half = path / FILE
    half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])
    left_over = temporary_of(path / "aster" / "c" / "1" / "0" / "0" / "0")
    left_over.with_name(left_over.name.replace(f"-{os.getpid()}-", "-99999999-")).write_bytes(b"half")
    with pytest.raises(StoreError, match=r"rows 28 to 56 of .* are not committed"):
        open_store(path).read("sentinel2", 28, 56)
    maker = ShardMaker(56, 16, seed=0)
    shards = [maker.shard(number, 28) for number in range(2)]
    commit_shard(path, 1, shards[1])
    assert _findings(path) == []
    np.testing.assert_array_equal(open_store(path).read("sentinel2", 28, 56), shards[1].arrays["sentinel2"])


def test_what_is_committed_while_a_store_is_verified_is_not_foreign(path: Path) -> None:
    """Another process plans a round and commits it between the first checksum and the last."""
    added = ShardMaker(84, 16, seed=0).shard(2, 28)

    def meanwhile(done: int, total: int) -> None:
        if (done, total) == (1, 2):
            resize(path, 84)
            commit_shard(path, 2, added)

    assert verify(path, meanwhile) == []


def test_a_lost_commit_record_makes_its_shard_uncommitted(path: Path) -> None:
    (path / "_commits" / "000001.json").unlink()
    assert {finding.problem for finding in verify(path)} == {"uncommitted"}
    with pytest.raises(StoreError, match="not committed"):
        open_store(path).read("aster", 28, 29)


def test_a_damaged_commit_record_is_named(path: Path) -> None:
    (path / "_commits" / "000001.json").write_text('{"files": 3')
    assert "damaged: _commits/000001.json" in _findings(path)
    with pytest.raises(StoreError, match=r"000001.json is damaged"):
        open_store(path).read("aster", 28, 29)


@pytest.mark.parametrize("of", ["another shard", "no files", "another file"])
def test_a_record_that_is_not_its_shards_hides_no_damage(path: Path, of: str) -> None:
    record = path / "_commits" / "000001.json"
    document = json.loads(record.read_text())
    if of == "another shard":
        record.write_bytes((path / "_commits" / "000000.json").read_bytes())
    elif of == "no files":
        record.write_text(json.dumps(document | {"files": {}}))
    else:
        document["files"]["sentinel2/c/7/0/0/0"] = document["files"].pop(FILE)
        record.write_text(json.dumps(document))
    _flip(path / FILE, 100)
    assert _findings(path) == ["damaged: _commits/000001.json"]
    for work in (lambda: open_store(path).read("sentinel2", 28, 56), lambda: consolidate(path)):
        with pytest.raises(StoreError, match=r"000001.json is not that of shard 1; restore it from a copy"):
            work()


def test_opening_tells_which_shards_have_lost_their_record_and_which_are_newer_than_the_table(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (path / "_commits" / "000001.json").unlink()
    store = open_store(path)
    assert "the first of them 1, have lost their commit records" in caplog.text
    assert "committed rows" not in caplog.text
    with pytest.raises(StoreError, match=r"rows 28 to 56 of .* are not committed"):
        store.read("aster", int(store.select().max()), 56)
    resize(path, 84)
    commit_shard(path, 2, ShardMaker(84, 16, seed=0).shard(2, 28))
    open_store(path)  # as many commits as the table has shards, but not the same ones
    assert "28 committed rows of" in caplog.text


def test_what_the_operating_system_refuses_is_neither_missing_nor_damaged(path: Path) -> None:
    """A file that is there and cannot be opened: here a link to itself, elsewhere a permission or a failing disk."""
    refused = (FILE, "era5/c/1/0", "_commits/000001.parquet")
    for name in refused:
        (path / name).unlink()
        (path / name).symlink_to(path / name)
    assert set(_findings(path)) == {f"unreadable: {name}" for name in refused}
    for name in ("sentinel2", "era5"):
        with pytest.raises(StoreError, match=rf"cannot read .*{name}/c/1/0.*: Too many levels.*; check the disk"):
            open_store(path).read(name, 28, 56)
    with pytest.raises(StoreError, match=r"cannot read .*000001.parquet: Too many levels"):
        consolidate(path)
    (path / "_commits" / "000001.json").unlink()
    (path / "_commits" / "000001.json").symlink_to(path / "_commits" / "000001.json")
    with pytest.raises(StoreError, match=r"cannot read .*000001.json"):
        row_table(path, 1)


def test_too_many_open_files_are_no_damage(path: Path) -> None:
    store = open_store(path)
    store.read("sentinel2", 28, 29)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, limits[1]), limits[1]))
    opened: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                opened.append(os.open(os.devnull, os.O_RDONLY))
        for name in ("sentinel2", "aster"):
            with pytest.raises(StoreError, match=r"cannot read .*: Too many open files; raise the limit of open files"):
                store.read(name, 28, 56)
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    store.read("aster", 28, 56)


def test_a_damaged_row_table_stops_consolidation_and_leaves_the_old_table(path: Path) -> None:
    before = (path / "locations.parquet").read_bytes()
    _flip(path / "_commits" / "000001.parquet", 500)
    assert _findings(path) == ["damaged: _commits/000001.parquet"]
    with pytest.raises(StoreError, match=r"000001.parquet is damaged"):
        row_table(path, 1)
    with pytest.raises(StoreError, match=r"000001.parquet is damaged"):
        consolidate(path)
    assert (path / "locations.parquet").read_bytes() == before
    assert not list(path.glob(".*"))
    (path / "_commits" / "000001.parquet").unlink()
    with pytest.raises(StoreError, match=r"000001.parquet is missing"):
        row_table(path, 1)


def test_an_old_copy_of_the_metadata_is_no_reason_to_forget_a_shard(path: Path) -> None:
    old, before = (path / "zarr.json").read_bytes(), (path / "locations.parquet").read_bytes()
    resize(path, 84)
    commit_shard(path, 2, ShardMaker(84, 16, seed=0).shard(2, 28))
    (path / "zarr.json").write_bytes(old)
    with pytest.raises(StoreError, match=r"shard 2 of .* is committed and the store has room for 2; restore its zarr"):
        consolidate(path)
    assert (path / "locations.parquet").read_bytes() == before


def test_a_damaged_table_of_all_rows_is_made_again_by_finalising(path: Path) -> None:
    table = path / "locations.parquet"
    before = table.read_bytes()
    table.write_bytes(before[:-100])
    with pytest.raises(StoreError, match="damaged; make it again with: mmearth finalize"):
        open_store(path)
    consolidate(path)
    assert table.read_bytes() == before


def test_a_flipped_bit_in_the_table_of_all_rows_is_never_read_as_a_fact(path: Path) -> None:
    table, facts = path / "locations.parquet", ("location_id", "lon", "lat", "time", "year", "level", "split", "status")
    intact, before = open_store(path), table.read_bytes()
    refused = 0
    for at in np.random.default_rng(1).integers(4, len(before) - 8, size=60).tolist():
        table.write_bytes(before)
        _flip(table, at)
        try:
            store = open_store(path)
        except StoreError:
            refused += 1
            continue
        for name in facts:
            np.testing.assert_array_equal(getattr(store, name), getattr(intact, name))
    assert refused > 10


def test_statistics_that_are_missing_or_damaged_say_how_to_compute_them(path: Path) -> None:
    file = path / "statistics.json"
    content = file.read_text()
    for damaged in ("{", "{}", content.replace('"sentinel2"', '"sentinel3"')):
        file.write_text(damaged)
        with pytest.raises(StoreError, match="compute it again with: mmearth finalize --store"):
            _ = open_store(path).statistics
    file.unlink()
    with pytest.raises(StoreError, match="has no statistics; compute them with: mmearth finalize --store"):
        _ = open_store(path).statistics


def test_asking_for_what_is_not_there_names_what_is(path: Path) -> None:
    store = open_store(path)
    with pytest.raises(ValueError, match="unknown modality 'sentinel3'; choose from: sentinel2"):
        store.read("sentinel3", 0, 1)
    with pytest.raises(StoreError, match="month is not stored but derived"):
        store.read("month", 0, 1)
    for start, stop in ((-1, 1), (55, 57), (3, 2)):
        with pytest.raises(StoreError, match="has rows 0 to 56"):
            store.read("aster", start, stop)
    with pytest.raises(StoreError, match="no split 'training'; choose from: train, val, test"):
        store.select("training")
    assert store.read("aster", 7, 7).shape == (0, 2, 16, 16)
