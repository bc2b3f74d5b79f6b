"""The archive: every asset by id, whatever renders its pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mmearth_data.emulator.assets import CollectionAsset, FeatureAsset, ImageAsset
from mmearth_data.emulator.world.catalogue import downstream, maps, sentinel1, sentinel2
from mmearth_data.emulator.world.scenes import Pixels, Sky


class WorldArchive:
    """Collections, images and tables of one world; ``tables`` by id are made when they are asked for."""

    def __init__(self, seed: int, sky: Sky, pixels: Pixels, tables: Mapping[str, Callable[[], FeatureAsset]]) -> None:
        self._collections: dict[str, CollectionAsset] = {
            **sentinel2.collections(seed, sky, pixels),
            sentinel1.ASSET_ID: sentinel1.Sentinel1Collection(seed, sky, pixels),
            **maps.land_cover(pixels),
            maps.CLIMATE_ID: maps.ClimateCollection(pixels),
            downstream.BUILT_ID: downstream.BuiltCollection(pixels),
        }
        self._images: dict[str, ImageAsset] = {**maps.images(pixels), downstream.WATER_ID: downstream.water(pixels)}
        self._tables = tables

    @property
    def ids(self) -> tuple[str, ...]:
        """Every collection, image and table by id."""
        return (*self._collections, *self._images, *self._tables)

    def lookup(self, asset_id: str) -> ImageAsset | CollectionAsset | FeatureAsset | None:
        """The asset called ``asset_id``, an image inside a collection by its full id, or None."""
        if asset_id in self._tables:
            return self._tables[asset_id]()
        if asset_id in self._collections:
            return self._collections[asset_id]
        if asset_id in self._images:
            return self._images[asset_id]
        parent, _, index = asset_id.rpartition("/")
        collection = self._collections.get(parent)
        return collection.image(index) if collection is not None else None
