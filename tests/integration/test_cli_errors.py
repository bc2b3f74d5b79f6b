"""Bad input ends with one line that names the remedy, and exit code 2; nothing is left behind."""

from __future__ import annotations

import socket
from pathlib import Path

import geopandas as gpd
import pytest
import shapely
import zarr

from sampling.config import SampleConfig
from sampling.plan import sample_locations
from sampling.table import write_locations
from tests.commands import mmearth
from tests.synthetic import make_store


@pytest.fixture(scope="module")
def locations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small location table on a made-up square of tundra."""
    path = tmp_path_factory.mktemp("table") / "locations.parquet"
    square = gpd.GeoDataFrame(
        {"ECO_NAME": ["Adelie Land tundra"], "BIOME_NAME": ["Tundra"], "REALM": ["Antarctica"]},
        geometry=[shapely.box(10, 60, 14, 63)],
        crs="EPSG:4326",
    )
    write_locations(sample_locations(SampleConfig(locations=4, out=path), square, None), path)
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("store") / "store.zarr", rows=56, tile_pixels=64)


def _unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _refused(result: object, *says: str) -> None:
    code, error = result.returncode, result.stderr.strip()  # type: ignore[attr-defined]
    assert code == 2, error
    assert len(error.splitlines()) == 1, error
    for words in says:
        assert words in error


def test_a_prefect_server_that_does_not_answer(environment: dict[str, str], store: Path) -> None:
    nowhere = f"http://127.0.0.1:{_unused_port()}/api"
    result = mmearth({**environment, "PREFECT_API_URL": nowhere}, "finalize", "--store", store)
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert f"no Prefect server answers at PREFECT_API_URL={nowhere}; start it" in line


def test_a_missing_location_table(environment: dict[str, str], tmp_path: Path) -> None:
    result = mmearth(
        environment, "collect", "--locations", tmp_path / "no.parquet", "--store", tmp_path / "s", "--project", "p"
    )
    _refused(result, "no.parquet does not exist", "mmearth sample")


def test_a_missing_ecoregion_file(environment: dict[str, str], tmp_path: Path) -> None:
    result = mmearth(
        environment, "sample", "--locations", 56, "--ecoregions", tmp_path / "no.shp", "--out", tmp_path / "l.parquet"
    )
    _refused(result, "no.shp")


def test_an_unknown_pretext_task(environment: dict[str, str], store: Path, tmp_path: Path) -> None:
    result = mmearth(environment, "pretrain", "--store", store, "--out", tmp_path / "run", "--pretext", "sentinel9")
    _refused(result, "unknown pretext task 'sentinel9'", "choose from: all, pixel, image, sentinel2, ")


def test_a_store_that_cannot_be_written(environment: dict[str, str], locations: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    result = mmearth(
        environment, "collect", "--locations", locations, "--store", tmp_path / "file" / "store", "--project", "p"
    )
    _refused(result, "cannot write", "choose a directory")


def test_a_store_of_another_format(environment: dict[str, str], tmp_path: Path) -> None:
    path = make_store(tmp_path / "store.zarr", rows=56, tile_pixels=32)
    group = zarr.open_group(path, mode="r+", use_consolidated=False)
    (name,) = [key for key in group.attrs if "format" in key]
    group.attrs[name] = 999
    zarr.consolidate_metadata(path)
    for verb in ("finalize", "status"):
        _refused(mmearth(environment, verb, "--store", path), "999")
    _refused(mmearth(environment, "pretrain", "--store", path, "--out", tmp_path / "run"), "999")


def test_a_folder_that_is_no_store(environment: dict[str, str], tmp_path: Path) -> None:
    _refused(mmearth(environment, "status", "--store", tmp_path), str(tmp_path))


def test_an_emulator_that_is_not_running(environment: dict[str, str], locations: Path, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{_unused_port()}"
    result = mmearth(environment, "collect", "--locations", locations, "--store", tmp_path / "store", "--emulator", url)
    _refused(result, url, "mmearth emulator")


def test_neither_project_nor_emulator(environment: dict[str, str], locations: Path, tmp_path: Path) -> None:
    result = mmearth(environment, "collect", "--locations", locations, "--store", tmp_path / "store")
    _refused(result, "--project", "--emulator")


@pytest.mark.parametrize("verb", ["pretrain", "evaluate", "report"])
def test_results_in_a_bucket_are_refused_and_make_no_folder_of_that_name(
    environment: dict[str, str], store: Path, tmp_path: Path, verb: str
) -> None:
    given = {"pretrain": (), "evaluate": ("--checkpoint", tmp_path), "report": ()}[verb]
    result = mmearth(environment, verb, "--store", store, "--out", "s3://bucket/result", *given)
    _refused(result, "s3://bucket/result", "choose an --out on a disk")
    assert not Path("s3:").exists()


def test_an_unknown_verb(environment: dict[str, str]) -> None:
    _refused(mmearth(environment, "colect"), "no verb 'colect'", "collect")


@pytest.mark.parametrize(
    "verb",
    ["sample", "estimate", "collect", "status", "finalize", "convert", "pretrain", "evaluate", "report", "emulator"],
)
def test_every_verb_explains_itself(environment: dict[str, str], verb: str) -> None:
    result = mmearth(environment, verb, "--help")
    assert result.returncode == 0, result.stderr
    assert f"mmearth {verb}" in result.stdout
