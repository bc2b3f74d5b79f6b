"""What expressions evaluate to, besides numbers, strings, lists and dictionaries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Protocol, overload

import shapely
from shapely.geometry.base import BaseGeometry

from mmearth_data.emulator.assets import ImageAsset, TiledImage
from mmearth_data.emulator.bands import Band, mosaic, source
from mmearth_data.emulator.edges import DEGREES, bent, moved
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.frames import Transform


@dataclass(frozen=True)
class Geometry:
    """A shape in a CRS; its edges are straight there, or along great circles if it is ``geodesic`` (degrees only)."""

    shape: BaseGeometry
    crs: str = DEGREES
    geodesic: bool = False

    @cached_property
    def degrees(self) -> BaseGeometry:
        """The shape in longitude and latitude, planar."""
        return bent(self.shape) if self.geodesic else moved(self.shape, self.crs, DEGREES)

    def within(self, crs: str) -> BaseGeometry:
        """The shape in another CRS, planar."""
        return moved(self.degrees if self.geodesic else self.shape, self.crs, crs)


@dataclass(frozen=True)
class Date:
    """A moment, in ms since 1970 (UTC)."""

    ms: int

    @property
    def utc(self) -> datetime:
        """The moment as a datetime."""
        return datetime.fromtimestamp(self.ms / 1000, UTC)


@dataclass(frozen=True)
class DateRange:
    """Moments from ``start`` up to but not including ``end``, in ms."""

    start: int
    end: int


@dataclass(frozen=True)
class Projection:
    """A CRS with the affine of a pixel grid."""

    crs: str
    transform: Transform = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True)
class ErrorMargin:
    """How far geometry may be off; simplifying alone uses it, since geometry here is exact."""

    value: float | None
    unit: str


@dataclass(frozen=True)
class PixelType:
    """The type of a band, by its NumPy name."""

    dtype: str


@dataclass(frozen=True)
class Feature:
    """A geometry (or none) with properties; ``system:index`` among them names it within its collection."""

    geometry: Geometry | None
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Image:
    """Bands with properties and a footprint in degrees (None: everywhere)."""

    bands: Sequence[Band]
    properties: Mapping[str, Any] = field(default_factory=dict)
    footprint: BaseGeometry | None = None

    def band(self, name: str) -> Band | None:
        """The band called ``name``, if there is one."""
        return next((band for band in self.bands if band.name == name), None)

    def with_bands(self, bands: tuple[Band, ...]) -> Image:
        """The same image with other bands."""
        return Image(bands, self.properties, self.footprint)


class Function(Protocol):
    """A function of an expression."""

    @property
    def keeps_element(self) -> bool:
        """Whether it visibly returns its only argument with footprint and time unchanged."""
        ...

    def __call__(self, *values: Any) -> Any:
        """The result for arguments by position."""
        ...


class _AssetBands(Sequence[Band]):
    """The bands of an asset, made when they are first looked at: most images of a listing are only filtered."""

    def __init__(self, asset: ImageAsset) -> None:
        self._asset = asset

    @cached_property
    def _bands(self) -> tuple[Band, ...]:
        asset = self._asset
        if not isinstance(asset, TiledImage):
            return tuple(source(band, asset.footprint) for band in asset.bands)
        tiles = [_AssetBands(tile) for tile in asset.tiles]
        return tuple(mosaic(list(bands)) for bands in zip(*tiles, strict=True))

    @overload
    def __getitem__(self, index: int) -> Band: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Band, ...]: ...
    def __getitem__(self, index: int | slice) -> Band | tuple[Band, ...]:
        return self._bands[index]

    def __len__(self) -> int:
        return len(self._bands)

    def __iter__(self) -> Iterator[Band]:
        return iter(self._bands)


def hashable(value: Any) -> Any:
    """A value as a key: numbers and texts as they are, whatever else as its text."""
    return value if isinstance(value, bool | int | float | str) else str(value)


def image_of(asset: ImageAsset) -> Image:
    """The image that an asset is, with the ids that Earth Engine adds to its properties."""
    properties = {**asset.properties, "system:id": asset.id, "system:index": asset.id.rpartition("/")[2]}
    return Image(_AssetBands(asset), properties, asset.footprint)


def moment(value: object) -> int:
    """Milliseconds since 1970 of a Date, of such a number, or of an ISO 8601 string (UTC by default); else a 400."""
    if isinstance(value, Date):
        return value.ms
    if isinstance(value, int | float) and not isinstance(value, bool):
        return checked(value)
    if isinstance(value, str):
        try:
            parsed = datetime.fromisoformat(value)
        except ValueError:
            raise ServiceError(f"Date: Bad date/time '{value}'.") from None
        return round((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp() * 1000)
    raise ServiceError(f"Date: cannot make a date of {type(value).__name__}.")


def checked(ms: float) -> int:
    """Milliseconds since 1970 as an integer; a 400 outside of the years 1 to 9999."""
    if not _FIRST_MS <= ms <= _LAST_MS:
        raise ServiceError(f"Date: {ms} ms since 1970 is beyond the emulator's calendar of the years 1 to 9999.")
    return int(ms)


_FIRST_MS, _LAST_MS = -62_135_596_800_000, 253_402_300_799_000


def time_of(element: Feature | Image) -> int | None:
    """``system:time_start`` of an element in ms, if it has one."""
    value = element.properties.get("system:time_start")
    return None if value is None else moment(value)


def shape_of(element: Feature | Image) -> BaseGeometry | None:
    """An element's geometry in degrees: a feature's own, an image's footprint (the whole Earth if it has no edge)."""
    if isinstance(element, Feature):
        return None if element.geometry is None else element.geometry.degrees
    return shapely.box(-180, -90, 180, 90) if element.footprint is None else element.footprint
