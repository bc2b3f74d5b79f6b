"""Downstream modalities go the way of all others: fetched, checked, stored, counted, described; and only on request."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import xarray as xr
from pyproj import Transformer

from mmearth_data import grid, statistics
from mmearth_data.collection import collect_shard, resolve_plan
from mmearth_data.convert.crop import crop_store
from mmearth_data.earthengine.session import connect
from mmearth_data.emulator import world
from mmearth_data.emulator.assets import BandAsset, ImageAsset
from mmearth_data.modalities import DOWNSTREAM, STORED, UnknownModalityError
from mmearth_data.plan import Plan, PlanError
from mmearth_data.store import StoreError, consolidate, open_store, shards
from mmearth_train.tasks import PretextError, pretext_names
from tests.collecting import location_table
from tests.emulated import start_emulator

PIXELS = 16
PLACES = ((117.969, 32.822), (-131.746, 68.398))
"""Towns among fields, lakes in the tundra."""
ARCHIVE = world.build("earth", 0)
NAMES = [modality.name for modality in DOWNSTREAM]


@pytest.fixture(scope="module")
def locations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "locations.parquet"
    location_table(path, primaries=3, reserves=1, years=(2019,), around=PLACES, pixels=PIXELS)
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, locations: Path) -> Path:
    folder = tmp_path_factory.mktemp("downstream")
    with start_emulator(folder, archive=ARCHIVE) as emulator:
        plan = Plan.prepare(folder / "store", locations, max_shard_rows=8, downstream=("all",))
        source = connect(None, emulator.url, modalities=plan.modalities)
        resolve_plan(plan, source)
        while todo := plan.pending() or plan.next_round():
            for shard in todo:
                collect_shard(plan.store, plan.spec(shard), source, 4)
    consolidate(folder / "store")
    statistics.finalize(folder / "store")
    return folder / "store"


def nearest(band: BandAsset, epsg: int, x0: int, y0: int) -> tuple[np.ndarray, np.ndarray]:
    """The native pixel that holds each of the cell's pixel centres, and whether it is valid, pixel by pixel."""
    x, y = np.meshgrid(x0 + 10 * (np.arange(PIXELS) + 0.5), y0 - 10 * (np.arange(PIXELS) + 0.5))
    x, y = Transformer.from_crs(epsg, band.grid.crs, always_xy=True).transform(x, y)
    a, _, c, _, e, f = band.grid.transform
    rows, columns = np.floor((y - f) / e).astype(int), np.floor((x - c) / a).astype(int)
    top, left = rows.min(), columns.min()
    values, valid = band.read(int(top), int(left), int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1)
    return values[rows - top, columns - left], valid[rows - top, columns - left]


def test_stored_values_are_the_assets_own_pixels(store: Path) -> None:
    water, built = ARCHIVE.lookup("JRC/GSW1_4/GlobalSurfaceWater"), ARCHIVE.lookup("JRC/GHSL/P2023A/GHS_BUILT_S/2020")
    assert isinstance(water, ImageAsset)
    assert isinstance(built, ImageAsset)
    opened, data = open_store(store), xr.open_zarr(store, mask_and_scale=False)
    rows = opened.select()
    assert len(rows) == 6
    cells = grid.decode(opened.location_id[rows])
    seen = {"jrc_surface_water": 0, "ghsl_built_surface": 0}
    for modality, image in zip(DOWNSTREAM, (water, built), strict=True):
        for index, name in enumerate(modality.bands):
            band = next(b for b in image.bands if b.name == name)
            for at, row in enumerate(rows):
                values, valid = nearest(band, int(cells.epsg[at]), int(cells.x0[at]), int(cells.y0[at]))
                never = 0 if modality.name == "jrc_surface_water" else modality.nodata
                stored = data[modality.name][int(row), index].to_numpy()
                np.testing.assert_array_equal(stored, np.where(valid, values, never))
                seen[modality.name] += int((stored[valid] > 0).sum())
    assert all(seen.values())


def test_they_are_counted_described_verified_and_cropped_like_the_others(store: Path, tmp_path: Path) -> None:
    opened = open_store(store)
    assert opened.modalities == (*(modality.name for modality in STORED), *NAMES)
    rows = opened.select("train")
    for modality in DOWNSTREAM:
        tiles = np.concatenate([opened.read(modality.name, row, row + 1) for row in rows]).astype(np.float64)
        tiles[tiles == modality.nodata] = np.nan
        found = opened.statistics.get(modality.name)
        np.testing.assert_allclose(found.mean, np.nanmean(tiles, axis=(0, 2, 3)))
        assert found.no_data.tolist() == np.isnan(tiles).sum(axis=(0, 2, 3)).tolist()
        assert f"`{modality.name}`" in (store / "README.md").read_text()
        assert modality.name in json.loads((store / "stac" / "collection.json").read_text())["item_assets"]
    assert shards.verify(store) == []
    (store / NAMES[0] / "c" / "0" / "0" / "0" / "left").write_bytes(b"")
    assert [finding.problem for finding in shards.verify(store)] == ["foreign"]
    (store / NAMES[0] / "c" / "0" / "0" / "0" / "left").unlink()
    crop_store(store, tmp_path / "crop", 8)
    cropped = open_store(tmp_path / "crop")
    for name in opened.modalities[-2:]:
        inner = opened.read(name, 0, opened.rows)[..., 4:12, 4:12]
        np.testing.assert_array_equal(cropped.read(name, 0, cropped.rows)[rows], inner[rows])


def test_a_store_keeps_the_modalities_that_it_was_made_with(store: Path, locations: Path, tmp_path: Path) -> None:
    assert Plan.prepare(store, locations).modalities == Plan.prepare(store, locations, downstream=NAMES[:1]).modalities
    usual = tmp_path / "usual"
    assert Plan.prepare(usual, locations, max_shard_rows=8).modalities == STORED
    assert not any((usual / name).exists() for name in NAMES)
    with pytest.raises(PlanError, match=r"was made without ghsl_built_surface.*collect into a new --store"):
        Plan.prepare(usual, locations, downstream=NAMES[1:])
    with pytest.raises(UnknownModalityError, match="'aster' is no downstream modality"):
        Plan.prepare(tmp_path / "other", locations, downstream=("aster",))
    assert not (tmp_path / "other").exists()
    consolidate(usual)
    assert not [name for name in pq.read_schema(usual / "locations.parquet").names if name.endswith(tuple(NAMES))]
    with pytest.raises(StoreError, match=r"was collected without jrc_surface_water.*--downstream jrc_surface_water"):
        open_store(usual).read("jrc_surface_water", 0, 0)


@pytest.mark.parametrize("name", NAMES)
def test_no_encoder_is_ever_trained_on_them(name: str) -> None:
    assert name not in pretext_names("all")
    with pytest.raises(PretextError, match=f"{name} is never predicted"):
        pretext_names(f"sentinel2,{name}")
