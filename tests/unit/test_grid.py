from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Transformer
from pyproj.aoi import AreaOfInterest
from pyproj.database import query_utm_crs_info

from mmearth_data import grid

ZONES = range(1, 61)


def plain_zone(lon: float, lat: float) -> int:
    """The MGRS zone, written out from the standard's table rather than computed."""
    if 56 <= lat < 64 and 3 <= lon < 12:
        return 32
    if 72 <= lat < 84:
        for west, east, zone in ((0, 9, 31), (9, 21, 33), (21, 33, 35), (33, 42, 37)):
            if west <= lon < east:
                return zone
    return next(z for z in ZONES if -186 + 6 * z <= lon < -180 + 6 * z)


def degrees(low: int, high: int) -> st.SearchStrategy[float]:
    """Thousandths of a degree in [low, high), so that borders themselves are drawn."""
    return st.integers(low * 1000, high * 1000 - 1).map(lambda k: k / 1000)


cells = st.builds(
    lambda zone, south, column, row, pixels: grid.Cells(
        np.array([zone]), np.array([south]), np.array([column]), np.array([row]), np.array([pixels])
    ),
    st.integers(1, 60),
    st.booleans(),
    st.integers(0, 2**16 - 1),
    st.integers(0, 2**16 - 1),
    st.integers(16, 4096),
)


@given(cells)
def test_ids_decode_to_the_cell_they_name(cell: grid.Cells) -> None:
    decoded = grid.decode(grid.encode(cell))
    for field in ("zone", "south", "column", "row", "pixels"):
        assert getattr(decoded, field) == getattr(cell, field)
    assert grid.encode(cell)[0] > 0


@given(cells, cells)
def test_different_cells_have_different_ids(one: grid.Cells, other: grid.Cells) -> None:
    same = all(getattr(one, f) == getattr(other, f) for f in ("zone", "south", "column", "row", "pixels"))
    assert (grid.encode(one)[0] == grid.encode(other)[0]) == same


@pytest.mark.parametrize("wrong", [0, -1, 128 << 39, (128 << 39) | (61 << 33), 5 << 39 | 31 << 33])
def test_a_number_that_names_no_cell_is_refused(wrong: int) -> None:
    with pytest.raises(ValueError, match="is not a location id"):
        grid.decode(wrong)


@given(degrees(-180, 180), degrees(-56, 84))
def test_zones_follow_the_standard(lon: float, lat: float) -> None:
    assert grid.zone_of(lon, lat) == plain_zone(lon, lat)


def test_zones_agree_with_the_epsg_database_away_from_the_exceptions() -> None:
    for lon, lat in [(lon, 40.0 * (-1) ** k) for k, lon in enumerate(np.arange(-177.0, 180, 36))]:
        (info,) = query_utm_crs_info("WGS 84", AreaOfInterest(lon - 1, lat, lon + 1, lat + 1))
        assert grid.decode(grid.cells_at(lon, lat)).epsg[0] == int(info.code)


@given(st.floats(-180, 179.999), st.floats(-55.9, 82.7), st.sampled_from([64, 128, 256]))
def test_a_point_lies_in_its_cell(lon: float, lat: float, pixels: int) -> None:
    cell = grid.decode(grid.cells_at(lon, lat, pixels))
    x, y = Transformer.from_crs(4326, int(cell.epsg[0]), always_xy=True).transform(lon, lat)
    assert cell.x0[0] <= x < cell.x0[0] + 10 * pixels
    assert cell.y0[0] - 10 * pixels <= y < cell.y0[0]
    assert cell.x0[0] % (10 * pixels) == 0
    assert cell.y0[0] % (10 * pixels) == 0


@pytest.mark.parametrize("pixels", [64, 128, 1024])
def test_every_border_point_of_an_eligible_cell_lies_in_its_zone_and_coverage(pixels: int) -> None:
    """All zones and hemispheres, drawn towards zone borders and the limits, borders traced by pyproj every 20 m."""
    draw = np.random.default_rng(3)
    border = draw.choice(np.arange(-180, 180, 3.0), 3000)
    lon = np.concatenate([draw.uniform(-180, 180, 1000), border + draw.normal(0, 0.05, 3000)])
    edges = draw.choice([-56.0, 0.0, 56.0, 64.0, 72.0, 82.8], 2000) + draw.normal(0, 0.05, 2000)
    lat = np.concatenate([np.degrees(np.arcsin(draw.uniform(-0.82, 0.99, 2000))), edges])
    ids = np.unique(grid.cells_at((lon + 180) % 360 - 180, lat, pixels))
    ids = ids[grid.eligible(ids)]
    found = grid.decode(ids)
    assert set(found.zone) == set(ZONES)
    assert set(found.south) == {True, False}
    step = np.arange(0, pixels * 10, 20.0)
    some = np.unique(np.linspace(0, len(ids) - 1, 100).astype(int))
    for epsg, x0, y0, zone, south in zip(
        *(part[some] for part in (found.epsg, found.x0, found.y0, found.zone, found.south)), strict=True
    ):
        end = pixels * 10
        x = x0 + np.concatenate([step, np.full_like(step, end), end - step, np.zeros_like(step)])
        y = y0 - np.concatenate([np.zeros_like(step), step, np.full_like(step, end), end - step])
        lons, lats = Transformer.from_crs(int(epsg), 4326, always_xy=True).transform(x, y)
        assert {plain_zone(a, b) for a, b in zip(lons, lats, strict=True)} == {zone}
        assert lats.min() >= -56
        assert lats.max() <= 82.8
        assert lats.max() <= 1e-9 if south else lats.min() >= -1e-9


def test_few_cells_are_lost_to_eligibility_inside_a_zone() -> None:
    draw = np.random.default_rng(1)
    ids = grid.cells_at(6.0 * draw.integers(-30, 30, 500) + draw.uniform(0.1, 5.9, 500), draw.uniform(-50, 50, 500))
    assert grid.eligible(ids).all()


def test_centres_are_where_pyproj_puts_them() -> None:
    ids = grid.cells_at([11.0, -70.0, 179.9], [47.0, -33.0, 65.0])
    lon, lat = grid.centres(ids)
    found = grid.decode(ids)
    for k in range(3):
        to_degrees = Transformer.from_crs(int(found.epsg[k]), 4326, always_xy=True)
        assert (lon[k], lat[k]) == to_degrees.transform(found.x0[k] + 640.0, found.y0[k] - 640.0)


def test_footprints_run_counter_clockwise_around_the_centre() -> None:
    ids = grid.cells_at([11.0, -70.0], [47.0, -33.0])
    lon, lat = grid.footprints(ids, per_edge=3)
    centre = np.column_stack(grid.centres(ids))
    for k in range(2):
        ring = shapely.Polygon(np.column_stack([lon[k], lat[k]]))
        assert ring.exterior.is_ccw
        assert ring.contains(shapely.Point(centre[k]))


def test_no_cells_have_no_centres_and_none_is_eligible() -> None:
    none = np.empty(0, dtype=np.int64)
    assert grid.eligible(none).shape == (0,)
    assert [part.shape for part in grid.centres(none)] == [(0,), (0,)]


def test_the_pixel_transform_starts_at_the_upper_left_corner() -> None:
    (cell,) = grid.cells_at(11.0, 47.0)
    a, b, c, d, e, f = grid.pixel_transform(int(cell))
    found = grid.decode(cell)
    assert (a, b, d, e) == (10, 0, 0, -10)
    assert (c, f) == (found.x0[0], found.y0[0])
    assert (a * 128 + c, e * 128 + f) == (found.x0[0] + 1280, found.y0[0] - 1280)
