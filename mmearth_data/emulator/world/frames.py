"""Frames: the UTM zones in which the world's fine detail is defined, and how any pixel grid finds its place in them.

Every point has one frame, the UTM zone of its longitude and hemisphere (without the exceptions around Norway and
Svalbard), so what lies at a point does not depend on the projection it is asked in. A frame's pixels are 10 m wide;
``column`` counts eastwards from easting 0, ``row`` southwards from northing 0 (so rows of the north are negative).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer

from mmearth_data.emulator.world.compiled import compiled

PIXEL = 10.0
EQUATOR_ROWS = 1_000_000
"""Rows between northing 0 and the equator in southern frames."""
_NODE_METRES = 320.0
"""Distance of exactly transformed points; bilinear between them errs by under 0.1 m up to latitude 84."""
_DEGREE_METRES = 111_320.0

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Affine = tuple[float, float, float, float, float, float]


@cache
def _transformer(source: int, target: int) -> Transformer:
    return Transformer.from_crs(f"EPSG:{source}", f"EPSG:{target}", always_xy=True)


def to_lonlat(epsg: int, x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[F64, F64]:
    """Longitude and latitude in degrees of projected points."""
    lon, lat = _transformer(epsg, 4326).transform(x, y)
    return np.asarray(lon, dtype=np.float64), np.asarray(lat, dtype=np.float64)


def from_lonlat(epsg: int, lon: NDArray[np.float64], lat: NDArray[np.float64]) -> tuple[F64, F64]:
    """Easting and northing in metres of points in degrees."""
    x, y = _transformer(4326, epsg).transform(lon, lat)
    return np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)


def frame_of(lon: F64, lat: F64) -> I64:
    """EPSG code of each point's frame."""
    zone = np.floor((np.mod(lon + 180.0, 360.0)) / 6.0).astype(np.int64) + 1
    return np.where(lat < 0.0, 32700, 32600) + np.minimum(zone, 60)


def is_utm(epsg: int) -> bool:
    """Whether a code is a UTM zone of WGS 84, hence possibly a frame."""
    return 32601 <= epsg <= 32660 or 32701 <= epsg <= 32760


@lru_cache(maxsize=65536)
def lies_inside(epsg: int, west: float, south: float, east: float, north: float) -> bool:
    """Whether a box in projected metres lies wholly within the area of the frame ``epsg``."""
    if not is_utm(epsg):
        return False
    middle = (west + east) / 2
    x = np.array([west, middle, east, west, east, west, middle, east])
    y = np.array([north, north, north, (north + south) / 2, (north + south) / 2, south, south, south])
    lon, lat = to_lonlat(epsg, x, y)
    return bool((frame_of(lon, lat) == epsg).all())


@dataclass(frozen=True)
class Patch:
    """Where the pixels of a window lie in one frame: ``rows`` and ``columns`` there, in frame pixels as floats.

    ``inside`` tells which pixels of the window belong to this frame (None: all of them).
    """

    epsg: int
    rows: F64
    columns: F64
    inside: NDArray[np.bool_] | None


@compiled
def _spread(nodes: F64, at_rows: F64, at_columns: F64) -> F64:
    """Bilinear values between nodes at fractional node positions (rows × columns)."""
    out = np.empty((len(at_rows), len(at_columns)), dtype=np.float64)
    down = np.empty(nodes.shape[1], dtype=np.float64)
    for row in range(len(at_rows)):
        i = min(int(at_rows[row]), nodes.shape[0] - 2)
        s = at_rows[row] - i
        for j in range(len(down)):
            down[j] = nodes[i, j] * (1.0 - s) + nodes[i + 1, j] * s
        for column in range(len(at_columns)):
            j = min(int(at_columns[column]), nodes.shape[1] - 2)
            t = at_columns[column] - j
            out[row, column] = down[j] * (1.0 - t) + down[j + 1] * t
    return out


def locate(epsg: int, transform: Affine, row0: int, column0: int, height: int, width: int) -> tuple[Patch, ...]:
    """Where the pixel centres of a window of any north-up grid lie, one patch per frame that the window touches."""
    a, _, c, _, e, f = transform
    metres = _DEGREE_METRES if epsg == 4326 else 1.0
    # Meridians converge with latitude, so nodes as close in degrees are never further apart in metres.
    steps = [
        max(1, int(np.ceil(count * abs(size) * metres / _NODE_METRES))) for count, size in ((height, e), (width, a))
    ]
    node_rows = np.linspace(row0, row0 + height, steps[0] + 1)
    node_columns = np.linspace(column0, column0 + width, steps[1] + 1)
    shape = len(node_rows), len(node_columns)
    x, y = np.broadcast_to(a * node_columns + c, shape), np.broadcast_to((e * node_rows + f)[:, None], shape)
    lon, lat = (x, y) if epsg == 4326 else to_lonlat(epsg, x, y)
    at_rows = (np.arange(height, dtype=np.float64) + 0.5) * (steps[0] / height)
    at_columns = (np.arange(width, dtype=np.float64) + 0.5) * (steps[1] / width)
    # A window that touches the antimeridian from either side must not be interpolated across it.
    reference = float(lon.flat[0])
    lon = reference + (np.mod(lon - reference + 180.0, 360.0) - 180.0)
    frames = set(frame_of(lon, lat).ravel().tolist())
    owner = None
    if len(frames) > 1:
        owner = frame_of(_spread(lon, at_rows, at_columns), _spread(np.ascontiguousarray(lat), at_rows, at_columns))
        frames = set(np.unique(owner).tolist())
    patches = []
    for frame in sorted(frames):
        east, north = from_lonlat(frame, lon, lat)
        patches.append(
            Patch(
                epsg=frame,
                rows=_spread(-north / PIXEL, at_rows, at_columns),
                columns=_spread(east / PIXEL, at_rows, at_columns),
                inside=None if owner is None else owner == frame,
            )
        )
    return tuple(patches)
