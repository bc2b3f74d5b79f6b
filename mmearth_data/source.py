"""What a source of imagery promises: resolve locations to acquisitions, fetch the pixels of one, fail by type.

Earth Engine, real or emulated, is the one source today; collection knows only this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from mmearth_data.modalities import Modality

Level = Literal["L1C", "L2A"]
MAX_ACQUISITIONS = 8
"""Sentinel-2 products kept per location, in the order in which they are tried."""


class SourceError(Exception):
    """A failure of the source; never a fact about the archive."""


class Transient(SourceError):  # noqa: N818 - the names are the contract's words
    """The same request may succeed later: server error, dropped connection, timeout."""


class Quota(SourceError):  # noqa: N818
    """The service asks for fewer requests: slow down, then ask again."""


class Spent(SourceError):  # noqa: N818
    """What the service grants for a day or a month is used up: stop, and run again once it is renewed."""


class Rejected(SourceError):  # noqa: N818
    """Our request or our credentials are wrong: stop and say why."""


class Corrupt(SourceError):  # noqa: N818
    """The answer has the wrong shape, is truncated or impossible; ``payload`` keeps its bytes for inspection.

    ``same_each_time`` is set by whoever repeats the request, once every answer was the same.
    """

    def __init__(self, message: str, payload: bytes = b"") -> None:
        super().__init__(message)
        self.payload = payload
        self.same_each_time = False


class Unavailable(Exception):  # noqa: N818 - a fact of the archive, not an error of the source
    """The archive has nothing for this request: a fact, recorded with its reason."""


class Absence(StrEnum):
    """Why a modality of a stored tile, or a whole location, has no data: the closed list of facts."""

    NOT_AT_LEVEL = "not_at_level"
    """The band exists only at the other Sentinel-2 level (SCL and MSK_CLDPRB are L2A products)."""
    NOT_IN_PRODUCT = "not_in_product"
    """This Sentinel-2 product was published without the band (MSK_CLDPRB)."""
    NO_PASS = "no_pass"
    """No Sentinel-1 product of either pass direction covers the cell within 30 days of the acquisition."""
    NO_SCENE = "no_scene"
    """No image of the collection lies over the cell in the period (Dynamic World's year, a Cloud Score+ twin)."""
    MASKED = "masked"
    """The asset has no valid pixel over the cell (sea in ERA5-Land, voids in elevation, no canopy estimate)."""
    NOT_PUBLISHED = "not_published"
    """The data set that the tile was converted from does not have the modality, or not for this tile."""
    NO_PRODUCT = "no_product"
    """No Sentinel-2 product of the year passes the scene cloud limit and covers the cell, or none of those resolved is
    in the archive any more: the location is vacant."""
    CLOUDY = "cloudy"
    """Every candidate product was too cloudy over the cell itself: the location is vacant."""
    GAPS = "gaps"
    """Every clear candidate product had no-data pixels over the cell: the location is vacant."""
    GIVEN_UP = "given_up"
    """No answer for it could be used, and a person decided to go past it: the location is vacant."""


@dataclass(frozen=True)
class RadarPass:
    """One Sentinel-1 GRD product over a cell: image id, acquisition time (ms since 1970, UTC) and its polarisations."""

    image_id: str
    time: int
    polarisations: tuple[str, ...]


@dataclass(frozen=True)
class Acquisition:
    """What was resolved for one location before any pixel is asked for; fetching it needs nothing else.

    ``sentinel2_id`` is a full image id; ``bands`` those the product has; ``time`` is in ms since 1970 (UTC);
    ``era5`` holds the registry's twelve values in K and m, NaN where ERA5-Land is masked.
    """

    location_id: int
    year: int
    level: Level
    sentinel2_id: str
    time: int
    scene_cloud: float
    baseline: str
    bands: tuple[str, ...]
    ascending: RadarPass | None
    descending: RadarPass | None
    era5: tuple[float, ...]

    @property
    def image_ids(self) -> tuple[str, ...]:
        """The full ids of the Sentinel-2 and Sentinel-1 products that it names."""
        return (self.sentinel2_id, *(radar.image_id for radar in (self.ascending, self.descending) if radar))

    def available(self, modality: Modality) -> tuple[str, ...]:
        """The bands of ``modality`` that can have data here, in registry order.

        Of Sentinel-2 and its masks those the product was published with, of Sentinel-1 the polarisations of each
        pass that was found, of everything else all.
        """
        if modality.name == "sentinel1":
            passes = (("asc", self.ascending), ("desc", self.descending))
            found = {f"{prefix}_{band}" for prefix, radar in passes if radar for band in radar.polarisations}
            return tuple(band for band in modality.bands if band in found)
        if modality.name.startswith("sentinel2"):
            return tuple(band for band in modality.bands if band in self.bands)
        return modality.bands


@dataclass(frozen=True)
class Location:
    """What resolving needs of a location: its id (which is its cell) and the calendar year of acquisition."""

    location_id: int
    year: int


@dataclass(frozen=True)
class Resolved:
    """A location's acquisitions in the order they are tried; none means the archive has no eligible product."""

    location_id: int
    acquisitions: tuple[Acquisition, ...]


@dataclass(frozen=True)
class Tile:
    """Pixels of one acquisition: every pixel modality asked for as (bands, height, width) in stored dtype.

    Bands that the product does not have are filled with no-data. ``absent`` gives the reason for each modality
    without one valid pixel.
    """

    acquisition: Acquisition
    pixels: dict[str, NDArray[np.generic]]
    absent: dict[str, Absence]


class Source(Protocol):
    """Something that resolves and fetches."""

    def resolve(self, locations: Sequence[Location]) -> list[Resolved]:
        """The acquisitions of each location, in the order given, with at most two requests per call."""
        ...

    def fetch(self, acquisition: Acquisition) -> Tile:
        """Every pixel modality of one tile, in one request.

        Raises Unavailable where a product that the acquisition names is in the archive no more.
        """
        ...
