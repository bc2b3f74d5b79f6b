"""Other people's readers open a store and see what ours sees: tensorstore, Node's zarrita, DuckDB."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import tensorstore

from mmearth_data.modalities import STORED
from mmearth_data.store import Store, layout, open_store
from mmearth_data.store.codecs import CODEC_SETS
from mmearth_data.store.consolidation import consolidate
from mmearth_data.store.shards import commit_shard
from tests.synthetic import ShardMaker

ROWS, SHARD_ROWS, PIXELS = 56, 28, 64
ZARRITA = "zarrita@0.7.5"


@pytest.fixture(scope="module", params=CODEC_SETS)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store, maker = tmp_path_factory.mktemp("interop") / "s", ShardMaker(ROWS, PIXELS, seed=4)
    layout.create(store, tile_pixels=PIXELS, shard_rows=SHARD_ROWS, attrs={}, codecs=request.param)
    layout.resize(store, ROWS)
    for shard in range(ROWS // SHARD_ROWS):
        commit_shard(store, shard, maker.shard(shard, SHARD_ROWS))
    consolidate(store)
    return store


@pytest.fixture(scope="module")
def store(path: Path) -> Store:
    return open_store(path)


def test_tensorstore_reads_every_array(path: Path, store: Store) -> None:
    for modality in STORED:
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path / modality.name)}}
        values = tensorstore.open(spec, open=True, read=True).result().read().result()
        assert values.dtype == modality.numpy_dtype
        np.testing.assert_array_equal(values, store.read(modality.name, 0, ROWS))
    for name in ("location_id", "lon", "time", "status"):
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path / name)}}
        values = tensorstore.open(spec, open=True, read=True).result().read().result()
        np.testing.assert_array_equal(values, getattr(store, name))


def test_tensorstore_refuses_a_flipped_byte(path: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(path / "aster", tmp_path / "aster"))
    file = copy / "c" / "1" / "0" / "0" / "0"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    array = tensorstore.open({"driver": "zarr3", "kvstore": {"driver": "file", "path": str(copy)}}).result()
    with pytest.raises(ValueError, match="Digest mismatch"):
        array[SHARD_ROWS:].read().result()


@pytest.fixture(scope="session")
def zarrita(request: pytest.FixtureRequest) -> Path:
    """A folder with zarrita in its node_modules, installed once and kept in pytest's cache."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("Node and npm are not here: install Node 20 or later to compare with zarrita")
    assert request.config.cache is not None
    folder = request.config.cache.mkdir("zarrita")
    if not (folder / "node_modules" / "zarrita").is_dir():
        (folder / "package.json").write_text('{"name": "readers", "private": true}\n')
        command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", ZARRITA]
        installed = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
        if installed.returncode:
            pytest.skip(f"npm cannot install {ZARRITA}: {installed.stderr.strip().splitlines()[-1:]}")
    return folder


def _as_json(values: np.ndarray[Any, Any]) -> list[Any]:
    """Values as the script prints them: 64-bit integers as text, NaN as null."""
    flat = values.reshape(-1)
    if flat.dtype.kind == "i" and flat.dtype.itemsize == 8:
        return [str(value) for value in flat.tolist()]
    return [None if value != value else value for value in flat.tolist()]


def test_zarrita_reads_the_same_values(path: Path, store: Store, zarrita: Path) -> None:
    first, last = SHARD_ROWS - 1, SHARD_ROWS + 1
    wanted, expected = [], {}
    for modality in STORED:
        values = store.read(modality.name, first, last)
        window = (slice(None), slice(None), *(slice(8),) * (values.ndim - 2))
        ranges = [[first, last], [0, len(modality.bands)], *([[0, 8]] * (values.ndim - 2))]
        wanted.append([modality.name, ranges])
        expected[modality.name] = (modality.dtype, values[window])
    for name in ("location_id", "lon", "time"):
        wanted.append([name, [[0, ROWS]]])
        expected[name] = (str(getattr(store, name).dtype), getattr(store, name))
    # Node looks for packages beside the script, so it is put beside them.
    script = shutil.copy(Path(__file__).with_name("read_with_zarrita.mjs"), zarrita)
    command = ["node", str(script), str(path), json.dumps(wanted)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    for name, (dtype, values) in expected.items():
        assert found[name]["dtype"] == dtype
        assert found[name]["shape"][0] == ROWS
        assert found[name]["sliced"] == list(values.shape)
        assert found[name]["values"] == _as_json(values)


def test_duckdb_reads_the_table_without_its_spatial_extension(path: Path, store: Store) -> None:
    table = f"read_parquet('{path / 'locations.parquet'}')"
    with duckdb.connect(config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}) as db:
        rows = db.execute(f"SELECT row, location_id, status_sentinel2, level FROM {table} ORDER BY row").fetchnumpy()
        np.testing.assert_array_equal(rows["location_id"], store.location_id)
        np.testing.assert_array_equal(rows["status_sentinel2"], store.status[:, store.modalities.index("sentinel2")])
        query = f"SELECT level, count(*) FROM {table} WHERE outcome = 'stored' GROUP BY level ORDER BY level"
        assert db.execute(query).fetchall() == [
            (name, int((store.level == at).sum())) for at, name in ((0, "L1C"), (1, "L2A"))
        ]
        north = db.execute(f"SELECT row FROM {table} WHERE bbox.ymin > 20 ORDER BY row").fetchnumpy()["row"]
        np.testing.assert_array_equal(north, np.flatnonzero(store.lat > 20))
        assert 0 < len(north) < ROWS
