"""Questions whose answers follow from Earth Engine's semantics alone, by the algorithm that each is about.

``CASES`` come with their answers, worked out elsewhere; ``QUESTIONS`` are those on which the service and the emulator
are to agree, whatever they say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ee

from tests.online.answers import arithmetic, plain, rasters, reducing, shapes, tables

CASES = [*arithmetic.CASES, *plain.CASES, *shapes.CASES, *tables.CASES, *rasters.CASES, *reducing.CASES]
LIST = [5, 3, 8, 3, 1, 9, 4]
TRIANGLE = [[300033, 6199951], [300512, 6199777], [300207, 6199402]]
CRS = "EPSG:32633"


def _region() -> Any:
    return ee.Geometry.Polygon([TRIANGLE], CRS, False)


def _ramp() -> Any:
    """Columns and rows of a 10 m grid, as one number."""
    grid = ee.Projection(CRS, [10, 0, 300000, 0, -10, 6200000])
    xy = ee.Image.pixelCoordinates(grid).floor()
    return xy.select("x").add(xy.select("y").multiply(100)).toInt32().reproject(grid).rename("r")


def _statistic(reducer: ee.Reducer) -> Any:
    return _ramp().reduceRegion(reducer, _region(), 10, CRS)


def _at(image: ee.Image) -> Any:
    point = ee.Geometry.Point([300123.0, 6199741.0], CRS)
    return image.reduceRegion(ee.Reducer.first(), point, crs=CRS, crsTransform=[10, 0, 300000, 0, -10, 6200000])


def _stack() -> Any:
    return ee.ImageCollection([ee.Image(v).updateMask(ee.Image(int(v != 8))).rename("v") for v in LIST])


QUESTIONS: dict[str, Callable[[], Any]] = {
    "List.slice": lambda: ee.List(LIST).slice(1, 6, 2),
    "List.sort": lambda: ee.List(LIST).sort(),
    "List.sequence": lambda: ee.List.sequence(1, 9, 2),
    "List.flatten": lambda: ee.List([1, [2, [3]], []]).flatten(),
    "List.rotate": lambda: ee.List(LIST).rotate(2),
    "List.frequency": lambda: ee.List(LIST).frequency(3),
    "Dictionary.combine": lambda: ee.Dictionary({"a": 1}).combine({"a": 2, "b": 3}, False),
    "Dictionary.toImage": lambda: ee.Dictionary({"b": 2, "a": 1}).toImage().bandNames(),
    "String.replace": lambda: ee.String("a1b2").replace("([0-9])", "<$1>", "g"),
    "String.match": lambda: ee.String("S2A_2019").match("([A-Z])([0-9])"),
    "Number.toInt8": lambda: ee.Number(-300.7).toInt8(),
    "Number.mod": lambda: ee.Number(-7).mod(4),
    "Number.format": lambda: ee.Number(3.14159).format("%.2f"),
    "Number.round": lambda: ee.Number(-2.5).round(),
    "Number.divide": lambda: ee.Number(1).divide(0),
    "Date.format": lambda: ee.Date("2019-03-07T16:05:09").format("EEE d MMMM YYYY, D"),
    "Date.getRelative": lambda: ee.Date("2019-03-07").getRelative("day", "year"),
    "Date.advance": lambda: ee.Date("2020-01-31").advance(1, "month").format("YYYY-MM-dd"),
    "Date.difference": lambda: ee.Date("2020-03-01").difference("2020-01-01", "month"),
    "Reducer.median": lambda: ee.List(LIST).reduce(ee.Reducer.median()),
    "Reducer.percentile": lambda: ee.List(LIST).reduce(ee.Reducer.percentile([25, 50])),
    "Reducer.mode": lambda: ee.List(LIST).reduce(ee.Reducer.mode()),
    "Reducer.stdDev": lambda: ee.List(LIST).reduce(ee.Reducer.stdDev()),
    "Reducer.sampleVariance": lambda: ee.List(LIST).reduce(ee.Reducer.sampleVariance()),
    "Reducer.skew": lambda: ee.List(LIST).reduce(ee.Reducer.skew()),
    "Reducer.kurtosis": lambda: ee.List(LIST).reduce(ee.Reducer.kurtosis()),
    "Reducer.linearFit": lambda: ee.List([[0, 1], [1, 3], [2, 6]]).reduce(ee.Reducer.linearFit()),
    "Reducer.frequencyHistogram": lambda: ee.List(LIST).reduce(ee.Reducer.frequencyHistogram()),
    "Image.reduceRegion, mean": lambda: _statistic(ee.Reducer.mean()),
    "Image.reduceRegion, sum": lambda: _statistic(ee.Reducer.sum()),
    "Image.reduceRegion, count": lambda: _statistic(ee.Reducer.count()),
    "Image.reduceRegion, max": lambda: _statistic(ee.Reducer.max()),
    "Image.reduceRegion, unweighted": lambda: _statistic(ee.Reducer.mean().unweighted()),
    "Reducer.combine, one of two unweighted": lambda: _statistic(
        ee.Reducer.sum().combine(ee.Reducer.count(), "", True)
    ),
    "Image.reproject": lambda: _at(_ramp().reproject(CRS, [50, 0, 300000, 0, -50, 6200000])),
    "Image.resample": lambda: _at(_ramp().resample("bilinear").reproject(CRS, [7, 0, 300000, 0, -7, 6200000])),
    "Image.reduceResolution": lambda: _at(
        _ramp().reduceResolution(ee.Reducer.mean(), False, 1024).reproject(CRS, [50, 0, 300000, 0, -50, 6200000])
    ),
    "Image.clip": lambda: _at(_ramp().clip(_region())),
    "Image.where": lambda: _at(_ramp().where(_ramp().gt(3), ee.Image(7))),
    "Image.unmask": lambda: _at(_ramp().updateMask(0).unmask(-1)),
    "Image.remap": lambda: _at(_ramp().mod(10).remap([1, 2], [10, 20], 5)),
    "Image.convolve": lambda: _at(_ramp().convolve(ee.Kernel.square(1))),
    "Image.focalMax": lambda: _at(_ramp().focalMax(2.5)),
    "Image.reduceNeighborhood": lambda: _at(_ramp().reduceNeighborhood(ee.Reducer.mean(), ee.Kernel.square(1))),
    "Image.pixelLonLat": lambda: _at(ee.Image.pixelLonLat()),
    "Image.pixelArea": lambda: _at(ee.Image.pixelArea()),
    "Image.add, type": lambda: ee.Image(200).toByte().add(ee.Image(200).toByte()).bandTypes(),
    "Image.bitwiseAnd": lambda: _at(_ramp().bitwiseAnd(12)),
    "ImageCollection.mosaic": lambda: _at(_stack().mosaic()),
    "ImageCollection.reduce, count": lambda: _at(_stack().reduce(ee.Reducer.count())),
    "reduce.median": lambda: _at(_stack().median()),
    "reduce.mode": lambda: _at(_stack().mode()),
    "ImageCollection.toBands": lambda: _stack().toBands().bandNames(),
    "Projection.nominalScale": lambda: ee.Projection("EPSG:4326").atScale(30).nominalScale(),
    "Geometry.area": lambda: ee.Geometry.Polygon([[0, 50], [20, 50], [20, 55], [0, 55]]).area(1),
    "Geometry.area, planar": lambda: ee.Geometry.Polygon([[0, 50], [20, 50], [20, 55], [0, 55]], None, False).area(1),
    "Geometry.length": lambda: ee.Geometry.LineString([[10, 50], [11, 51]]).length(1),
    "Geometry.distance": lambda: ee.Geometry.Point([10, 50]).distance(ee.Geometry.Point([11, 51]), 1),
    "Geometry.buffer": lambda: ee.Geometry.Point([10, 50]).buffer(1000).area(1),
    "Geometry.centroid": lambda: ee.Geometry.Rectangle([10, 50, 12, 51], None, False).centroid(1).coordinates(),
    "Geometry.intersection": lambda: _region().intersection(_region().buffer(-50, 1, CRS), 1, CRS).area(1, CRS),
    "Collection.reduceColumns": lambda: ee.FeatureCollection(
        [ee.Feature(None, {"v": v, "w": v % 2}) for v in LIST]
    ).reduceColumns(ee.Reducer.sum().group(1, "w"), ["v", "w"]),
    "AggregateFeatureCollection.stats": lambda: ee.FeatureCollection(
        [ee.Feature(None, {"v": v}) for v in LIST]
    ).aggregate_stats("v"),
}
