"""The card of a store against the store itself and against the tools that read such cards."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import mlcroissant
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pystac.validation
import pytest

from mmearth_data.card import write_card
from mmearth_data.card.terms import CC_BY, TERMS, terms_of
from mmearth_data.modalities import DOWNSTREAM, STORED
from mmearth_data.statistics import finalize
from mmearth_data.store import layout
from mmearth_data.store.shards import verify
from tests.synthetic import make_store

SHARD_ROWS = 56


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("card") / "s", rows=112, tile_pixels=16, shard_rows=SHARD_ROWS)


@pytest.fixture(scope="module")
def tiles(path: Path) -> pd.DataFrame:
    table = pq.read_table(path / "locations.parquet").to_pandas()
    return table[table["outcome"] == "stored"]


@pytest.fixture(scope="module")
def readme(path: Path) -> str:
    return (path / "README.md").read_text()


def _cells(readme: str, first: str) -> list[str]:
    (line,) = [line for line in readme.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_readme_counts_what_the_table_holds(readme: str, tiles: pd.DataFrame) -> None:
    assert f"{len(tiles)} tiles of 16 × 16 pixels" in readme
    for column in ("split", "level", "year", "biome"):
        for value, count in tiles[column].value_counts().items():
            assert _cells(readme, str(value))[1] == str(count)
    for modality in STORED:
        line = [
            cells for cells in readme.splitlines() if cells.startswith(f"| `{modality.name}` | {modality.long_name}")
        ]
        (cells,) = [line.split(" | ") for line in line]
        status = tiles[f"status_{modality.name}"]
        assert [int(cell) for cell in cells[6:9]] == [(status == value).sum() for value in (1, 2, 3)]


def test_how_tiles_were_chosen_is_told_of_collected_stores_alone(readme: str) -> None:
    assert "- `source`: synthetic" in readme
    assert "Locations are balanced" not in readme
    assert "A modality may be absent" in readme


def test_every_asset_has_terms_and_every_card_names_them(path: Path, readme: str) -> None:
    assert set(TERMS) == {asset for modality in (*STORED, *DOWNSTREAM) for asset in modality.assets}
    collection = json.loads((path / "stac" / "collection.json").read_text())
    licences = json.loads((path / "croissant.json").read_text())["license"]
    for modality in STORED:
        for terms in terms_of(modality):
            assert terms.attribution in readme
            assert terms.text in licences
            assert terms.text in [link["href"] for link in collection["links"] if link["rel"] == "license"]
            assert terms.attribution in collection["item_assets"][modality.name]["mmearth:attributions"]
            assert (terms.licence == CC_BY) == (modality.licence == CC_BY)
        assert modality.citation in readme


def test_mlcroissant_finds_no_fault_and_reads_the_records(
    path: Path, tiles: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    found = mlcroissant.Dataset(jsonld=str(path / "croissant.json"))
    # A date of publication would be a clock's; whoever publishes the store adds it.
    assert not found.metadata.ctx.issues.errors
    assert [re.findall(r"/(\w+)\"", text) for text in found.metadata.ctx.issues.warnings] == [["datePublished"]]
    records = pd.DataFrame(list(found.records("locations")))
    assert len(records) == 112
    stored = records[records["locations/outcome"] == b"stored"]
    np.testing.assert_array_equal(stored["locations/location_id"], tiles["location_id"])
    np.testing.assert_allclose(stored["locations/lon"].astype(float), tiles["lon"])
    for modality in STORED:
        if modality.kind == "categorical":
            classes = list(found.records(f"{modality.name}_classes"))
            pairs = [(c[f"{modality.name}_classes/value"], c[f"{modality.name}_classes/name"]) for c in classes]
            assert pairs == list(modality.classes)


def test_croissant_lists_files_that_are_there_with_their_checksums(path: Path) -> None:
    document = json.loads((path / "croissant.json").read_text())
    for listed in document["distribution"]:
        if listed["@type"] == "cr:FileSet":
            assert len([file for file in path.glob(listed["includes"] + "/*") if file.is_file()]) == 2
            continue
        content = (path / listed["contentUrl"]).read_bytes()
        assert listed["sha256"] == hashlib.sha256(content).hexdigest()
        assert listed["contentSize"] == f"{len(content)} B"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("validation must not use the network")

    monkeypatch.setattr("socket.socket.connect", refuse)


@pytest.mark.usefixtures("no_network")
def test_pystac_validates_the_collection_and_every_item_offline(path: Path, tiles: pd.DataFrame) -> None:
    collection = pystac.Collection.from_file(str(path / "stac" / "collection.json"))
    items = list(collection.get_items())
    assert collection.validate_all() == len(items) == 2
    west, south, east, north = collection.extent.spatial.bboxes[0]
    assert (west, south) == (tiles["lon"].min(), tiles["lat"].min())
    assert (east, north) == (tiles["lon"].max(), tiles["lat"].max())
    for number, item in enumerate(items):
        held = tiles[tiles["row"] // SHARD_ROWS == number]
        assert item.geometry == {"type": "MultiPoint", "coordinates": held[["lon", "lat"]].to_numpy().tolist()}
        times = pd.to_datetime([item.properties["start_datetime"], item.properties["end_datetime"]])
        assert times.as_unit("ms").asi8.tolist() == [held["time"].min(), held["time"].max()]
        assert item.properties["mmearth:tiles"] == len(held)
        for asset in item.assets.values():
            href = asset.get_absolute_href()
            assert href is not None
            assert hashlib.sha256(Path(href).read_bytes()).hexdigest() == asset.extra_fields["mmearth:sha256"]
    for asset in collection.assets.values():
        assert Path(asset.get_absolute_href() or "").exists()


def test_a_document_that_breaks_the_schema_would_be_noticed(path: Path) -> None:
    item: dict[str, Any] = json.loads((path / "stac" / "items" / "000000.json").read_text())
    del item["properties"]["start_datetime"]
    with pytest.raises(pystac.STACValidationError):
        pystac.validation.validate_dict(item)


def test_the_same_store_has_the_same_card_wherever_and_whenever(path: Path, tmp_path: Path) -> None:
    def card(store: Path) -> dict[str, bytes]:
        files = [store / "README.md", store / "croissant.json", *store.glob("stac/**/*.json")]
        return {file.relative_to(store).as_posix(): file.read_bytes() for file in files}

    before = card(path)
    copy = Path(shutil.copytree(path, tmp_path / "elsewhere" / "t"))
    for name in before:
        (copy / name).unlink()
    finalize(copy)
    assert card(copy) == before
    assert len(before) == 5
    assert verify(copy) == []


def test_a_store_with_other_content_has_another_name(path: Path, tmp_path: Path) -> None:
    other = make_store(tmp_path / "s", rows=56, tile_pixels=16, shard_rows=SHARD_ROWS, seed=3)
    names = [json.loads((store / "croissant.json").read_text())["name"] for store in (path, other)]
    assert names[0] != names[1]


def test_a_store_without_a_tile_has_a_card_that_says_so(tmp_path: Path) -> None:
    store = tmp_path / "s"
    layout.create(store, tile_pixels=16, shard_rows=4, attrs={})
    finalize(store)
    write_card(store)
    readme = (store / "README.md").read_text()
    assert "0 tiles of 16 × 16 pixels" in readme
    assert "Locations are balanced over biomes and years" in readme
    assert pystac.Collection.from_file(str(store / "stac" / "collection.json")).validate_all() == 0
    assert not mlcroissant.Dataset(jsonld=str(store / "croissant.json")).metadata.ctx.issues.errors
