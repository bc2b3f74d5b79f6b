"""What an archive offers the emulator: images with native pixel grids, collections, feature tables.

The procedural Earth and mounted files both speak these types; the algorithms know nothing else of where pixels
come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

Window = Callable[[int, int, int, int], tuple[NDArray[np.generic], NDArray[np.bool_]]]
"""read(row0, col0, height, width) → values and mask (True = valid), each (height, width), in native pixels.

Indices may be negative or beyond the image where the image has no ``shape``; within ``shape`` otherwise.
"""


@dataclass(frozen=True)
class NativeGrid:
    """A pixel grid: affine (a, b, c, d, e, f), x = a·col + b·row + c, y = d·col + e·row + f.

    ``crs`` is "EPSG:n", or a code of another authority where EPSG has none.
    """

    crs: str
    transform: tuple[float, float, float, float, float, float]
    shape: tuple[int, int] | None = None
    """(height, width), or None for an image without edges."""


@dataclass(frozen=True)
class BandAsset:
    """One band of an image: name, NumPy dtype name, native grid and a reader of windows of it."""

    name: str
    dtype: str
    grid: NativeGrid
    read: Window


@dataclass(frozen=True)
class ImageAsset:
    """One image: full id, bands, properties (``system:time_start`` in ms among them) and footprint.

    ``footprint`` is planar in degrees (EPSG:4326), or None for a global image. Pixels outside it are masked.
    """

    id: str
    bands: tuple[BandAsset, ...]
    properties: Mapping[str, Any]
    footprint: BaseGeometry | None


class CollectionAsset(Protocol):
    """An image collection that lists only what a query may hit."""

    @property
    def id(self) -> str:
        """The collection's full id."""
        ...

    def query(
        self, bounds: tuple[float, float, float, float] | None, start: int | None, end: int | None
    ) -> Iterable[ImageAsset]:
        """Images whose footprint may touch ``bounds`` (west, south, east, north), in [start, end) ms.

        A superset is allowed (filters are applied again by the caller); the order is the collection's own, by index.
        """
        ...

    def image(self, index: str) -> ImageAsset | None:
        """The image whose id is the collection's id, a slash and ``index``; None if there is none."""
        ...


@dataclass(frozen=True)
class FeatureAsset:
    """A table of features: (geometry in degrees, properties) in the table's own order."""

    id: str
    features: tuple[tuple[BaseGeometry, Mapping[str, Any]], ...]


class Archive(Protocol):
    """Everything that can be loaded by id."""

    def lookup(self, asset_id: str) -> ImageAsset | CollectionAsset | FeatureAsset | None:
        """The asset called ``asset_id`` (an image inside a collection by its full id), or None."""
        ...


@dataclass(frozen=True)
class TiledImage(ImageAsset):
    """One image whose pixels lie in several files with grids of their own; ``bands`` is empty, the tiles have them.

    Every tile has the same bands in the same order. ``footprint`` is the union of the tiles'.
    """

    tiles: tuple[ImageAsset, ...] = ()
