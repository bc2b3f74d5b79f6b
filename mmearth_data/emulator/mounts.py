"""Real files as assets: ``ASSET=PATH`` serves a folder of GeoTIFFs, or a vector file, in place of the world's asset.

Beside each ``x.tif`` of a folder lies ``x.json``: ``id`` (index within the collection), ``time`` (ISO 8601 or ms since
1970), ``bands`` (names in the file's order), ``properties``, and optionally ``nodata``. Files whose sidecars share an
``id`` are the tiles of one image, each on its own grid. With ``"image": true`` in them, the folder is not a collection
but one image (``id`` and ``time`` may be left out).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.errors import RasterioIOError
from rasterio.windows import Window as FileWindow

from mmearth_data.emulator.assets import (
    Archive,
    BandAsset,
    CollectionAsset,
    FeatureAsset,
    ImageAsset,
    NativeGrid,
    TiledImage,
)
from mmearth_data.emulator.errors import EmulatorError, ServiceError
from mmearth_data.emulator.tables import read_table
from mmearth_data.emulator.values import Geometry, moment

Asset = ImageAsset | CollectionAsset | FeatureAsset
_KEYS = {"id", "time", "bands", "properties", "nodata", "image"}


@dataclass(frozen=True)
class Folder:
    """Mounted images as a collection, ordered by index."""

    id: str
    images: tuple[ImageAsset, ...]

    def query(
        self, bounds: tuple[float, float, float, float] | None, start: int | None, end: int | None
    ) -> Iterable[ImageAsset]:
        """Images whose footprint's bounds touch ``bounds`` and whose time is in [start, end)."""
        return [image for image in self.images if _touches(image, bounds) and _within(image, start, end)]

    def image(self, index: str) -> ImageAsset | None:
        """The image of that index."""
        return next((image for image in self.images if image.id == f"{self.id}/{index}"), None)


def _touches(image: ImageAsset, bounds: tuple[float, float, float, float] | None) -> bool:
    return bounds is None or image.footprint is None or bool(shapely.box(*bounds).intersects(image.footprint))


def _within(image: ImageAsset, start: int | None, end: int | None) -> bool:
    time = image.properties.get("system:time_start")
    if time is None:
        return start is None and end is None
    return (start is None or start <= time) and (end is None or time < end)


@dataclass(frozen=True)
class Mounted:
    """An archive with mounted assets before those of another one."""

    archive: Archive
    mounts: Mapping[str, Asset]

    def lookup(self, asset_id: str) -> Asset | None:
        """The mounted asset of that id, an image of a mounted collection, or what the other archive has."""
        if asset_id in self.mounts:
            return self.mounts[asset_id]
        parent, _, index = asset_id.rpartition("/")
        folder = self.mounts.get(parent)
        return folder.image(index) if isinstance(folder, Folder) else self.archive.lookup(asset_id)


def read_mounts(mounts: Sequence[str]) -> dict[str, Asset]:
    """The assets that ``ASSET=PATH`` strings name; EmulatorError says what is wrong with one."""
    result: dict[str, Asset] = {}
    for mount in mounts:
        asset_id, separator, path = mount.partition("=")
        if not (asset_id and separator and path):
            raise EmulatorError(f"--mount: {mount!r} is not ASSET=PATH; write e.g. ESA/WorldCover/v100=folder")
        if asset_id in result:
            raise EmulatorError(f"--mount: {asset_id} is mounted twice; mount it once")
        source = Path(path)
        if not source.exists():
            raise EmulatorError(f"--mount: {source} does not exist; name a folder of GeoTIFFs or a vector file")
        result[asset_id] = read_folder(asset_id, source) if source.is_dir() else read_table(asset_id, source)
    return result


def read_folder(asset_id: str, folder: Path) -> Asset:
    """A folder of GeoTIFFs with sidecars as a collection, or as one image."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".tif", ".tiff"))
    if not files:
        raise EmulatorError(f"--mount: {folder} holds no .tif file; name a folder of GeoTIFFs with sidecars")
    sidecars = {file: _sidecar(file) for file in files}
    single = {bool(sidecar.get("image")) for sidecar in sidecars.values()}
    if single == {True}:
        return _joined(asset_id, [_image(asset_id, file, sidecars[file]) for file in files])
    if True in single:
        raise EmulatorError(f'--mount: some sidecars in {folder} say "image": true and some do not; make them agree')
    images: dict[str, list[ImageAsset]] = {}
    for file in files:
        index = sidecars[file].get("id")
        if not isinstance(index, str) or not index or "/" in index:
            raise EmulatorError(f"--mount: {file.with_suffix('.json')} needs an 'id' without a slash; got {index!r}")
        images.setdefault(index, []).append(_image(f"{asset_id}/{index}", file, sidecars[file]))
    return Folder(asset_id, tuple(_joined(tiles[0].id, tiles) for _, tiles in sorted(images.items())))


def _joined(image_id: str, tiles: list[ImageAsset]) -> ImageAsset:
    """One image of its tiles."""
    if len(tiles) == 1:
        return tiles[0]
    names = {tuple(band.name for band in tile.bands) for tile in tiles}
    if len(names) > 1:
        raise EmulatorError(f"--mount: the tiles of {image_id} have different bands; give all the same 'bands'")
    footprint = shapely.union_all([tile.footprint for tile in tiles])
    return TiledImage(image_id, (), tiles[0].properties, footprint, tuple(tiles))


def _sidecar(file: Path) -> Mapping[str, Any]:
    path = file.with_suffix(".json")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EmulatorError(f"--mount: {file} has no sidecar {path.name}; write one with id, time and bands") from None
    except ValueError as error:
        raise EmulatorError(f"--mount: {path} is not JSON ({error}); correct it") from None
    if not isinstance(content, dict) or not isinstance(content.get("bands"), list):
        raise EmulatorError(f"--mount: {path} must be a JSON object with a list 'bands'; add it")
    unknown = content.keys() - _KEYS
    if unknown:
        raise EmulatorError(
            f"--mount: {path} has an unknown key {sorted(unknown)[0]!r}; use {', '.join(sorted(_KEYS))}"
        )
    return content


def _image(image_id: str, file: Path, sidecar: Mapping[str, Any]) -> ImageAsset:
    try:
        with rasterio.open(file) as dataset:
            epsg = None if dataset.crs is None else dataset.crs.to_epsg()
            transform, shape = tuple(dataset.transform)[:6], (dataset.height, dataset.width)
            dtypes, nodata = dataset.dtypes, sidecar.get("nodata", dataset.nodata)
    except RasterioIOError as error:
        raise EmulatorError(f"--mount: cannot read {file} ({error}); it must be a GeoTIFF") from None
    if epsg is None:
        raise EmulatorError(f"--mount: {file} has no CRS with an EPSG code; assign one")
    if len(sidecar["bands"]) != len(dtypes):
        raise EmulatorError(
            f"--mount: {file} has {len(dtypes)} bands, its sidecar names {len(sidecar['bands'])}; name every band"
        )
    grid = NativeGrid(f"EPSG:{epsg}", transform, shape)
    bands = tuple(
        BandAsset(str(name), dtypes[i], grid, _reader(file, i + 1, nodata)) for i, name in enumerate(sidecar["bands"])
    )
    return ImageAsset(image_id, bands, _properties(file, sidecar), _outline(grid))


def _properties(file: Path, sidecar: Mapping[str, Any]) -> dict[str, Any]:
    properties = dict(sidecar.get("properties", {}))
    if sidecar.get("time") is not None:
        try:
            properties["system:time_start"] = moment(sidecar["time"])
        except ServiceError:
            path = file.with_suffix(".json")
            raise EmulatorError(f"--mount: {path} has no valid 'time'; write ISO 8601 or ms since 1970") from None
    return properties


def _outline(grid: NativeGrid) -> shapely.Geometry:
    """The image's edge in degrees, with corners enough to follow it."""
    a, b, c, d, e, f = grid.transform
    height, width = grid.shape or (0, 0)
    corners = [(x * a + y * b + c, x * d + y * e + f) for x, y in ((0, 0), (width, 0), (width, height), (0, height))]
    return Geometry(shapely.Polygon(corners), grid.crs).degrees


def _reader(file: Path, band: int, nodata: float | None) -> Any:
    """Windows of one band; the file is opened for each, so that threads share nothing."""

    def read(row: int, column: int, height: int, width: int) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        window = FileWindow(column, row, width, height)
        with rasterio.open(file) as dataset:
            values = dataset.read(band, window=window)
            valid = dataset.read_masks(band, window=window) != 0
        if nodata is not None:
            valid &= ~np.isnan(values) if np.isnan(nodata) else values != nodata
        return values, valid

    return read
