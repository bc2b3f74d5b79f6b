"""Collections of few images, each of the whole Earth, that are all known beforehand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mmearth_data.emulator.assets import ImageAsset

Bounds = tuple[float, float, float, float]


class ListedCollection:
    """The collection ``asset_id`` of ``images`` by index, in order of time."""

    def __init__(self, asset_id: str, images: Mapping[str, ImageAsset]) -> None:
        self.id = asset_id
        self._images = images

    def query(self, bounds: Bounds | None, start: int | None, end: int | None) -> Iterable[ImageAsset]:
        """Images that begin in [start, end) ms, in order."""
        return [
            image
            for image in self._images.values()
            if (start is None or image.properties["system:time_start"] >= start)
            and (end is None or image.properties["system:time_start"] < end)
        ]

    def image(self, index: str) -> ImageAsset | None:
        """The image called ``index``, or None."""
        return self._images.get(index)
