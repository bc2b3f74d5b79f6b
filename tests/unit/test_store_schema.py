"""The layout on disk, written down by hand: whoever changes it must raise FORMAT_VERSION and this page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zarr

from mmearth_data.store import StoreError, layout, schema
from mmearth_data.store.layout import read_layout

NAN = "NaN"
# name: dtype, bands, pixels?, fill value, compressor of `bal`, scale_factor, units
MODALITY_ARRAYS: dict[str, tuple[str, int, bool, Any, str, float | None, str]] = {
    "sentinel2": ("uint16", 13, True, 0, "blosc zstd 1 bitshuffle 2", 1e-4, "1"),
    "sentinel2_cloudmask": ("uint16", 1, True, 65535, "blosc zstd 1 bitshuffle 2", None, "1"),
    "sentinel2_cloudprod": ("uint8", 1, True, 255, "blosc zstd 1 bitshuffle 1", None, "percent"),
    "sentinel2_scl": ("uint8", 1, True, 255, "zstd 3", None, "1"),
    "cloud_score": ("uint8", 1, True, 255, "blosc zstd 1 bitshuffle 1", 0.01, "1"),
    "sentinel1": ("int16", 8, True, -32768, "blosc lz4 5 bitshuffle 2", 0.01, "dB"),
    "aster": ("int16", 2, True, -32768, "blosc zstd 1 bitshuffle 2", None, "m; 0.01 degree"),
    "dynamic_world": ("uint8", 1, True, 0, "zstd 3", None, "1"),
    "canopy_height_eth": ("uint8", 2, True, 255, "blosc zstd 1 bitshuffle 1", None, "m"),
    "esa_worldcover": ("uint8", 1, True, 0, "zstd 3", None, "1"),
    "era5": ("float32", 12, False, NAN, "blosc zstd 1 bitshuffle 4", None, "K; m"),
    "biome": ("uint8", 1, False, 255, "zstd 3", None, "1"),
    "eco_region": ("uint16", 1, False, 65535, "zstd 3", None, "1"),
}
CATEGORICAL = {"sentinel2_scl", "dynamic_world", "esa_worldcover", "biome", "eco_region"}
ROW_ARRAYS = {
    "location_id": ("int64", 0),
    "lon": ("float64", NAN),
    "lat": ("float64", NAN),
    "epsg": ("int32", 0),
    "x0": ("int32", 0),
    "y0": ("int32", 0),
    "time": ("int64", -(2**63)),
    "year": ("int16", 0),
    "level": ("uint8", 255),
    "split": ("uint8", 255),
}


def _compressor(codec: dict[str, Any]) -> str:
    names = ("cname", "clevel", "shuffle", "typesize") if codec["name"] == "blosc" else ("level",)
    return " ".join([codec["name"], *(str(codec["configuration"][name]) for name in names)])


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("schema") / "s"
    layout.create(store, tile_pixels=128, shard_rows=224, attrs={"seed": 3}, codecs="bal")
    layout.resize(store, 448)
    return store


@pytest.fixture(scope="module")
def root(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((path / "zarr.json").read_bytes())
    return document


def test_modality_arrays_are_as_written_down(root: dict[str, Any]) -> None:
    for name, (dtype, bands, pixels, fill, codec, scale, units) in MODALITY_ARRAYS.items():
        array = root["consolidated_metadata"]["metadata"][name]
        tile = [bands, 128, 128] if pixels else [bands]
        assert array["shape"] == [448, *tile]
        assert array["data_type"] == dtype
        assert array["fill_value"] == fill
        assert array["dimension_names"] == ["location", f"{name}_band", *(["y", "x"] if pixels else [])]
        assert array["chunk_key_encoding"] == {"name": "default", "configuration": {"separator": "/"}}
        assert array["chunk_grid"] == {"name": "regular", "configuration": {"chunk_shape": [224, *tile]}}
        codecs = array["codecs"]
        if pixels:
            assert [codec["name"] for codec in codecs] == ["sharding_indexed"]
            sharding = codecs[0]["configuration"]
            assert sharding["chunk_shape"] == [8, *tile]
            assert sharding["index_location"] == "end"
            assert [codec["name"] for codec in sharding["index_codecs"]] == ["bytes", "crc32c"]
            codecs = sharding["codecs"]
        assert _compressor(codecs[1]) == codec
        assert [codecs[0]["name"], codecs[2]["name"]] == ["bytes", "crc32c"]
        attributes = array["attributes"]
        assert attributes["units"] == units
        assert attributes.get("scale_factor") == scale
        assert ("_FillValue" in attributes) == (name not in CATEGORICAL)
        assert ("flag_values" in attributes) == ("flag_meanings" in attributes) == (name in CATEGORICAL)


def test_row_arrays_are_as_written_down(root: dict[str, Any]) -> None:
    arrays = root["consolidated_metadata"]["metadata"]
    for name, (dtype, fill) in ROW_ARRAYS.items():
        assert arrays[name]["data_type"] == dtype
        assert arrays[name]["fill_value"] == fill
        assert arrays[name]["shape"] == [448]
        assert arrays[name]["dimension_names"] == ["location"]
        assert arrays[name]["chunk_grid"]["configuration"]["chunk_shape"] == [65536]
    assert arrays["status"]["shape"] == [448, 13]
    assert arrays["status"]["dimension_names"] == ["location", "modality"]
    assert arrays["time"]["attributes"]["units"] == "milliseconds since 1970-01-01"
    bands = {f"{name}_band" for name in MODALITY_ARRAYS}
    fractions = {f"valid_fraction_{name}" for name in MODALITY_ARRAYS}
    others = {"status", "modality", "sentinel2_wavelength"}
    assert set(arrays) == set(MODALITY_ARRAYS) | set(ROW_ARRAYS) | bands | fractions | others


def test_the_root_says_what_it_is(root: dict[str, Any]) -> None:
    attributes = root["attributes"]
    assert attributes["Conventions"] == "CF-1.11"
    assert attributes["mmearth_format"] == layout.FORMAT_VERSION == 1
    assert (attributes["tile_pixels"], attributes["shard_rows"], attributes["seed"]) == (128, 224, 3)


def test_consolidated_metadata_equals_each_arrays_own(path: Path, root: dict[str, Any]) -> None:
    for name, document in root["consolidated_metadata"]["metadata"].items():
        assert json.loads((path / name / "zarr.json").read_bytes()) == document
    plain, consolidated = (zarr.open_group(path, mode="r", use_consolidated=use) for use in (False, True))
    for name in MODALITY_ARRAYS:
        assert plain[name].metadata.to_dict() == consolidated[name].metadata.to_dict()


def test_wavelengths_belong_to_band_names(path: Path) -> None:
    group = zarr.open_group(path, mode="r")
    known = dict(zip(group["sentinel2_band"][:], group["sentinel2_wavelength"][:], strict=True))
    # Sentinel-2A central wavelengths, Sentinel-2 spectral response functions (ESA, S2-SRF 3.0), nm.
    assert (known["B2"], known["B4"], known["B8"], known["B8A"]) == (492.4, 664.6, 832.8, 864.7)


@pytest.mark.parametrize(
    ("pixels", "shard_rows", "expected"),
    [(128, 224, 8), (64, 224, 32), (64, 56, 28), (128, 1, 1), (256, 224, 2), (512, 56, 1)],
)
def test_inner_chunks_hold_about_as_many_pixels_whatever_the_tile_size(
    pixels: int, shard_rows: int, expected: int
) -> None:
    assert schema.chunk_rows(pixels, shard_rows) == expected
    assert shard_rows % expected == 0


def test_mid_is_the_codec_set_unless_another_is_asked_for(tmp_path: Path) -> None:
    layout.create(tmp_path / "s", tile_pixels=8, shard_rows=4, attrs={})
    arrays = read_layout(tmp_path / "s").arrays
    inner = {name: arrays[name]["codecs"][0]["configuration"]["codecs"][1] for name in ("sentinel1", "esa_worldcover")}
    assert _compressor(inner["sentinel1"]) == "blosc lz4hc 5 shuffle 2"
    assert _compressor(inner["esa_worldcover"]) == "blosc lz4hc 5 noshuffle 1"


def test_growing_appends_whole_shards_and_never_shrinks(tmp_path: Path) -> None:
    store = tmp_path / "s"
    layout.create(store, tile_pixels=8, shard_rows=4, attrs={})
    assert read_layout(store).rows == 0
    for rows in (4, 12):
        layout.resize(store, rows)
        assert read_layout(store).rows == rows
        assert zarr.open_array(store / "sentinel2", mode="r").shape == (rows, 13, 8, 8)
    with pytest.raises(StoreError, match="whole shards of 4 rows"):
        layout.resize(store, 14)
    with pytest.raises(StoreError, match="never shrinks"):
        layout.resize(store, 8)
    assert read_layout(store).rows == 12


def test_what_is_no_store_is_refused_in_one_line(tmp_path: Path) -> None:
    def message(path: Path) -> str:
        with pytest.raises(StoreError) as caught:
            read_layout(path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "does not exist" in message(tmp_path / "none")
    assert "is not a store" in message(tmp_path)
    (tmp_path / "file").write_text("x")
    assert "is not a store" in message(tmp_path / "file")
    zarr.create_group(tmp_path / "other")
    assert "not a store of mmearth" in message(tmp_path / "other")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "zarr.json").write_text("{")
    assert "damaged" in message(tmp_path / "torn")


@pytest.mark.parametrize(("version", "remedy"), [(2, "upgrade mmearth"), (0, "collect it again")])
def test_another_format_version_is_named_with_its_remedy(tmp_path: Path, version: int, remedy: str) -> None:
    store = tmp_path / "s"
    layout.create(store, tile_pixels=8, shard_rows=4, attrs={})
    root = json.loads((store / "zarr.json").read_bytes())
    root["attributes"]["mmearth_format"] = version
    (store / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(StoreError, match=rf"store format {version}, this mmearth reads format 1; .*{remedy}"):
        read_layout(store)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays.pop("aster"), "aster must be int16 with 2 bands and is there not at all"),
        (lambda arrays: arrays["aster"].update(data_type="float32"), "is there as float32 with 2 bands"),
        (lambda arrays: arrays["aster"].update(shape=[0, 3, 8, 8]), "is there as int16 with 3 bands"),
    ],
)
def test_a_store_with_other_modalities_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    store = tmp_path / "s"
    layout.create(store, tile_pixels=8, shard_rows=4, attrs={})
    root = json.loads((store / "zarr.json").read_bytes())
    change(root["consolidated_metadata"]["metadata"])
    (store / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(StoreError, match=f"another list of modalities: .*{message}"):
        read_layout(store)


def test_a_store_is_not_made_over_something_else(tmp_path: Path) -> None:
    store = tmp_path / "s"
    layout.create(store, tile_pixels=8, shard_rows=4, attrs={})
    with pytest.raises(StoreError, match="already holds a store"):
        layout.create(store, tile_pixels=8, shard_rows=4, attrs={})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match=r"holds 'thesis.tex'"):
        layout.create(tmp_path / "other", tile_pixels=8, shard_rows=4, attrs={})
    with pytest.raises(StoreError, match="'tile_pixels' belongs to the store's layout"):
        layout.create(tmp_path / "third", tile_pixels=8, shard_rows=4, attrs={"tile_pixels": 3})


def test_a_creation_that_was_cut_short_is_made_again(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for store in (whole, cut):
        layout.create(store, tile_pixels=8, shard_rows=4, attrs={})
    (cut / "zarr.json").unlink()
    (cut / "aster" / "zarr.json").unlink()
    layout.create(cut, tile_pixels=8, shard_rows=4, attrs={})
    files = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(cut) for p in cut.rglob("*") if p.is_file())
    assert all((whole / name).read_bytes() == (cut / name).read_bytes() for name in files)


def test_an_unwritable_place_is_refused_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in (Path("/proc/mmearth-store"), tmp_path / "file" / "store"):
        with pytest.raises(StoreError, match=r"cannot write .*; choose a directory that you may write to") as caught:
            layout.create(place, tile_pixels=8, shard_rows=4, attrs={})
        assert "\n" not in str(caught.value)
