"""Random points in regions."""

from __future__ import annotations

import numpy as np
import shapely

from mmearth_data.emulator.collections import Collection, Listed
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.registry import algorithm
from mmearth_data.emulator.values import ErrorMargin, Feature, Geometry

MAX_POINTS = 100_000
_MAX_ROUNDS = 200


@algorithm("FeatureCollection.randomPoints")
def random_points(region: Geometry, points: int, seed: int, maxError: ErrorMargin) -> Collection:
    """Points spread evenly by area over a region; which ones depends on region and seed.

    Drawn from the region's bounds, evenly in longitude and in the sine of latitude, those outside left out.
    """
    if not 0 <= points <= MAX_POINTS:
        raise ServiceError(
            f"FeatureCollection.randomPoints: 'points' must be between 0 and {MAX_POINTS}; got {points}."
        )
    shape = region.degrees
    if shapely.area(shape) == 0:
        raise ServiceError("FeatureCollection.randomPoints: the region has no area.")
    west, south, east, north = shape.bounds
    low, high = np.sin(np.radians(np.clip([south, north], -90, 90)))
    draws = np.random.default_rng(abs(seed))
    shapely.prepare(shape)
    found = np.empty((0, 2))
    for _ in range(_MAX_ROUNDS):
        if len(found) >= points:
            break
        lon = draws.uniform(west, east, max(points, 64))
        lat = np.degrees(np.arcsin(draws.uniform(low, high, max(points, 64))))
        inside = shapely.contains_xy(shape, lon, lat)
        found = np.concatenate([found, np.column_stack([lon, lat])[inside]])
    if len(found) < points:
        raise ServiceError("FeatureCollection.randomPoints: the region fills too little of its bounds to be sampled.")
    return Listed([Feature(Geometry(shapely.Point(place)), {}) for place in found[:points].tolist()])
