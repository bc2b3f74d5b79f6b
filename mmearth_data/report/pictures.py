"""Pixels as pictures: composites of optical and radar bands, palettes for classes, colour maps for the rest.

A picture shows no-data as transparent. What a modality has no composite or palette of its own for is drawn by its
kind, so a new modality shows up without a change here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.colors import Colormap, to_hex, to_rgb
from numpy.typing import NDArray
from PIL import Image

from mmearth_data.modalities import PIXEL, Modality

FloatArray = NDArray[np.float64]

LOW, HIGH = 2.0, 98.0
"""Percentiles between which a picture is stretched; a few bright pixels must not turn the rest black."""
_GAMMA = 0.8

OPTICAL = {"natural colour": ("B4", "B3", "B2"), "near infrared": ("B8", "B4", "B3")}
"""Sentinel-2 composites, bands as (red, green, blue)."""
RADAR_MODES = (("VV", "VH"), ("HH", "HV"))
RADAR_RANGES = ((-20.0, 0.0), (-28.0, -8.0), (2.0, 16.0))
"""dB ranges of the radar composite's red (co-polarised), green (cross-polarised) and blue (their ratio)."""

PALETTES: dict[str, tuple[str, ...]] = {
    "esa_worldcover": (
        "#006400", "#ffbb22", "#ffff4c", "#f096ff", "#fa0000", "#b4b4b4", "#f0f0f0", "#0064c8", "#0096a0", "#00cf75",
        "#fae6a0",
    ),
    "dynamic_world": (
        "#419bdf", "#397d49", "#88b053", "#7a87c6", "#e49635", "#dfc35a", "#c4281b", "#a59b8f", "#b39fe1",
    ),
    "sentinel2_scl": (
        "#ff0004", "#868686", "#774b0a", "#10d22c", "#ffff52", "#0000ff", "#818181", "#c0c0c0", "#f1f1f1", "#bac5eb",
        "#52fff9",
    ),
}  # fmt: skip
"""Colours in class order, as the products' own catalogue pages give them."""
_FLAGS = ((0, "clear"), (1024, "opaque cloud"), (2048, "cirrus"), (3072, "both"))
_FLAG_PALETTE = ("#3d7a4f", "#f1f1f1", "#bac5eb", "#d9a5c9")
_COLOUR_MAPS = {
    "canopy_height_eth": "YlGn",
    "aster": "gist_earth",
    "cloud_score": "Blues_r",
    "sentinel2_cloudprod": "Blues",
    "jrc_surface_water": "Blues",
    "ghsl_built_surface": "inferno",
}


@dataclass(frozen=True)
class View:
    """One way of showing one modality: the bands it needs, and what its colours mean where they are not classes."""

    modality: Modality
    title: str
    bands: tuple[str, ...]
    meaning: str


def views(modalities: Iterable[Modality] = PIXEL) -> Iterator[View]:
    """Every way of showing those of ``modalities`` that are pixels, in their order."""
    for modality in (one for one in modalities if one.scope == "pixel"):
        if modality.name == "sentinel2":
            for title, bands in OPTICAL.items():
                yield View(modality, title, bands, f"{', '.join(bands)} as red, green, blue")
        elif modality.name == "sentinel1":
            for prefix, title in (("asc", "ascending"), ("desc", "descending")):
                polarised = tuple(f"{prefix}_{band}" for mode in RADAR_MODES for band in mode)
                yield View(modality, title, polarised, "VV, VH, VV − VH as red, green, blue (HH, HV where VV is not)")
        else:
            for band in modality.bands:
                yield View(modality, band, (band,), "")


def classes(modality: Modality) -> tuple[tuple[tuple[int, str], ...], tuple[str, ...]]:
    """The (value, name) pairs that a modality's pixels are drawn by and their colours; empty where they are none."""
    if modality.name == "sentinel2_cloudmask":
        return _FLAGS, _FLAG_PALETTE
    colours = PALETTES.get(modality.name)
    if colours is None:
        steps = np.linspace(0, 1, max(1, len(modality.classes)))
        colours = tuple(to_hex(mpl.colormaps["turbo"](step)) for step in steps[: len(modality.classes)])
    return modality.classes, colours


def with_gaps(modality: Modality, stored: NDArray[np.generic]) -> FloatArray:
    """Stored values as floats, NaN where there is no data."""
    return np.where(modality.valid(stored), stored.astype(np.float64), np.nan)


def draw(name: str, bands: tuple[str, ...], values: FloatArray, like: FloatArray) -> Image.Image | None:
    """A modality's picture from some of its bands, under the view and the stretch that ``like`` has.

    ``values`` and ``like`` are (bands, y, x) in stored units, NaN where there is no data. None where ``like`` has
    nothing to show.
    """
    for view in views():
        if view.modality.name == name and set(view.bands) <= set(bands):
            at = [bands.index(band) for band in view.bands]
            drawn = paint(view, values[at], like[at])
            if drawn is not None:
                return drawn[0]
    return None


def picture(view: View, stored: NDArray[np.generic]) -> tuple[Image.Image, str] | None:
    """A view of one tile and its range in words, or None where nothing is valid; ``stored`` is (all bands, y, x)."""
    values = with_gaps(view.modality, stored)[[view.modality.bands.index(band) for band in view.bands]]
    return paint(view, values, values)


def paint(view: View, values: FloatArray, like: FloatArray) -> tuple[Image.Image, str] | None:
    """Bands of a view (bands, y, x) as a picture and its range in words; ``like`` decides the stretch.

    None where ``like`` has no pixel that this view can show.
    """
    if view.modality.name == "sentinel1":
        return _radar(values * view.modality.scale_factor, like * view.modality.scale_factor)
    if not np.isfinite(like).any():
        return None
    pairs, colours = classes(view.modality)
    if pairs:
        return _classified(values[0], [value for value, _ in pairs], colours)
    factor, unit = _unit(view)
    low, high = (float(edge) * factor for edge in np.nanpercentile(like, (LOW, HIGH)))
    words = f"{_short(low)} to {_short(high)}{unit}"
    if view.modality.name == "sentinel2":
        channels = [_stretch(band * factor, low, high) ** _GAMMA for band in values]
        return _rgba(channels, np.isfinite(values.sum(axis=0))), words
    rgba = _colour_map(view.modality)(_stretch(values[0] * factor, low, high), bytes=True)
    rgba[..., 3] = np.where(np.isfinite(values[0]), 255, 0)
    return Image.fromarray(rgba), words


def gradient(modality: Modality) -> Image.Image:
    """The colour map that a continuous modality is drawn with, low to high."""
    ramp = _colour_map(modality)(np.linspace(0, 1, 64), bytes=True)
    return Image.fromarray(np.repeat(ramp[None], 6, axis=0))


def _colour_map(modality: Modality) -> Colormap:
    return mpl.colormaps[_COLOUR_MAPS.get(modality.name, "viridis")]


def _unit(view: View) -> tuple[float, str]:
    """From stored to shown values, and their unit; units that differ by band are separated by semicolons."""
    units = [unit.strip() for unit in view.modality.units.split(";")]
    unit = units[view.modality.bands.index(view.bands[0])] if len(units) == len(view.modality.bands) else units[0]
    number, _, rest = unit.partition(" ")
    factor = view.modality.scale_factor
    if rest:
        factor, unit = factor * float(number), rest
    return factor, "" if unit == "1" else f" {unit}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _stretch(values: FloatArray, low: float, high: float) -> FloatArray:
    """Values from ``low`` to ``high`` as 0 to 1; 0 where there is no data."""
    return np.clip(np.nan_to_num(values - low) / max(high - low, 1e-9), 0.0, 1.0)


def _rgba(channels: list[FloatArray], valid: NDArray[np.bool_]) -> Image.Image:
    stack = np.stack([*channels, valid.astype(np.float64)], axis=-1)
    return Image.fromarray(np.rint(stack * 255).astype(np.uint8))


def _radar(values: FloatArray, like: FloatArray) -> tuple[Image.Image, str] | None:
    """Bands in dB (co, cross of the usual mode, co, cross of the polar mode) as a composite of ``like``'s mode."""
    for start, (co, cross) in zip((0, 2), RADAR_MODES, strict=True):
        seen = np.isfinite(like[start]) & np.isfinite(like[start + 1])
        if seen.any():
            first, second = values[start], values[start + 1]
            parts = (first, second, first - second)
            channels = [_stretch(part, *limits) for part, limits in zip(parts, RADAR_RANGES, strict=True)]
            means = [band[seen].mean() for band in like[start : start + 2]]
            words = f"{co} {means[0]:.0f}, {cross} {means[1]:.0f} dB"
            return _rgba(channels, np.isfinite(first) & np.isfinite(second)), words
    return None


def _classified(values: FloatArray, known: list[int], colours: tuple[str, ...]) -> tuple[Image.Image, str]:
    """Class ids (y, x) in their colours, and how many there are."""
    rgba = np.zeros((*values.shape, 4), dtype=np.uint8)
    for value, colour in zip(known, colours, strict=True):
        rgba[values == value] = [*(round(255 * channel) for channel in to_rgb(colour)), 255]
    found = len(np.unique(values[np.isfinite(values)]))
    return Image.fromarray(rgba), f"{found} class{'' if found == 1 else 'es'}"
