"""Whether tiles share ground, measured on their footprints and not on their ids."""

from __future__ import annotations

import numpy as np
import shapely
from pyproj import Transformer

from mmearth_data import grid


def overlaps(ids: np.ndarray) -> tuple[float, int]:
    """Greatest overlap in m² of two footprints, and how many pairs of different zones come within 0.01°.

    Footprints are drawn with 16 points an edge; pairs are found in degrees and measured in their UTM zone,
    or in an equal-area projection where they have two.
    """
    lon, lat = grid.footprints(ids, per_edge=16)
    lon = np.where(lon < -174, lon + 360, lon)  # zones 60 and 1 side by side
    shapes = shapely.polygons(np.stack([lon, lat], axis=-1))
    one, other = shapely.STRtree(shapes).query(shapes, predicate="dwithin", distance=1e-2)
    one, other = one[one < other], other[one < other]
    zone = grid.decode(ids).epsg
    crossing = zone[one] != zone[other]
    within_zone = shapely.intersection(*(utm_boxes(ids[side[~crossing]]) for side in (one, other)))
    equal_area = shapely.transform(
        shapes, Transformer.from_crs(4326, "ESRI:54034", always_xy=True).transform, interleaved=False
    )
    between = shapely.intersection(equal_area[one[crossing]], equal_area[other[crossing]])
    return float(shapely.area([*within_zone, *between]).max(initial=0)), int(crossing.sum())


def utm_boxes(ids: np.ndarray) -> np.ndarray:
    cells = grid.decode(ids)
    return shapely.box(cells.x0, cells.y0 - cells.size, cells.x0 + cells.size, cells.y0)
