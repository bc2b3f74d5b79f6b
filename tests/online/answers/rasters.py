"""Images: bands, masks, grids and composites, read at one pixel of a grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import ee
import numpy as np
from pyproj import Transformer

from tests.online.answers.case import (
    AFFINE,
    COLUMN,
    CRS,
    LEFT,
    ROW,
    SIDE,
    TOP,
    Case,
    around,
    at,
    box,
    bumps,
    bumpy,
    do,
    metres,
    point,
    value_of,
)

LEVELS = [5, 3, 8, 3, 1, 9, 4]
MASKED = 8
"""The image of a stack that is masked."""
SEEN = [level for level in LEVELS if level != MASKED]
HERE = bumpy(COLUMN, ROW)
_EAST, _NORTH = metres(COLUMN + 0.5, ROW + 0.5)
LON, LAT = Transformer.from_crs(CRS, "EPSG:4326", always_xy=True).transform(_EAST, _NORTH)


def _three() -> Any:
    return ee.Image.constant([1, 2, 3]).rename(["B1", "B2", "QA"])


def _named() -> Any:
    return _three().set({"p": 7.5, "system:time_start": 1_550_000_000_000, "system:index": "x7"})


def _stack(mask: bool = True) -> Any:
    levels = [ee.Image(v).updateMask(ee.Image(int(not mask or v != MASKED))).rename("v") for v in LEVELS]
    return ee.ImageCollection(levels)


def _pairs() -> Any:
    """Images of a quality and a value."""
    return ee.ImageCollection([ee.Image([q, v]).rename(["q", "v"]) for q, v in ((1, 10), (4, 40), (2, 20))])


def _coarse(factor: int) -> list[float]:
    return [factor * SIDE, 0, LEFT, 0, -factor * SIDE, TOP]


def _block(factor: int) -> list[float]:
    """The pixels that one of a coarser grid holds where images are read."""
    left, top = COLUMN // factor * factor, ROW // factor * factor
    return [bumpy(left + i, top + j) for j in range(factor) for i in range(factor)]


def _bilinear(x: float, y: float) -> float:
    """Between the centres of four pixels; ``x`` and ``y`` in pixels from the grid's corner."""
    column, row = math.floor(x - 0.5), math.floor(y - 0.5)
    right, down = x - 0.5 - column, y - 0.5 - row
    top = (1 - right) * bumpy(column, row) + right * bumpy(column + 1, row)
    bottom = (1 - right) * bumpy(column, row + 1) + right * bumpy(column + 1, row + 1)
    return (1 - down) * top + down * bottom


def _shifted_centre() -> tuple[float, float]:
    """The centre of the 7 m pixel that the pixel's centre lies in, in pixels of the grid."""
    x, y = (math.floor((place + 0.5) * SIDE / 7) * 7 + 3.5 for place in (COLUMN, ROW))
    return x / SIDE, y / SIDE


def _is_here(image: Any) -> Any:
    """Whether an image is valid at the pixel that is read."""
    return value_of(ee.Image(image).mask())


def _is_clipped_here(left: int) -> Any:
    """Whether it is so after a clip to features, of which one is a column of pixels."""
    features = [ee.Feature(box(left, 0, left + 1, 20)), ee.Feature(box(0, 0, 1, 1))]
    return _is_here(bumps().clipToCollection(ee.FeatureCollection(features)))


def _focal() -> Iterator[Case]:
    values = around(2)
    near = [values[2 + j][2 + i] for j in range(-2, 3) for i in range(-2, 3) if i * i + j * j <= 4]
    classes = [int(value) % 3 for value in near]
    expected: dict[str, tuple[float, bool]] = {
        "max": (max(near), False), "min": (min(near), False), "mean": (float(np.mean(near)), False),
        "median": (float(np.median(near)), False), "mode": (max(sorted(set(classes)), key=classes.count), True),
    }  # fmt: skip
    for name, (answer, classed) in expected.items():
        for full in (f"Image.focal{name.title()}", f"Image.focal_{name}"):
            yield Case(full, partial(_focused, full, classed), answer)


def _focused(name: str, classed: bool) -> Any:
    return value_of(do(name, bumps().toInt().mod(3) if classed else bumps(), 2))


COMPOSITES: dict[str, float] = {
    "and": all(SEEN), "or": any(SEEN), "count": len(SEEN), "max": max(SEEN), "min": min(SEEN),
    "mean": float(np.mean(SEEN)), "median": float(np.median(SEEN)), "mode": 3, "product": math.prod(SEEN),
    "sum": sum(SEEN),
}  # fmt: skip


def _composite(name: str) -> Any:
    return value_of(do(f"reduce.{name}", _stack()))


def _spread(reducer: Callable[[], Any]) -> Any:
    return at(_stack().reduce(reducer()))


BANDS = [
    Case("Image.addBands", lambda: _three().addBands(ee.Image(9).rename("B1")).bandNames(), ["B1", "B2", "QA", "B1_1"]),
    Case(
        "Image.addBands",
        lambda: at(_three().addBands(ee.Image(9).rename("B1"), None, True)),
        {"B1": 9, "B2": 2, "QA": 3},
    ),
    Case("Image.bandNames", lambda: _three().bandNames(), ["B1", "B2", "QA"]),
    Case("Image.bandTypes", lambda: ee.Dictionary(ee.Image(1).toUint8().bandTypes()).size(), 1),
    Case(
        "Image.cat",
        lambda: at(do("Image.cat", [_three(), ee.Image(8).rename("z")])),
        {"B1": 1, "B2": 2, "QA": 3, "z": 8},
    ),
    Case("Image.constant", lambda: at(ee.Image.constant([4, 2.5])), {"constant_0": 4, "constant_1": 2.5}),
    Case(
        "Image.copyProperties", lambda: ee.Image(do("Image.copyProperties", ee.Image(1), _named(), ["p"])).get("p"), 7.5
    ),
    Case("Image.date", lambda: _named().date().millis(), 1_550_000_000_000),
    Case(
        "Image.geometry",
        lambda: do("Image.geometry", bumps().clip(box(0, 0, 20, 10))).area(0.1, CRS),
        200 * SIDE**2,
        1e-3,
    ),
    Case("Image.id", lambda: _named().id(), "x7"),
    Case(
        "Image.linkCollection",
        lambda: at(
            _named()
            .linkCollection(ee.ImageCollection([ee.Image(6).rename("k").set("system:index", "x7")]), ["k"])
            .select("k")
        ),
        {"k": 6},
    ),
    Case(
        "Image.load",
        lambda: ee.Image("JRC/GSW1_4/GlobalSurfaceWater").bandNames(),
        ["occurrence", "change_abs", "change_norm", "seasonality", "recurrence", "transition", "max_extent"],
    ),
    Case("Image.metadata", lambda: at(_named().metadata("p")), {"p": 7.5}),
    Case(
        "Image.normalizedDifference", lambda: at(_three().normalizedDifference(["B2", "QA"])), {"nd": (2 - 3) / (2 + 3)}
    ),
    Case("Image.regexpRename", lambda: _three().regexpRename("^B", "band").bandNames(), ["band1", "band2", "QA"]),
    Case("Image.rename", lambda: _three().rename(["a", "b", "c"]).bandNames(), ["a", "b", "c"]),
    Case("Image.select", lambda: at(_three().select(["B.*"], ["x", "y"])), {"x": 1, "y": 2}),
    Case("Image.slice", lambda: at(_three().slice(1, 3)), {"B2": 2, "QA": 3}),
]

MASKS = [
    Case("Image.blend", lambda: value_of(ee.Image(1).blend(ee.Image(2).updateMask(bumps().gt(HERE)))), 1),
    Case("Image.blend", lambda: value_of(ee.Image(1).blend(ee.Image(2).updateMask(bumps().gte(HERE)))), 2),
    Case("Image.clip", lambda: _is_here(bumps().clip(box(0, 0, COLUMN + 1, ROW + 1))), 1),
    Case("Image.clip", lambda: _is_here(bumps().clip(box(0, 0, COLUMN, ROW + 1))), 0),
    Case(
        "Image.clipToBoundsAndScale",
        lambda: _is_here(do("Image.clipToBoundsAndScale", bumps(), box(0, 0, 5, 5), None, None, None, SIDE)),
        0,
    ),
    Case(
        "Image.clipToBoundsAndScale",
        lambda: _is_here(do("Image.clipToBoundsAndScale", bumps(), box(0, 0, 20, 20), None, None, None, SIDE)),
        1,
    ),
    *(
        Case("Image.clipToCollection", partial(_is_clipped_here, left), answer)
        for left, answer in ((COLUMN, 1), (COLUMN + 1, 0))
    ),
    Case("Image.mask", lambda: value_of(ee.Image(5).updateMask(0).mask()), 0),
    Case("Image.mask", lambda: value_of(ee.Image(5).mask()), 1),
    Case("Image.selfMask", lambda: _is_here(bumps().gt(HERE).selfMask()), 0),
    Case("Image.selfMask", lambda: _is_here(bumps().gte(HERE).selfMask()), 1),
    Case("Image.unmask", lambda: value_of(bumps().updateMask(0).unmask(-7)), -7),
    Case("Image.updateMask", lambda: _is_here(bumps().updateMask(bumps().neq(HERE))), 0),
    Case("Image.updateMask", lambda: _is_here(bumps().updateMask(bumps().eq(HERE))), 1),
    Case("Image.where", lambda: value_of(bumps().where(bumps().eq(HERE), -3)), -3),
    Case("Image.remap", lambda: value_of(bumps().toInt().remap([HERE, HERE + 1], [70, 80], 5)), 70),
]

GRIDS = [
    Case(
        "Image.changeProj",
        lambda: value_of(
            bumps().changeProj(ee.Projection(CRS, AFFINE), ee.Projection(CRS, [SIDE, 0, LEFT + SIDE, 0, -SIDE, TOP]))
        ),
        bumpy(COLUMN - 1, ROW),
    ),
    Case("Image.pixelArea", lambda: value_of(ee.Image.pixelArea()), SIDE**2 / 0.9996**2, 1e-3),
    Case(
        "Image.pixelCoordinates",
        lambda: at(ee.Image.pixelCoordinates(ee.Projection(CRS, AFFINE))),
        {"x": COLUMN + 0.5, "y": ROW + 0.5},
    ),
    Case("Image.pixelLonLat", lambda: at(ee.Image.pixelLonLat()), {"longitude": LON, "latitude": LAT}),
    Case("Image.projection", lambda: bumps().projection(), {"type": "Projection", "crs": CRS, "transform": AFFINE}),
    Case("Image.random", lambda: value_of(ee.Image.random(3).gte(0).And(ee.Image.random(3).lt(1))), 1),
    Case(
        "Image.reproject",
        lambda: value_of(bumps().reproject(CRS, _coarse(5))),
        bumpy(COLUMN // 5 * 5 + 2, ROW // 5 * 5 + 2),
    ),
    Case(
        "Image.reduceResolution",
        lambda: value_of(bumps().reduceResolution(ee.Reducer.mean(), False, 1024).reproject(CRS, _coarse(5))),
        float(np.mean(_block(5))),
    ),
    Case(
        "Image.resample",
        lambda: value_of(bumps().resample("bilinear").reproject(CRS, [7, 0, LEFT, 0, -7, TOP])),
        _bilinear(*_shifted_centre()),
    ),
    Case(
        "Image.setDefaultProjection",
        lambda: ee.Image(3).setDefaultProjection(CRS, AFFINE).projection(),
        {"type": "Projection", "crs": CRS, "transform": AFFINE},
    ),
    Case(
        "Terrain.slope",
        lambda: value_of(ee.Terrain.slope(_ramp(3, 4))),
        math.degrees(math.atan(math.hypot(3, 4) / SIDE)),
        1e-4,
    ),
]


def _ramp(east: float, south: float) -> Any:
    xy = ee.Image.pixelCoordinates(ee.Projection(CRS, AFFINE))
    return xy.select("x").multiply(east).add(xy.select("y").multiply(south)).reproject(CRS, AFFINE).rename("z")


def _indexed(value: int, index: str, band: str) -> Any:
    return ee.Image(value).rename(band).set("system:index", index)


GREYS = [round(255 * (value / 4) ** (1 / gamma)) for value, gamma in ((1, 1), (2, 2), (3, 0.5))]
COLOURS = [
    Case(
        "Image.visualize",
        lambda: at(_three().visualize(min=0, max=4, gamma=[1, 2, 0.5])),
        dict(zip(("vis-red", "vis-green", "vis-blue"), GREYS, strict=True)),
    ),
    Case("Image.visualize", lambda: at(_three().visualize("B2", gain=50, bias=20)), {"vis-gray": 2 * 50 + 20}),
    Case(
        "Image.visualize",
        lambda: at(_three().visualize(["QA"], min=0, max=12, palette=["000000", "green", "f80"])),
        {"vis-red": 0, "vis-green": 0x80 // 2, "vis-blue": 0},
    ),
    Case(
        "Image.visualize",
        lambda: at(ee.Image(0.8).visualize(forceRgbOutput=True)),
        dict.fromkeys(("vis-red", "vis-green", "vis-blue"), round(0.8 * 255)),
    ),
]

COLLECTIONS = [
    *(Case(f"reduce.{name}", partial(_composite, name), float(answer)) for name, answer in COMPOSITES.items()),
    Case(
        "ImageCollection.combine",
        lambda: at(
            ee.ImageCollection([_indexed(1, "p", "a")]).combine(ee.ImageCollection([_indexed(2, "p", "b")])).first()
        ),
        {"a": 1, "b": 2},
    ),
    Case("ImageCollection.fromImages", lambda: ee.ImageCollection.fromImages([ee.Image(1), ee.Image(2)]).size(), 2),
    Case(
        "ImageCollection.getRegion",
        lambda: ee.List(ee.ImageCollection([ee.Image(4).rename("v")]).getRegion(point(), SIDE).get(1)).get(4),
        4,
    ),
    Case(
        "ImageCollection.load",
        lambda: ee.ImageCollection("ECMWF/ERA5_LAND/MONTHLY_AGGR").filterDate("2019-01-01", "2020-01-01").size(),
        12,
    ),
    Case("ImageCollection.merge", lambda: _stack().merge(_stack()).size(), 2 * len(LEVELS)),
    Case(
        "ImageCollection.mosaic",
        lambda: value_of(ee.ImageCollection([ee.Image(7), ee.Image(9).updateMask(0)]).mosaic()),
        7,
    ),
    Case("ImageCollection.qualityMosaic", lambda: at(_pairs().qualityMosaic("q")), {"q": 4, "v": 40}),
    Case("ImageCollection.reduce", lambda: _spread(ee.Reducer.minMax), {"v_min": min(SEEN), "v_max": max(SEEN)}),
    Case(
        "ImageCollection.toBands",
        lambda: at(_stack(False).toBands()),
        {f"{k}_v": level for k, level in enumerate(LEVELS)},
    ),
    Case("Image.reduce", lambda: at(_three().reduce(ee.Reducer.mean())), {"mean": 2}),
]

CASES = [*BANDS, *MASKS, *GRIDS, *COLOURS, *COLLECTIONS, *_focal()]
