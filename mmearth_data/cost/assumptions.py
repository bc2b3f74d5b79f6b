"""The figures behind an estimate: limits that Earth Engine documents, measurements of others, and assumptions.

Nothing here is used once a store's own account knows better (``estimate``). A *layer* is one band of one image over
one tile: what the service reads and computes with, however small the answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmearth_data.modalities import Modality


@dataclass(frozen=True)
class Range:
    """A figure between two bounds."""

    low: float
    high: float

    def __mul__(self, factor: float) -> Range:
        return Range(self.low * factor, self.high * factor)

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.high + other.high)


TIERS: dict[str, float] = {"Community": 150.0, "Contributor": 1_000.0, "Partner": 100_000.0}
"""EECU-hours a month of the non-commercial tiers (developers.google.com/earth-engine/guides/noncommercial_tiers)."""

SECONDS_PER_HOUR = 3600.0

_LAYERS_READ: dict[str, float] = {
    "sentinel2": 12.5,
    "sentinel2_cloudprod": 0.5,
    "sentinel2_scl": 0.5,
    "sentinel1": 4.0,
    "dynamic_world": 73.0,
}
"""Layers read for one tile where there is not one for each stored band.

Half of the tiles are L2A (12 bands, SCL and MSK_CLDPRB), half L1C (13 bands). Assumptions: two polarisations of both
Sentinel-1 passes; a Dynamic World scene every five days, Sentinel-2's revisit time, all of which the yearly mode reads.
"""


def layers_read(modality: Modality) -> float:
    """Layers read for one tile of a pixel modality: as many as it has bands, where nothing else is known."""
    return _LAYERS_READ.get(modality.name, float(len(modality.bands)))


EECU_SECONDS_PER_LAYER = Range(0.03, 0.11)
"""EECU-seconds to read one layer of 128 × 128 px and send it.

Measured by others: 0.232 and 0.751 EECU-seconds, in two benchmarks, per accepted tile of six Sentinel-2 bands behind a
Cloud Score+ mask, seven layers (github.com/OptimalConvergence/GEESampler, docs/EXPERIMENT_RESULTS.md, August 2026,
high-volume endpoint; 1.24 tries per accepted tile in the first). That it holds for other collections is an assumption.
"""

EECU_SECONDS_PER_RESOLVED_LOCATION = Range(1.1, 1.5)
"""EECU-seconds to find a location's products. Measured by others, for lists of scenes: 1.08 to 1.47 (same report)."""

REFERENCE_TILE_PIXELS = 128
"""Side of the tiles that the measurements are of. Smaller ones are assumed to cost as much, larger ones in proportion
to their side: from 128 to 512 px the report has factors of 2.3 and, with another cloud rule, 9."""

REQUESTS_PER_TILE = 1.12
"""computePixels per stored tile: the emulated Earth's, where one tile in ten is too cloudy. An assumption elsewhere."""

SECONDS_PER_REQUEST = 1.5
"""How long one computePixels takes. Measured by others: 95 % within 1.45 s at 128 px (same report)."""

STORED_BYTES_PER_PIXEL = 17.2
"""Bytes of a stored tile per pixel, all modalities together, compressed by default: 281 KB per tile of 128 × 128 px,
75 KB of 64 × 64 (18.3), measured on procedural tiles."""

NPY_HEADER_BYTES = 1024
"""Bytes of an answer beside its pixels: the structured header with its field names."""
