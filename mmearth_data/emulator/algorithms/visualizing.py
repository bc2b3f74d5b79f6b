"""Images as colours of eight bits."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.algorithms.images import selected
from mmearth_data.emulator.bands import Band, Pixels
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.frames import Frames, PixelGrid
from mmearth_data.emulator.registry import algorithm
from mmearth_data.emulator.values import Image

Array = NDArray[np.float64]
_WHERE = "Image.visualize"
_RGB = ("vis-red", "vis-green", "vis-blue")
_NAMES = {
    "black": "000000", "silver": "c0c0c0", "gray": "808080", "white": "ffffff", "maroon": "800000", "red": "ff0000",
    "purple": "800080", "fuchsia": "ff00ff", "green": "008000", "lime": "00ff00", "olive": "808000",
    "yellow": "ffff00", "navy": "000080", "blue": "0000ff", "teal": "008080", "aqua": "00ffff", "orange": "ffa500",
}  # fmt: skip
"""The colours that CSS 2.1 names."""
_HEX = re.compile(r"#?([0-9a-fA-F]{6}|[0-9a-fA-F]{3})")


class _Stretch(NamedTuple):
    """How a band's values become 0 to 1: times ``gain`` plus ``bias`` over 255, then to the power of 1 / ``gamma``."""

    gain: float
    bias: float
    gamma: float

    def __call__(self, values: NDArray[np.generic]) -> Array:
        """The values' brightness."""
        part = np.clip((values.astype(np.float64) * self.gain + self.bias) / 255, 0, 1)
        result: Array = np.nan_to_num(part) ** (1 / self.gamma)
        return result


@algorithm("Image.visualize")
def visualize(
    image: Image, bands: Any, gain: Any, bias: Any, min: Any, max: Any, gamma: Any, palette: Any, forceRgbOutput: bool
) -> Image:
    """Bands stretched from 0 to 255: one as grey or along a palette, three as red, green and blue.

    Colours of a palette are interpolated. Without limits values run over those of bytes, of 16 bits, or from 0 to 1.
    """
    chosen = selected(image, bands if isinstance(bands, list) else [bands], _WHERE) if bands else image.bands[:3]
    if len(chosen) not in (1, 3):
        raise ServiceError(f"{_WHERE}: needs one band or three; got {len(chosen)}. Choose them with 'bands'.")
    if (gain is not None or bias is not None) and (min is not None or max is not None):
        raise ServiceError(f"{_WHERE}: 'gain' and 'bias' exclude 'min' and 'max'.")
    names = {"gain": gain, "bias": bias, "min": min, "max": max, "gamma": gamma}
    each = {name: _numbers(value, len(chosen), name) for name, value in names.items()}
    stretches = [
        _stretch(band, {name: values[place] for name, values in each.items()}) for place, band in enumerate(chosen)
    ]
    made: Sequence[Band]
    if palette:
        if len(chosen) != 1:
            raise ServiceError(f"{_WHERE}: a palette needs one band; got {len(chosen)}.")
        made = _coloured(chosen[0], stretches[0], palette)
    elif len(chosen) == 1 and not forceRgbOutput:
        made = [_drawn(chosen[0], stretches[0], "vis-gray")]
    else:
        pairs = list(zip(chosen, stretches, strict=True)) * (3 // len(chosen))
        made = [_drawn(band, stretch, name) for (band, stretch), name in zip(pairs, _RGB, strict=True)]
    return image.with_bands(tuple(made))


def _numbers(value: Any, count: int, name: str) -> list[float | None]:
    """One number per band: the one given for all, or one each."""
    values = value if isinstance(value, list) else [value] * count
    known = all(v is None or (isinstance(v, int | float) and math.isfinite(v)) for v in values)
    if len(values) not in (1, count) or not known:
        raise ServiceError(f"{_WHERE}: '{name}' must be a number, or one for each of {count} bands; got {value!r}.")
    return values * (count // len(values))


def _stretch(band: Band, given: dict[str, float | None]) -> _Stretch:
    gamma = 1.0 if given["gamma"] is None else given["gamma"]
    if gamma <= 0:
        raise ServiceError(f"{_WHERE}: 'gamma' must be positive; got {gamma}.")
    if given["gain"] is not None or given["bias"] is not None:
        return _Stretch(1.0 if given["gain"] is None else given["gain"], given["bias"] or 0.0, gamma)
    kind = np.dtype(band.dtype)
    widest = 1.0 if kind.kind == "f" else 255.0 if kind.itemsize == 1 else 65535.0
    low = 0.0 if given["min"] is None else given["min"]
    high = widest if given["max"] is None else given["max"]
    if high <= low:
        raise ServiceError(f"{_WHERE}: 'max' must be above 'min'; got {low} to {high}.")
    return _Stretch(255 / (high - low), -255 * low / (high - low), gamma)


def _drawn(band: Band, stretch: _Stretch, name: str, levels: Array | None = None) -> Band:
    """A band of bytes: the brightness, or where it lies among levels that are evenly spread."""

    def pixels(grid: PixelGrid, frames: Frames) -> Pixels:
        values, valid = band.pixels(grid, frames)
        part = stretch(values)
        shown = 255 * part if levels is None else np.interp(part, np.linspace(0, 1, len(levels)), levels)
        return Pixels(np.floor(shown + 0.5).astype(np.uint8), valid)

    return replace(band, name=name, dtype="uint8", pixels=pixels, grid=None if band.tiles else band.grid, tiles=())


def _coloured(band: Band, stretch: _Stretch, palette: Any) -> list[Band]:
    colours = palette if isinstance(palette, list) else str(palette).split(",")
    table = np.array([_colour(colour) for colour in colours], dtype=np.float64)
    return [_drawn(band, stretch, name, table[:, k]) for k, name in enumerate(_RGB)]


def _colour(text: Any) -> tuple[int, int, int]:
    """Red, green and blue of a colour by name or in hexadecimal."""
    word = str(text).strip()
    match = _HEX.fullmatch(_NAMES.get(word.lower(), word))
    if match is None:
        raise ServiceError(f"{_WHERE}: the emulator knows colours like 'ff8000' and {', '.join(_NAMES)}; got {word!r}.")
    digits = match[1] if len(match[1]) == 6 else "".join(2 * digit for digit in match[1])
    return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16)
