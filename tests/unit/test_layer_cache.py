"""Layers kept in a folder: asked for once, again where damaged, anew where the question is another."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import pytest
import shapely
from geopandas.testing import assert_geodataframe_equal

from mmearth_data.earthengine.layercache import LayerRequest, default_folder, kept
from mmearth_data.source import Transient

REQUEST = LayerRequest("https://earthengine.googleapis.com", "USDOS/LSIB_SIMPLE/2017", 100.0)
FRAME = gpd.GeoDataFrame(
    {"country_na": ["Å", "B"], "wld_rgn": ["Africa", None]},
    geometry=[shapely.box(0, 0, 1, 1), shapely.MultiPolygon([shapely.box(2, 0, 3, 1), shapely.box(4, 0, 5, 1)])],
    crs=4326,
)


class Service:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> gpd.GeoDataFrame:
        self.asked += 1
        return FRAME


def test_a_layer_is_asked_for_once(tmp_path: Path) -> None:
    service = Service()
    for _ in range(3):
        assert_geodataframe_equal(kept(tmp_path / "a" / "b", REQUEST, service), FRAME)
    assert service.asked == 1
    assert_geodataframe_equal(gpd.read_parquet(REQUEST.file(tmp_path / "a" / "b")), FRAME)


@pytest.mark.parametrize(
    "change",
    [{"max_error": 50.0}, {"max_error": None}, {"asset": "RESOLVE/ECOREGIONS/2017"}, {"service": "http://127.0.0.1:1"}],
)
def test_another_question_is_another_file(tmp_path: Path, change: dict[str, object]) -> None:
    service = Service()
    kept(tmp_path, REQUEST, service)
    kept(tmp_path, replace(REQUEST, **change), service)  # type: ignore[arg-type]
    kept(tmp_path, REQUEST, service)
    assert service.asked == 2
    assert len(list(tmp_path.glob("*.parquet"))) == 2


@pytest.mark.parametrize("suffix", [".parquet", ".sha256"])
@pytest.mark.parametrize("how", ["flipped", "cut", "empty"])
def test_a_damaged_file_is_said_in_one_line_and_fetched_again(
    tmp_path: Path, suffix: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service()
    kept(tmp_path, REQUEST, service)
    (file,) = tmp_path.glob(f"*{suffix}")
    content = file.read_bytes()
    middle = len(content) // 2 if suffix == ".parquet" else 3
    damaged = {
        "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "cut": content[:middle],
        "empty": b"",
    }
    file.write_bytes(damaged[how])
    assert_geodataframe_equal(kept(tmp_path, REQUEST, service), FRAME)
    assert service.asked == 2
    (line,) = [record.getMessage() for record in caplog.records]
    assert "does not match its checksum; fetching it again" in line
    assert "\n" not in line
    kept(tmp_path, REQUEST, service)
    assert service.asked == 2


def test_a_checksum_that_was_never_written_means_fetching_again(tmp_path: Path) -> None:
    service = Service()
    kept(tmp_path, REQUEST, service)
    next(tmp_path.glob("*.sha256")).unlink()
    kept(tmp_path, REQUEST, service)
    assert service.asked == 2


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_the_checksum_is_one_that_sha256sum_checks(tmp_path: Path) -> None:
    kept(tmp_path, REQUEST, Service())
    (sums,) = tmp_path.glob("*.sha256")
    subprocess.run(["sha256sum", "--check", "--strict", sums.name], cwd=tmp_path, check=True, capture_output=True)


def test_a_folder_that_cannot_be_written_costs_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    service = Service()
    (tmp_path / "file").touch()
    assert_geodataframe_equal(kept(tmp_path / "file" / "folder", REQUEST, service), FRAME)
    assert "cannot keep" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_fails_is_not_kept(tmp_path: Path) -> None:
    def fails() -> gpd.GeoDataFrame:
        raise Transient("the page broke off")

    with pytest.raises(Transient):
        kept(tmp_path, REQUEST, fails)
    assert list(tmp_path.iterdir()) == []


def test_the_default_folder_is_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "mmearth" / "layers"
