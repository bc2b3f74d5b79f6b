"""The expression of a tile, encoded once per kind of tile and filled in for each, since the client takes long over it.

The client builds an expression out of hundreds of small objects and then encodes them, which takes more CPU than all
the rest of a request, though tiles of one kind differ in a few constants only: which products, when, where. Here the
image of a kind is built from placeholders and encoded by the client's own serialiser; a tile's values then take the
places of the placeholders. What comes out is, to the letter, what the client makes of the tile's own image.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn

import ee

from mmearth_data.earthengine.images import Cell, tile_image
from mmearth_data.source import Acquisition, RadarPass

Bands = dict[str, tuple[str, ...]]
_Values = Mapping[str, int | str]
_Part = Callable[[_Values], Any]
_Kind = tuple[Acquisition, Cell, tuple[tuple[str, tuple[str, ...]], ...]]

_TOKEN = re.compile("\0([a-z0-9]+)\0")
"""A placeholder within a text: no id and no CRS has a null character in it."""
_NUMBERS = {name: 7 * 10**12 * k + 1 for k, name in enumerate(("time", "asctime", "desctime", "x0", "y0"), start=1)}
"""What stands for whole numbers: far apart, so that what is added to one never makes another of it."""
_templates: dict[_Kind, _Part] = {}
"""What fills the expression of each kind: years × levels and published bands × polarisations, about a hundred."""


class Unfit(RuntimeError):  # noqa: N818 - it says what the builder is
    """An image builder makes more of a value than can be filled in later; the message says of which."""


def tile_expression(acquisition: Acquisition, cell: Cell, bands: Bands) -> dict[str, Any]:
    """``images.tile_image`` of the same arguments as the client encodes it, in a fraction of the time.

    Raises Unfit where a builder makes more of a value than can be filled in; the first tile of each kind is encoded
    both ways to find out.
    """
    values = _values(acquisition, cell)
    kind = (_placeholder(acquisition), Cell("\0crs\0", _number("x0"), _number("y0"), cell.pixels), tuple(bands.items()))
    fill = _templates.get(kind)
    if fill is None:
        encoded = ee.serializer.encode(tile_image(kind[0], kind[1], bands))
        fill = _part(encoded) or partial(_as_it_is, encoded)
        if fill(values) != ee.serializer.encode(tile_image(acquisition, cell, bands)):
            raise Unfit("an image builder makes of an acquisition what cannot be filled in; use its values as they are")
        _templates[kind] = fill
    filled: dict[str, Any] = fill(values)
    return filled


class _Number(int):
    """A placeholder of a whole number: it remembers what was added to it, and refuses what would be lost."""

    name: str

    @classmethod
    def of(cls, name: str, value: int) -> _Number:
        number = cls(value)
        number.name = name
        return number

    def __add__(self, other: int) -> _Number:
        return self.of(self.name, int.__add__(self, other))

    def __sub__(self, other: int) -> _Number:
        return self.of(self.name, int.__sub__(self, other))

    def _refuse(self, *_: object) -> NoReturn:
        raise Unfit(f"an image builder computes with {self.name}; let Earth Engine do so, or only add whole numbers")

    __radd__ = __add__
    __mul__ = __rmul__ = __truediv__ = __floordiv__ = __mod__ = __divmod__ = _refuse


def _number(name: str) -> _Number:
    return _Number.of(name, _NUMBERS[name])


def _placeholder(acquisition: Acquisition) -> Acquisition:
    """The acquisition with placeholders for what differs within a kind, and without what no pixel depends on."""

    def radar(name: str, found: RadarPass | None) -> RadarPass | None:
        return found and RadarPass(_token(name, found.image_id), _number(f"{name}time"), found.polarisations)

    return replace(
        acquisition,
        location_id=0,
        sentinel2_id=_token("sentinel2", acquisition.sentinel2_id),
        time=_number("time"),
        scene_cloud=-1.0,
        baseline="",
        ascending=radar("asc", acquisition.ascending),
        descending=radar("desc", acquisition.descending),
        era5=(),
    )


def _token(name: str, image_id: str) -> str:
    """The id with a placeholder for its last part, the image's index in its collection."""
    collection, slash, _ = image_id.rpartition("/")
    return f"{collection}{slash}\0{name}\0"


def _values(acquisition: Acquisition, cell: Cell) -> _Values:
    """What takes the places of the placeholders."""
    values: dict[str, int | str] = {
        "sentinel2": acquisition.sentinel2_id.rpartition("/")[2],
        "time": acquisition.time,
        "crs": cell.crs,
        "x0": cell.x0,
        "y0": cell.y0,
    }
    for name, radar in (("asc", acquisition.ascending), ("desc", acquisition.descending)):
        if radar is not None:
            values |= {name: radar.image_id.rpartition("/")[2], f"{name}time": radar.time}
    return values


def _part(node: Any) -> _Part | None:
    """What fills a node of an encoded expression; None where nothing in it is to be filled."""
    if isinstance(node, _Number):
        return partial(_shifted, node.name, int(node) - _NUMBERS[node.name])
    if isinstance(node, str):
        return partial(_spelt, node) if _TOKEN.search(node) else None
    if isinstance(node, dict):
        fields = {key: part for key, child in node.items() if (part := _part(child))}
        return partial(_with_fields, node, fields) if fields else None
    if isinstance(node, list):
        items = {index: part for index, child in enumerate(node) if (part := _part(child))}
        return partial(_with_items, node, items) if items else None
    return None


def _as_it_is(node: Any, values: _Values) -> Any:
    return node


def _shifted(name: str, shift: int, values: _Values) -> int:
    return int(values[name]) + shift


def _spelt(text: str, values: _Values) -> str:
    return _TOKEN.sub(lambda found: str(values[found[1]]), text)


def _with_fields(node: dict[str, Any], fields: dict[str, _Part], values: _Values) -> dict[str, Any]:
    return node | {key: part(values) for key, part in fields.items()}


def _with_items(node: list[Any], items: dict[int, _Part], values: _Values) -> list[Any]:
    return [items[index](values) if index in items else child for index, child in enumerate(node)]
