"""Expressions filled into templates are those that the client makes of the tiles' own images, and travel as they do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import ee
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmearth_data import grid
from mmearth_data.earthengine import images, templates
from mmearth_data.earthengine.images import Cell, tile_image
from mmearth_data.earthengine.pixels import cell_of, request_body, requested
from mmearth_data.earthengine.session import EarthEngineSource, connect
from mmearth_data.earthengine.templates import Unfit, tile_expression
from mmearth_data.modalities import MODALITIES
from mmearth_data.source import Acquisition, Level, RadarPass
from tests.integration.test_earthengine_session import Scripted, scripted

S1, S2 = "COPERNICUS/S1_GRD", MODALITIES["sentinel2"].assets
POLARISATIONS = (("VV", "VH"), ("HH", "HV"), ("VV",))
OPTIONAL = ("B10", "QA60", "SCL", "MSK_CLDPRB")
EXAMPLE = Acquisition(
    location_id=int(grid.cells_at(9.5, 45.0, 16)[0]),
    year=2019,
    level="L2A",
    sentinel2_id=f"{S2[0]}/20190701T101029_20190701T101419_T32TNQ",
    time=1_561_939_200_000,
    scene_cloud=3.5,
    baseline="02.12",
    bands=tuple(band for band in MODALITIES["sentinel2"].bands if band != "B10"),
    ascending=RadarPass(f"{S1}/S1A_IW_GRDH", 1_561_900_000_000, POLARISATIONS[0]),
    descending=None,
    era5=(280.0,) * 12,
)


@pytest.fixture(scope="module")
def connected() -> Iterator[tuple[EarthEngineSource, list[dict[str, Any]]]]:
    """The client, and the bodies of the requests that it sends; every answer is the same few bytes."""

    def answer(handler: Scripted) -> None:
        handler.reply(200, b"pixels", "application/octet-stream")

    with scripted(answer) as (url, posts):
        yield connect(None, url), posts


@st.composite
def acquisitions(draw: st.DrawFn) -> Acquisition:
    """Places, moments, products and passes of every kind."""

    def radar() -> RadarPass | None:
        image_id = f"{S1}/S1A_IW_{draw(st.integers(0, 10**9))}"
        found = RadarPass(image_id, draw(st.integers(0, 2 * 10**12)), draw(st.sampled_from(POLARISATIONS)))
        return draw(st.sampled_from((None, found)))

    lon, lat = draw(st.floats(-179, 179)), draw(st.floats(-55, 82))
    level: Level = draw(st.sampled_from(("L1C", "L2A")))
    published = draw(st.sets(st.sampled_from(OPTIONAL)))
    optical = tuple(band for band in MODALITIES["sentinel2"].bands if band not in OPTIONAL)
    return Acquisition(
        location_id=int(grid.cells_at(lon, lat, draw(st.sampled_from((16, 128))))[0]),
        year=draw(st.integers(2017, 2024)),
        level=level,
        sentinel2_id=f"{S2[level == 'L1C']}/{draw(st.integers(0, 10**9))}T_T32TQM",
        time=draw(st.integers(0, 2 * 10**12)),
        scene_cloud=draw(st.floats(0, 10)),
        baseline=draw(st.sampled_from(("02.05", "05.09"))),
        bands=(*optical, *sorted(published)),
        ascending=radar(),
        descending=radar(),
        era5=(float(draw(st.integers(250, 300))),) * 12,
    )


@settings(max_examples=25, deadline=None)
@given(first=acquisitions(), data=st.data())
def test_what_is_filled_in_is_what_the_client_encodes(
    connected: tuple[EarthEngineSource, list[dict[str, Any]]], first: Acquisition, data: st.DataObject
) -> None:
    other = data.draw(acquisitions())
    again = replace(first, location_id=other.location_id, time=other.time, sentinel2_id=f"{first.sentinel2_id}_again")
    for acquisition in (first, other, again):
        cell, bands = cell_of(acquisition), requested(acquisition)
        assert tile_expression(acquisition, cell, bands) == ee.serializer.encode(tile_image(acquisition, cell, bands))


def test_an_encoded_expression_travels_as_the_clients_own_request_does(
    connected: tuple[EarthEngineSource, list[dict[str, Any]]],
) -> None:
    source, posts = connected
    body, image = request_body(EXAMPLE), tile_image(EXAMPLE, cell_of(EXAMPLE), requested(EXAMPLE))
    del posts[:]
    assert source.compute_pixels(body) == source.compute_pixels({**body, "expression": image}) == b"pixels"
    assert posts[0] == posts[1]
    assert posts[0]["workloadTag"] == source.tag


@pytest.mark.parametrize(
    "use",
    [
        lambda acquisition: acquisition.time // 86_400_000,
        lambda acquisition: len(acquisition.sentinel2_id),
        lambda acquisition: round(acquisition.scene_cloud * 100),
    ],
)
def test_a_builder_that_makes_more_of_a_value_is_found_out(
    connected: tuple[EarthEngineSource, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch, use: Any
) -> None:
    def build(acquisition: Acquisition, cell: Cell, bands: tuple[str, ...]) -> ee.Image:
        return ee.Image.constant(use(acquisition)).rename(list(bands))

    monkeypatch.setitem(images.BUILDERS, "aster", build)
    monkeypatch.setattr(templates, "_templates", {})
    with pytest.raises(Unfit, match="image builder"):
        tile_expression(EXAMPLE, cell_of(EXAMPLE), requested(EXAMPLE))
