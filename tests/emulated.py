"""An emulator in this process, for tests that go through the real client, and small archives to put behind it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import ee
import google.auth.credentials
import numpy as np
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from mmearth_data.emulator.assets import (
    Archive,
    BandAsset,
    CollectionAsset,
    FeatureAsset,
    ImageAsset,
    NativeGrid,
    Window,
)
from mmearth_data.emulator.run import Emulator, EmulatorConfig


@dataclass(frozen=True)
class Running:
    """A running emulator and its request log."""

    url: str
    log: Path

    def requests(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The requests answered so far, as logged; of one kind ("computePixels", …) if it is given."""
        entries = [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]
        return [entry for entry in entries if kind is None or entry["kind"] == kind]


@contextmanager
def start_emulator(
    tmp_path: Path,
    world: Literal["earth", "flat"] = "earth",
    seed: int = 0,
    mounts: Sequence[str] = (),
    latency: int = 0,
    faults: str = "",
    archive: Archive | None = None,
    requests_per_second: int = 0,
    latency_spread: float = 0.0,
) -> Iterator[Running]:
    """An emulator on a free port, logging into ``tmp_path``; ``archive`` stands in for world and mounts.

    It lets any number of requests in per second unless told otherwise, since tests ask faster than the service allows.
    """
    log = tmp_path / "requests.jsonl"
    config = EmulatorConfig(
        port=0,
        world=world,
        seed=seed,
        latency=latency,
        latency_spread=latency_spread,
        faults=faults,
        requests_per_second=requests_per_second,
        mount=tuple(mounts),
        log=log,
    )
    with Emulator(config, archive) as emulator:
        yield Running(emulator.url, log)


@contextmanager
def connected(url: str) -> Iterator[None]:
    """The client, initialised without an account against ``url`` and without retries; its state is the process's."""
    ee.Reset()
    nobody = google.auth.credentials.AnonymousCredentials()  # type: ignore[no-untyped-call]
    ee.Initialize(credentials=nobody, project="p", url=url)
    ee.data.setMaxRetries(0)
    try:
        yield
    finally:
        ee.Reset()


Affine = tuple[float, float, float, float, float, float]


def pixels(image: ee.Image, crs: str, transform: Affine, height: int, width: int) -> NDArray[Any]:
    """The image on a grid, as the client downloads it: (height, width) with one field per band."""
    names = ("scaleX", "shearX", "translateX", "shearY", "scaleY", "translateY")
    grid = {
        "dimensions": {"width": width, "height": height},
        "affineTransform": dict(zip(names, transform, strict=True)),
        "crsCode": crs,
    }
    result: NDArray[Any] = ee.data.computePixels({"expression": image, "fileFormat": "NUMPY_NDARRAY", "grid": grid})
    return result


def pattern(offset: int = 0) -> Window:
    """A band without edges whose value and mask follow from native row and column; a fifth of it is masked."""

    def read(row: int, column: int, height: int, width: int) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        rows, columns = np.mgrid[row : row + height, column : column + width]
        return pattern_values(rows, columns, offset), pattern_valid(rows, columns)

    return read


def pattern_values(rows: NDArray[Any], columns: NDArray[Any], offset: int = 0) -> NDArray[Any]:
    """The values of ``pattern``."""
    result: NDArray[Any] = (rows * 7 + columns * 3 + offset) % 1000
    return result


def pattern_valid(rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[np.bool_]:
    """Where ``pattern`` is valid."""
    result: NDArray[np.bool_] = (rows + columns) % 5 != 0
    return result


def level(value: float) -> Window:
    """A band of one value without masked pixels."""

    def read(row: int, column: int, height: int, width: int) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        return np.full((height, width), value), np.ones((height, width), dtype=np.bool_)

    return read


def image_asset(
    asset_id: str,
    bands: dict[str, tuple[str, NativeGrid, Window]],
    footprint: BaseGeometry | None = None,
    **properties: Any,
) -> ImageAsset:
    """An image of (dtype, grid, reader) per band; ``time`` among the properties is its system:time_start."""
    if "time" in properties:
        properties["system:time_start"] = properties.pop("time")
    assets = tuple(BandAsset(name, *parts) for name, parts in bands.items())
    return ImageAsset(asset_id, assets, properties, footprint)


@dataclass
class RecordedCollection:
    """A collection that remembers what it was asked, and what it listed."""

    id: str
    images: Sequence[ImageAsset]
    queries: list[tuple[Any, int | None, int | None]] = field(default_factory=list)
    listed: list[str] = field(default_factory=list)

    def query(
        self, bounds: tuple[float, float, float, float] | None, start: int | None, end: int | None
    ) -> Iterable[ImageAsset]:
        """Images in [start, end)."""
        self.queries.append((bounds, start, end))
        for image in self.images:
            time = image.properties["system:time_start"]
            if (start is None or start <= time) and (end is None or time < end):
                self.listed.append(image.id)
                yield image

    def image(self, index: str) -> ImageAsset | None:
        """The image of that index."""
        return next((image for image in self.images if image.id == f"{self.id}/{index}"), None)


@dataclass(frozen=True)
class SmallArchive:
    """An archive of a few assets."""

    assets: Sequence[ImageAsset | CollectionAsset | FeatureAsset]

    def lookup(self, asset_id: str) -> ImageAsset | CollectionAsset | FeatureAsset | None:
        """The asset of that id, or the image of a collection."""
        by_id = {asset.id: asset for asset in self.assets}
        if asset_id in by_id:
            return by_id[asset_id]
        parent = by_id.get(asset_id.rpartition("/")[0])
        return parent.image(asset_id.rpartition("/")[2]) if isinstance(parent, RecordedCollection) else None
