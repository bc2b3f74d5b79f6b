from __future__ import annotations

import numpy as np
import pytest
import shapely

from mmearth_data import grid
from sampling.candidates import CellStream, cell_streams
from sampling.domains import domains

CORNERS = {
    "inside a zone": (10.0, 47.0, 10.4, 47.3),
    "across a zone border": (5.8, 45.0, 6.2, 45.3),
    "across the equator": (20.0, -0.2, 20.4, 0.2),
    "up to the antimeridian": (179.6, -17.0, 180.0, -16.7),
    "from the antimeridian": (-180.0, 66.0, -179.4, 66.2),
    "where 32V begins": (2.7, 55.9, 3.3, 56.1),
    "where 32V ends": (11.7, 63.9, 12.3, 64.1),
    "between 31X and 33X": (8.2, 78.0, 9.8, 78.2),
    "at the foot of the X zones": (5.4, 71.9, 6.6, 72.1),
    "at the southern limit": (-68.0, -56.2, -67.5, -55.9),
    "at the northern limit": (-33.0, 82.7, -31.0, 82.95),
}


def by_brute_force(shape: shapely.Geometry, pixels: int = 128) -> set[int]:
    """Eligible cells with their centre in a shape: every cell met by a lattice finer than the cells."""
    west, south, east, north = shape.bounds
    step = pixels * 10 / 111_320 / 2.2
    lon, lat = np.meshgrid(
        np.arange(west - 2 * step, east + 2 * step, step * np.cos(np.radians(max(abs(south), abs(north))))),
        np.arange(south - 2 * step, north + 2 * step, step),
    )
    ids = np.unique(grid.cells_at(lon.ravel(), lat.ravel(), pixels))
    ids = ids[grid.eligible(ids)]
    centre_lon, centre_lat = grid.centres(ids)
    return set(ids[shapely.contains_xy(shape, centre_lon, centre_lat)].tolist())


def streams(*shapes: shapely.Geometry, pixels: int = 128, key: int = 1) -> list[CellStream]:
    polygons = np.array(shapes, dtype=object)
    return cell_streams(polygons, domains(polygons, pixels), [key + k for k in range(len(shapes))])


def whole(stream: CellStream) -> list[int]:
    found = stream.take(stream.bound)
    assert stream.exhausted
    assert stream.bound == len(found)
    return found.tolist()


@pytest.mark.parametrize("where", CORNERS)
@pytest.mark.parametrize("pixels", [128, 200])
def test_a_stream_ends_with_every_eligible_cell_and_none_twice(where: str, pixels: int) -> None:
    west, south, east, north = CORNERS[where]
    shape = shapely.Polygon([(west, south), (east, south), (east, north), ((west + east) / 2, north), (west, south)])
    (stream,) = streams(shape, pixels=pixels)
    found = whole(stream)
    assert len(found) == len(set(found)) > 20
    assert set(found) == by_brute_force(shape, pixels)


def test_blocks_that_skip_the_polygon_test_change_nothing() -> None:
    """A shape wide enough for blocks inside it, with a hole and a part far away."""
    holed = shapely.box(20.0, 10.0, 21.2, 11.2) - shapely.Point(20.2, 10.2).buffer(0.1)
    far = shapely.box(-60, -10, -59.9, -9.9)
    polygons = np.array([shapely.union(holed, far)], dtype=object)
    inside = domains(polygons, 128)[0].inside
    assert 0 < inside.sum() < len(inside)
    assert set(whole(streams(polygons[0])[0])) == by_brute_force(holed) | by_brute_force(far)


def test_where_polygons_overlap_the_first_has_the_cells() -> None:
    first, second = shapely.box(10.0, 47.0, 10.3, 47.3), shapely.box(10.2, 46.9, 11.8, 48.5)
    one, other = (whole(stream) for stream in streams(first, second))
    assert not set(one) & set(other)
    assert set(one) == by_brute_force(first)
    assert set(one) | set(other) == by_brute_force(first) | by_brute_force(second)


def test_a_polygon_within_another_that_comes_first_has_no_cells() -> None:
    outer, inner = shapely.box(10.0, 47.0, 11.8, 48.5), shapely.box(10.7, 47.7, 10.9, 47.9)
    assert whole(streams(outer, inner)[1]) == []
    assert set(whole(streams(inner, outer)[0])) == by_brute_force(inner)


def test_the_first_cells_do_not_depend_on_how_many_are_asked_for() -> None:
    shape = shapely.box(10.0, 47.0, 10.6, 47.4)
    all_at_once = whole(streams(shape)[0])
    (stream,) = streams(shape)
    for count in (1, 7, 7, 3, 200, 500):
        assert stream.take(count).tolist() == all_at_once[:count]


def test_another_key_gives_another_order_of_the_same_cells() -> None:
    shape = shapely.box(10.0, 47.0, 10.6, 47.4)
    one, other = (whole(streams(shape, key=key)[0]) for key in (1, 99))
    assert set(one) == set(other)
    assert one[:20] != other[:20]


def test_a_polygon_beyond_coverage_has_no_cells() -> None:
    assert whole(streams(shapely.box(0, -80, 10, -60))[0]) == []
