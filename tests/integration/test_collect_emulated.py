"""Collecting through the real client from the procedural Earth: content, absences, faults and interruptions.

What the store says is compared with the archive behind the emulator, asked directly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from pyproj import Transformer
from shapely.geometry import Polygon

from mmearth_data import grid
from mmearth_data.collection import Retry, ShardReport, collect_shard, resolve_plan
from mmearth_data.earthengine.session import connect
from mmearth_data.emulator import world
from mmearth_data.modalities import MODALITIES, STORED, Modality
from mmearth_data.plan import Plan
from mmearth_data.source import Rejected
from mmearth_data.store import consolidate, shards
from tests.collecting import location_table
from tests.emulated import start_emulator
from tests.stores import content

PIXELS = 32
DAY = 86_400_000
PLACES = ((-100.0, 40.0), (140.0, -25.0), (-3.0, 66.0))
"""Plains with both passes, an inland with a radar gap, a coast in the north."""
ARCHIVE = world.build("earth", 0)
QUICK = Retry(
    attempts=12, corrupt_attempts=6, timeout=60, wait_initial=0.01, wait_max=0.05, wait_jitter=0.01, quota_wait=0.01
)
Row = dict[str, Any]


def collect(store: Path, locations: Path, url: str, workers: int = 6) -> list[ShardReport]:
    source = connect(None, url)
    plan = Plan.prepare(store, locations, max_shard_rows=16)
    resolve_plan(plan, source, workers=2, retry=QUICK)
    reports = []
    while todo := plan.pending() or plan.next_round():
        reports += [collect_shard(store, plan.spec(shard), source, workers, retry=QUICK) for shard in todo]
    consolidate(store)
    return reports


@pytest.fixture(scope="module")
def locations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "locations.parquet"
    location_table(path, primaries=5, reserves=2, years=(2017, 2019), around=PLACES, pixels=PIXELS)
    return path


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, locations: Path) -> Iterator[tuple[Path, Counter[str]]]:
    """A store collected without faults, and the requests it took by kind."""
    folder = tmp_path_factory.mktemp("calm")
    with start_emulator(folder, archive=ARCHIVE) as emulator:
        collect(folder / "store", locations, emulator.url)
        yield folder / "store", Counter(entry["kind"] for entry in emulator.requests())


@pytest.fixture(scope="module")
def rows(calm: tuple[Path, Counter[str]]) -> list[Row]:
    return [row for shard in sorted(shards.committed(calm[0])) for row in shards.row_table(calm[0], shard).to_pylist()]


def stored(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["outcome"] == "stored"]


def test_every_stratum_is_complete_in_whole_shards_and_few_requests(
    calm: tuple[Path, Counter[str]], rows: list[Row]
) -> None:
    summary = Plan.open(calm[0]).summary()
    assert {(s.quota, s.stored, s.dry) for s in summary.strata} == {(5, 5, False)}
    assert summary.committed == summary.shards >= 2
    tries = sum(row["attempts"] for row in rows)
    assert calm[1]["computePixels"] == tries
    assert calm[1]["computeFeatures"] == 2
    assert len(rows) == summary.shards * 16


def native(image_id: str, band: str, row: Row, size: float) -> tuple[np.ndarray, np.ndarray]:
    """Values and mask of the cell in a band's own pixels, read from the archive."""
    image = ARCHIVE.lookup(image_id)
    asset = next(b for b in image.bands if b.name == band)
    assert asset.grid.crs == f"EPSG:{row['epsg']}"
    a, _, c, _, e, f = asset.grid.transform
    assert (a, -e) == (size, size)
    side = round(PIXELS * 10 / size)
    return asset.read(round((row["y0"] - f) / e), round((row["x0"] - c) / a), side, side)


def test_ten_metre_bands_are_the_products_own_pixels(calm: tuple[Path, Counter[str]], rows: list[Row]) -> None:
    store = xr.open_zarr(calm[0], mask_and_scale=False)
    data = {name: store[name].load() for name in ("sentinel2", "sentinel2_scl")}
    compared = 0
    for row in stored(rows):
        for band in ("B2", "B8"):
            values, mask = native(row["sentinel2_id"], band, row, 10)
            assert mask.all()
            got = data["sentinel2"][row["row"]].sel(sentinel2_band=band).to_numpy()
            np.testing.assert_array_equal(got, np.maximum(values, 1))
        if row["level"] == "L2A":
            values, mask = native(row["sentinel2_id"], "SCL", row, 20)
            expected = np.repeat(np.repeat(np.where(mask & (values > 0), values, 255), 2, axis=0), 2, axis=1)
            np.testing.assert_array_equal(data["sentinel2_scl"][row["row"], 0].to_numpy(), expected)
            compared += 1
    assert compared


def cell_of(row: Row) -> Polygon:
    lon, lat = grid.footprints(row["location_id"], per_edge=8)
    return Polygon(np.column_stack([lon[0], lat[0]]))


def confirm(row: Row, name: str, reason: str) -> None:
    """Ask the archive itself whether the reason given for an absent modality is a fact."""
    index = row["sentinel2_id"].rpartition("/")[2]
    product = ARCHIVE.lookup(row["sentinel2_id"])
    cell = cell_of(row)
    if reason == "not_at_level":
        assert row["level"] == "L1C"
        assert name in ("sentinel2_scl", "sentinel2_cloudprod")
    elif reason == "not_in_product":
        assert row["level"] == "L2A"
        assert MODALITIES[name].bands[0] not in {band.name for band in product.bands}
    elif reason == "no_pass":
        first, last = row["time"] - 30 * DAY, row["time"] + 30 * DAY
        images = ARCHIVE.lookup("COPERNICUS/S1_GRD").query(cell.bounds, first, last + 1)
        near = [i for i in images if first <= i.properties["system:time_start"] <= last]
        assert not [i for i in near if i.footprint.contains(cell) and i.properties["instrumentMode"] == "IW"]
    elif (name, reason) == ("cloud_score", "no_scene"):
        assert ARCHIVE.lookup(f"{MODALITIES[name].assets[0]}/{index}") is None
    elif (name, reason) == ("dynamic_world", "no_scene"):
        start, end = (int(np.datetime64(f"{row['year'] + k}-01-01", "ms").astype(int)) for k in (0, 1))
        images = ARCHIVE.lookup(MODALITIES[name].assets[0]).query(cell.bounds, start, end)
        assert not [image for image in images if image.footprint.intersects(cell)]
    else:
        assert reason == "masked"
        suffix = f"/{row['year']}01" if name == "era5" else ""
        assert not any(
            pixel for asset in MODALITIES[name].assets for pixel in mask_over(f"{asset}{suffix}", row).reshape(-1)
        )


def mask_over(image_id: str, row: Row) -> np.ndarray:
    """The mask of an image's first band at the native pixels that hold the centres of the cell's pixels."""
    band = ARCHIVE.lookup(image_id).bands[0]
    side = 10 * (np.arange(PIXELS) + 0.5)
    x, y = np.meshgrid(row["x0"] + side, row["y0"] - side)
    if MODALITIES["era5"].assets[0] in image_id:
        x, y = x.mean(keepdims=True), y.mean(keepdims=True)
    x, y = Transformer.from_crs(f"EPSG:{row['epsg']}", band.grid.crs, always_xy=True).transform(x, y)
    a, _, c, _, e, f = band.grid.transform
    rows, columns = np.floor((y - f) / e).astype(int), np.floor((x - c) / a).astype(int)
    top, left = int(rows.min()), int(columns.min())
    _, mask = band.read(top, left, int(rows.max()) - top + 1, int(columns.max()) - left + 1)
    return mask[rows - top, columns - left]


def test_every_absence_has_a_reason_that_the_archive_confirms(rows: list[Row]) -> None:
    seen: Counter[str] = Counter()
    for row in stored(rows):
        for modality in STORED:
            absent, reason = row[f"status_{modality.name}"] == 3, row[f"absent_{modality.name}"]
            assert absent == bool(reason)
            if reason:
                confirm(row, modality.name, reason)
                seen[reason] += 1
    assert {"not_at_level", "no_pass"} <= set(seen)


def test_what_is_there_has_the_bands_that_level_and_orbits_have(
    calm: tuple[Path, Counter[str]], rows: list[Row]
) -> None:
    store = xr.open_zarr(calm[0], mask_and_scale=False).load()
    sentinel1, sentinel2 = MODALITIES["sentinel1"], MODALITIES["sentinel2"]

    def with_data(modality: Modality, row: Row) -> set[str]:
        valid = modality.valid(store[modality.name][row["row"]].to_numpy())
        return {band for k, band in enumerate(modality.bands) if valid[k].any()}

    for row in stored(rows):
        assert with_data(sentinel2, row) == set(sentinel2.bands) - ({"B10"} if row["level"] == "L2A" else set())
        for prefix in ("asc", "desc"):
            image_id = row[f"sentinel1_{prefix}_id"]
            bands = {b.name for b in ARCHIVE.lookup(image_id).bands} - {"angle"} if image_id else set()
            got = {b.partition("_")[2] for b in with_data(sentinel1, row) if b.startswith(prefix)}
            assert got == bands


def test_faults_change_no_byte(calm: tuple[Path, Counter[str]], locations: Path, tmp_path: Path) -> None:
    faults = "429=0.12,500=0.12,drop=0.12,truncate=0.12,garbage=0.12,seed=1"
    with start_emulator(tmp_path, faults=faults, archive=ARCHIVE) as emulator:
        reports = collect(tmp_path / "store", locations, emulator.url, workers=3)
        met = {entry["fault"] for entry in emulator.requests() if entry["fault"]}
        sent = sum(entry["kind"] == "computePixels" for entry in emulator.requests())
    assert met >= {"429", "500", "drop", "truncate", "garbage"}
    assert sum(report.requests for report in reports) == sent > calm[1]["computePixels"]
    assert content(tmp_path / "store") == content(calm[0])


def test_an_interrupted_run_continues_to_the_same_bytes(
    calm: tuple[Path, Counter[str]], locations: Path, tmp_path: Path
) -> None:
    class StopError(Exception):
        pass

    tiles = iter(range(2))

    def stop() -> None:
        if next(tiles, None) is None:
            raise StopError

    store = tmp_path / "store"
    with start_emulator(tmp_path, archive=ARCHIVE) as emulator:
        source = connect(None, emulator.url)
        plan = Plan.prepare(store, locations, max_shard_rows=16)
        resolve_plan(plan, source, retry=QUICK)
        first, second = (plan.next_round() or ())[:2]
        collect_shard(store, plan.spec(first), source, 4, retry=QUICK)
        with pytest.raises(StopError):
            collect_shard(store, plan.spec(second), source, 4, stop, retry=QUICK)
        assert shards.committed(store) == {first}
        before = len(emulator.requests("computeFeatures"))
        collect(store, locations, emulator.url)
        assert len(emulator.requests("computeFeatures")) == before, "nothing is resolved twice"
    assert content(store) == content(calm[0])


def test_a_request_that_the_service_refuses_is_not_repeated(calm: tuple[Path, Counter[str]], tmp_path: Path) -> None:
    slots = Plan.open(calm[0]).spec(0).slots
    acquisition = next(slot for slot in slots if slot.acquisitions).acquisitions[0]
    wrong = replace(acquisition, bands=(*acquisition.bands, "B10", "SCL"))  # no product has both
    with start_emulator(tmp_path, archive=ARCHIVE) as emulator:
        with pytest.raises(Rejected, match=r"answered 400.*(B10|SCL)"):
            connect(None, emulator.url).fetch(wrong)
        assert len(emulator.requests("computePixels")) == 1
