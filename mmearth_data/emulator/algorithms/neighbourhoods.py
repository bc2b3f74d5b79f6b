"""Kernels, convolution, and statistics of the pixels around each pixel, on the grid that is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from mmearth_data.emulator import limits, reducers
from mmearth_data.emulator.bands import Band, Pixels, nothing
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.frames import Frames, PixelGrid
from mmearth_data.emulator.kernels import MAX_RADIUS, Kernel, finished, offsets
from mmearth_data.emulator.reducers import Reducer, Sample, Statistic
from mmearth_data.emulator.registry import algorithm
from mmearth_data.emulator.values import Image

Array = NDArray[np.float64]
MAX_ITERATIONS = 20

_SHAPES: dict[str, Callable[[Array, Array, float], NDArray[np.bool_]]] = {
    "square": lambda x, y, r: np.ones(x.shape, dtype=np.bool_),
    "circle": lambda x, y, r: x**2 + y**2 <= r**2,
    "diamond": lambda x, y, r: np.abs(x) + np.abs(y) <= r,
    "plus": lambda x, y, r: (x == 0) | (y == 0),
    "cross": lambda x, y, r: np.abs(x) == np.abs(y),
}


def _register_shape(name: str) -> None:
    @algorithm(f"Kernel.{name}")
    def handler(radius: float, units: str, normalize: bool, magnitude: float) -> Kernel:
        """Equal weights in a shape of that radius."""
        x, y = offsets(radius, radius, units, f"Kernel.{name}")
        return finished(_SHAPES[name](x, y, radius).astype(np.float64), normalize, magnitude, f"Kernel.{name}")


for _name in _SHAPES:
    _register_shape(_name)


@algorithm("Kernel.rectangle")
def rectangle(xRadius: float, yRadius: float, units: str, normalize: bool, magnitude: float) -> Kernel:
    """Equal weights in a rectangle."""
    x, _ = offsets(xRadius, yRadius, units, "Kernel.rectangle")
    return finished(np.ones(x.shape), normalize, magnitude, "Kernel.rectangle")


@algorithm("Kernel.gaussian")
def gaussian(radius: float, sigma: float, units: str, normalize: bool, magnitude: float) -> Kernel:
    """Weights that fall off with the square of the distance."""
    x, y = offsets(radius, radius, units, "Kernel.gaussian")
    if not sigma > 0:
        raise ServiceError(f"Kernel.gaussian: 'sigma' must be positive; got {sigma}.")
    return finished(np.exp(-(x**2 + y**2) / (2 * sigma**2)), normalize, magnitude, "Kernel.gaussian")


@algorithm("Kernel.fixed")
def fixed(width: int, height: int, weights: list[list[Any]], x: int, y: int, normalize: bool) -> Kernel:
    """Weights as given, row by row, around the middle or a place that is named."""
    table = [row for row in weights if row]
    sizes = {len(row) for row in table}
    numbers = all(isinstance(value, int | float) for row in table for value in row)
    if len(sizes) != 1 or not numbers or max(len(table), *sizes) > 2 * MAX_RADIUS + 1:
        raise ServiceError("Kernel.fixed: 'weights' must be rows of as many numbers each.")
    if width not in (-1, *sizes) or height not in (-1, len(table)):
        raise ServiceError(f"Kernel.fixed: {width}x{height} is not the size of the weights.")
    kernel = finished(np.array(table, dtype=np.float64), normalize, 1.0, "Kernel.fixed")
    row, column = kernel.row if y < 0 else y, kernel.column if x < 0 else x
    if row >= kernel.weights.shape[0] or column >= kernel.weights.shape[1]:
        raise ServiceError(f"Kernel.fixed: the middle ({x}, {y}) lies outside of the weights.")
    return Kernel(kernel.weights, row, column)


_EDGES = {
    "laplacian4": [[0, 1, 0], [1, -4, 1], [0, 1, 0]],
    "laplacian8": [[1, 1, 1], [1, -8, 1], [1, 1, 1]],
    "sobel": [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]],
    "prewitt": [[1, 0, -1], [1, 0, -1], [1, 0, -1]],
}


def _register_edges(name: str) -> None:
    @algorithm(f"Kernel.{name}")
    def handler(magnitude: float, normalize: bool) -> Kernel:
        """The usual weights of 3 by 3 pixels."""
        return finished(np.array(_EDGES[name], dtype=np.float64), normalize, magnitude, f"Kernel.{name}")


for _name in _EDGES:
    _register_edges(_name)


def _around(band: Band, kernel: Kernel, grid: PixelGrid, frames: Frames) -> Pixels:
    """Values and masks of shape (height, width, kernel rows, kernel columns)."""
    up, left, down, right = kernel.margins
    a, b, c, d, e, f = grid.transform
    origin = (a * -left + b * -up + c, d * -left + e * -up + f)
    wide = PixelGrid(grid.crs, (a, b, origin[0], d, e, origin[1]), grid.height + up + down, grid.width + left + right)
    limits.check_memory(grid.height * grid.width * int(np.count_nonzero(kernel.weights)) * 17)
    values, valid = band.pixels(wide, frames)
    return Pixels(sliding_window_view(values, kernel.weights.shape), sliding_window_view(valid, kernel.weights.shape))


@algorithm("Image.convolve")
def convolve(image: Image, kernel: Kernel) -> Image:
    """The weighted sum of the pixels around each; masked ones are left out, and masked pixels stay so."""

    def convolved(band: Band) -> Band:
        dtype = "float32" if band.dtype == "float32" else "float64"

        def pixels(grid: PixelGrid, frames: Frames) -> Pixels:
            values, valid = _around(band, kernel, grid, frames)
            kept = np.where(valid, values, 0).astype(np.float64)
            summed = np.einsum("hwij,ij->hw", kept, kernel.weights)
            return Pixels(summed.astype(dtype), valid[:, :, kernel.row, kernel.column].copy())

        return replace(band, dtype=dtype, pixels=pixels, tiles=())

    return image.with_bands(tuple(map(convolved, image.bands)))


def _neighbours(
    band: Band, kernel: Kernel, statistic: Statistic, place: int, weighted: bool, skip: bool, dtype: str
) -> Band:
    """One output of a statistic of the pixels that the kernel reaches; masked if it reaches none."""
    inside = kernel.weights != 0

    def pixels(grid: PixelGrid, frames: Frames) -> Pixels:
        if not inside.any():
            return nothing(grid, dtype)
        values, valid = _around(band, kernel, grid, frames)
        own = valid[:, :, kernel.row, kernel.column]
        stacked, masks = (np.moveaxis(part[:, :, inside], 2, 0) for part in (values, valid))
        weights = masks * np.abs(kernel.weights[inside])[:, None, None] if weighted else masks
        with np.errstate(all="ignore"):
            value, known = statistic([Sample(stacked, weights)])[place]
        return Pixels(np.where(known, value, 0).astype(dtype), np.asarray(known) & own if skip else np.asarray(known))

    return replace(band, dtype=dtype, pixels=pixels, tiles=())


def _neighbour_output(band: Band, kernel: Kernel, leaf: Reducer, place: int, weight: str, skip: bool) -> Band:
    statistic = leaf.statistic("Image.reduceNeighborhood")
    weighted = weight == "kernel" and leaf.weighted
    return _neighbours(band, kernel, statistic, place, weighted, skip, leaf.types[place] or band.dtype)


@algorithm("Image.reduceNeighborhood")
def reduce_neighborhood(
    image: Image, reducer: Reducer, kernel: Kernel, inputWeight: str, skipMasked: bool, optimization: str | None
) -> Image:
    """The reducer's outputs of the pixels around each, weighted by the kernel or by their masks alone."""
    if inputWeight not in ("kernel", "mask"):
        raise ServiceError(f"Image.reduceNeighborhood: 'inputWeight' must be kernel or mask; got '{inputWeight}'.")
    if reducer.inputs != 1:
        raise ServiceError("Image.reduceNeighborhood: the emulator takes reducers of one input only.")
    reducer.statistic("Image.reduceNeighborhood")
    parts = [(leaf, k) for leaf in reducer.leaves for k in range(len(leaf.outputs))]
    bands = [
        replace(_neighbour_output(band, kernel, leaf, k, inputWeight, skipMasked), name=f"{band.name}_{output}")
        for band in image.bands
        for output, (leaf, k) in zip(reducer.outputs, parts, strict=True)
    ]
    return image.with_bands(tuple(bands))


def _register_focal(names: tuple[str, ...], statistic: Statistic, dtype: str | None) -> None:
    @algorithm(*names)
    def handler(
        image: Image, radius: float, kernelType: str, units: str, iterations: int, kernel: Kernel | None
    ) -> Image:
        """Statistic of the valid pixels around each, also of masked ones."""
        where = names[0]
        if kernelType not in _SHAPES:
            raise ServiceError(
                f"{where}: the emulator knows the kernel types {', '.join(_SHAPES)}; got '{kernelType}'."
            )
        if not 1 <= iterations <= MAX_ITERATIONS:
            raise ServiceError(f"{where}: 'iterations' must be between 1 and {MAX_ITERATIONS}; got {iterations}.")
        if kernel is None:
            x, y = offsets(radius, radius, units, where)
            kernel = finished(_SHAPES[kernelType](x, y, radius).astype(np.float64), False, 1.0, where)
        bands = image.bands
        for _ in range(iterations):
            bands = tuple(_neighbours(band, kernel, statistic, 0, False, False, dtype or band.dtype) for band in bands)
        return image.with_bands(tuple(bands))


for _names, _statistic, _dtype in (
    (("Image.focalMin", "Image.focal_min"), reducers.smallest, None),
    (("Image.focalMax", "Image.focal_max"), reducers.largest, None),
    (("Image.focalMean", "Image.focal_mean"), reducers.mean, "float64"),
    (("Image.focalMedian", "Image.focal_median"), reducers.percentiles([50]), "float64"),
    (("Image.focalMode", "Image.focal_mode"), reducers.mode, None),
):
    _register_focal(_names, _statistic, _dtype)
