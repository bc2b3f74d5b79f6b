"""Downloads: what an image is written as, and on which grid where the request names none.

Source: the ImageFileFormat enumeration of the REST reference, and what the service's own GeoTIFFs hold: bands named by
their descriptions, all of one type, masked pixels the type's smallest value (-infinity in floats).
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.io import MemoryFile
from rasterio.transform import Affine

from mmearth_data.emulator import encode, limits
from mmearth_data.emulator.bands import Band, cast
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.frames import Frames, PixelGrid
from mmearth_data.emulator.values import Image

Content = tuple[bytes, str]
MAX_DOWNLOAD_BYTES = 32 * 2**20
MAX_SIDE = 10_000
_TIFF = "image/tiff"


def own_grid(image: Image, where: str) -> PixelGrid:
    """The pixels that an image consists of: those of its first band."""
    for band in image.bands:
        part = band.part
        if band.grid is not None and part is not None:
            return part.of(band.grid)
    raise ServiceError(
        f"{where}: the image has no pixel grid of its own: give the request one, or the image a region and a scale."
    )


def write(image: Image, grid: PixelGrid | None, kind: str, prefix: str, frames: Frames) -> Content:
    """The image as a file of some format, and the file's content type."""
    if kind not in _WRITERS:
        raise ServiceError(f"The emulator writes {', '.join(_WRITERS)}; got {kind!r}.")
    names = [band.name for band in image.bands]
    if len(set(names)) < len(names):
        raise ServiceError(f"Duplicate band names are not allowed in an export; got {names}.")
    grid = grid or own_grid(image, "The export")
    limits.check_pixels(grid.width, grid.height, [band.dtype for band in image.bands])
    if kind != "NPY" and max(grid.shape) > MAX_SIDE:
        raise ServiceError(f"Pixel grid dimensions ({grid.width}x{grid.height}) must be at most {MAX_SIDE}.")
    return _WRITERS[kind](image, grid, prefix, frames)


def _npy(image: Image, grid: PixelGrid, prefix: str, frames: Frames) -> Content:
    return encode.npy(image, grid, frames), "application/octet-stream"


def _tiff(bands: tuple[Band, ...], grid: PixelGrid, frames: Frames) -> bytes:
    union = np.result_type(*(np.dtype(band.dtype) for band in bands))
    dtype = "float64" if union == np.int64 else str(union)
    kind = np.dtype(dtype)
    empty: Any = -np.inf if kind.kind == "f" else np.iinfo(kind).min
    size = grid.height * grid.width * len(bands) * kind.itemsize
    if size > MAX_DOWNLOAD_BYTES:
        raise ServiceError(
            f"Total request size ({size} bytes) must be less than or equal to {MAX_DOWNLOAD_BYTES} bytes."
        )
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", height=grid.height, width=grid.width, count=len(bands), dtype=dtype, crs=grid.crs,
            transform=Affine(*grid.transform), nodata=float(empty), compress="deflate", tiled=True,
        ) as dataset:  # fmt: skip
            for number, band in enumerate(bands, start=1):
                values, valid = band.pixels(grid, frames)
                dataset.write(np.where(valid, cast(values, dtype), empty).astype(dtype), number)
                dataset.set_band_description(number, band.name)
        content: bytes = memory.read()
        return content


def _geotiff(image: Image, grid: PixelGrid, prefix: str, frames: Frames) -> Content:
    return _tiff(tuple(image.bands), grid, frames), _TIFF


def _zipped(files: dict[str, bytes]) -> Content:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue(), "application/zip"


def _zip(image: Image, grid: PixelGrid, prefix: str, frames: Frames) -> Content:
    return _zipped({f"{_named(image, prefix)}.tif": _tiff(tuple(image.bands), grid, frames)})


def _zip_per_band(image: Image, grid: PixelGrid, prefix: str, frames: Frames) -> Content:
    name = _named(image, prefix)
    return _zipped({f"{name}.{band.name}.tif": _tiff((band,), grid, frames) for band in image.bands})


def _named(image: Image, prefix: str) -> str:
    """What files are called: as asked, else as the asset is."""
    own = str(image.properties.get("system:id", "download")).rpartition("/")[2]
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in prefix or own)


def _picture(driver: str, content_type: str) -> Callable[[Image, PixelGrid, str, Frames], Content]:
    def picture(image: Image, grid: PixelGrid, prefix: str, frames: Frames) -> Content:
        bands = image.bands
        if len(bands) not in (1, 3):
            raise ServiceError(f"{driver}: a picture has 1 or 3 bands, the image {len(bands)}; select them.")
        parts = [band.pixels(grid, frames) for band in bands]
        colours = [np.where(part.valid, cast(part.values, "uint8"), 0) for part in parts]
        if driver == "PNG":
            seen = np.logical_and.reduce([part.valid for part in parts])
            colours.append(np.where(seen, 255, 0))
        return _drawn(np.stack(colours).astype(np.uint8), driver), content_type

    return picture


def _drawn(colours: NDArray[np.uint8], driver: str) -> bytes:
    count, height, width = colours.shape
    with MemoryFile() as memory:
        with memory.open(driver=driver, height=height, width=width, count=count, dtype="uint8") as dataset:
            dataset.write(colours)
        content: bytes = memory.read()
        return content


_WRITERS: dict[str, Callable[[Image, PixelGrid, str, Frames], Content]] = {
    "NPY": _npy,
    "GEO_TIFF": _geotiff,
    "ZIPPED_GEO_TIFF": _zip,
    "ZIPPED_GEO_TIFF_PER_BAND": _zip_per_band,
    "PNG": _picture("PNG", "image/png"),
    "AUTO_JPEG_PNG": _picture("PNG", "image/png"),
    "JPEG": _picture("JPEG", "image/jpeg"),
}
