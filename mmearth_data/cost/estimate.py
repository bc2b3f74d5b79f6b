"""What collecting the rest of a plan asks for: requests, EECU-hours by modality, bytes, hours.

Pure arithmetic over ``assumptions``, and over what a store's account has measured where there is one.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from mmearth_data.cost.account import FEATURES_KIND, PIXELS_KIND, REQUESTS_PER_BATCH, Measured
from mmearth_data.cost.assumptions import (
    EECU_SECONDS_PER_LAYER,
    EECU_SECONDS_PER_RESOLVED_LOCATION,
    NPY_HEADER_BYTES,
    REFERENCE_TILE_PIXELS,
    REQUESTS_PER_TILE,
    SECONDS_PER_HOUR,
    SECONDS_PER_REQUEST,
    STORED_BYTES_PER_PIXEL,
    TIERS,
    Range,
    layers_read,
)
from mmearth_data.modalities import MODALITIES, PIXEL
from mmearth_data.pace import rate_share

_ASSUMED = "assumed"
RESOLVING = "resolving"
"""What the locations' products and ERA5-Land's values cost together: it is asked for once, before any pixel."""


@dataclass(frozen=True)
class Work:
    """What is left to do: tiles to store, batches and locations to resolve.

    ``tile_pixels`` is a tile's edge; ``modalities`` are those whose pixels are fetched.
    """

    tiles: int
    locations: int
    batches: int
    tile_pixels: int
    modalities: tuple[str, ...] = tuple(modality.name for modality in PIXEL)


@dataclass(frozen=True)
class Estimate:
    """What the work asks for.

    ``eecu_hours``: modality, or ``resolving`` → EECU-hours. ``tiles_per_hour`` is the rate behind ``hours``. ``basis``
    says what each kind of ``requests`` and ``eecu_hours``, ``bytes_received``, ``bytes_stored``, ``hours`` rest on.
    """

    work: Work
    requests: dict[str, int]
    eecu_hours: dict[str, Range]
    bytes_received: int
    bytes_stored: int
    tiles_per_hour: float
    hours: float
    basis: dict[str, str]

    @property
    def eecu_hours_in_all(self) -> Range:
        """EECU-hours of everything together."""
        return sum(self.eecu_hours.values(), Range(0, 0))

    @property
    def months(self) -> dict[str, Range]:
        """Tier → how many of its monthly allowances that is."""
        return {tier: self.eecu_hours_in_all * (1 / allowance) for tier, allowance in TIERS.items()}

    def to_json(self) -> str:
        """The same as one JSON object."""
        total = {"eecu_hours_in_all": asdict(self.eecu_hours_in_all)}
        months = {"months": {tier: asdict(months) for tier, months in self.months.items()}}
        return json.dumps(asdict(self) | total | months, indent=1)


def estimate(work: Work, workers: int, measured: Measured | None = None) -> Estimate:
    """What ``work`` asks for with that many requests under way at once; ``measured`` replaces assumptions."""
    basis = {FEATURES_KIND: "two for each batch of locations"}

    def known(name: str, value: float | None, otherwise: float, source: str) -> float:
        basis[name] = source if value is None else "measured in this store"
        return otherwise if value is None else value

    m = measured or Measured()
    per_tile = known(PIXELS_KIND, m.requests_per_tile, REQUESTS_PER_TILE, _ASSUMED)
    pixels = work.tiles * per_tile
    received = known("bytes_received", m.bytes_received_per_tile, per_tile * answer_bytes(work), "bands, dtypes")
    stored = known("bytes_stored", m.bytes_stored_per_tile, STORED_BYTES_PER_PIXEL * work.tile_pixels**2, _ASSUMED)
    possible = min(workers / SECONDS_PER_REQUEST, rate_share(workers))
    taken = f"assumed: {workers} requests at once, {SECONDS_PER_REQUEST:g} s each"
    rate = known("hours", m.tiles_per_hour, possible / per_tile * SECONDS_PER_HOUR, taken)
    basis["eecu_hours"] = _ASSUMED
    if m.eecu_seconds_per_tile is not None:
        basis["eecu_hours"] = "what Cloud Monitoring reports of this store, shared out as assumed"
    return Estimate(
        work=work,
        requests={FEATURES_KIND: REQUESTS_PER_BATCH * work.batches, PIXELS_KIND: round(pixels)},
        eecu_hours=_eecu_hours(work, per_tile, m),
        bytes_received=round(work.tiles * received),
        bytes_stored=round(work.tiles * stored),
        tiles_per_hour=rate,
        hours=work.tiles / rate,
        basis=basis,
    )


def answer_bytes(work: Work) -> float:
    """Bytes of one computePixels answer: every band that is asked for, in its dtype.

    There are as many as layers are read, and one where layers are reduced to it.
    """
    asked = (MODALITIES[name] for name in work.modalities)
    per_pixel = sum(min(layers_read(m), len(m.bands)) * m.numpy_dtype.itemsize for m in asked)
    return per_pixel * work.tile_pixels**2 + NPY_HEADER_BYTES


def _eecu_hours(work: Work, per_tile: float, m: Measured) -> dict[str, Range]:
    """EECU-hours by modality; where their sum per stored tile is measured, in the proportions that are assumed."""
    larger = max(1.0, work.tile_pixels / REFERENCE_TILE_PIXELS)
    layers = {name: layers_read(MODALITIES[name]) for name in work.modalities}
    in_all = sum(layers.values())
    tile = EECU_SECONDS_PER_LAYER * (in_all * larger * per_tile)
    if m.eecu_seconds_per_tile is not None:
        tile = Range(m.eecu_seconds_per_tile, m.eecu_seconds_per_tile)
    resolving = EECU_SECONDS_PER_RESOLVED_LOCATION * work.locations
    if m.eecu_seconds_per_batch is not None:
        resolving = Range(m.eecu_seconds_per_batch, m.eecu_seconds_per_batch) * work.batches
    pixels = {name: tile * (share / in_all * work.tiles / SECONDS_PER_HOUR) for name, share in layers.items()}
    return {RESOLVING: resolving * (1 / SECONDS_PER_HOUR), **pixels}
