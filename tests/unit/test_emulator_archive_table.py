"""The page says which assets and bands the emulated archive has: those of the archive itself, no more and no fewer."""

from __future__ import annotations

from pathlib import Path

from mmearth_data.emulator.assets import CollectionAsset, FeatureAsset, ImageAsset
from mmearth_data.emulator.world import build
from mmearth_data.emulator.world.catalogue import dates

PAGE = Path(__file__).parents[2] / "docs" / "emulator.md"
PLACES = ((12.0, 55.0), (-100.0, 40.0), (-45.0, 76.0))
WEEKS = dates.ms(2019, 6), dates.ms(2019, 8)


def _table() -> dict[str, tuple[set[str], set[str]]]:
    """Each asset's bands, and the words for what is absent, as the page has them."""
    lines = PAGE.read_text(encoding="utf-8").partition("| asset | bands |")[2].splitlines()[2:]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[: lines.index("")]]
    return {
        name.strip("`"): (set(bands.split()), {*absent.replace(",", " ").replace(";", " ").split()})
        for assets, bands, _, absent in rows
        for name in assets.split(", ")
    }


def _images(asset: ImageAsset | CollectionAsset) -> list[ImageAsset]:
    if isinstance(asset, ImageAsset):
        return [asset]
    found = [image for x, y in PLACES for image in asset.query((x, y, x, y), *WEEKS)]
    return found or list(asset.query(None, None, None))


def test_the_page_lists_every_asset_with_its_bands_and_modes() -> None:
    archive, told = build("flat"), _table()
    assert told.keys() == set(archive.ids)
    for asset_id, (bands, absent) in told.items():
        asset = archive.lookup(asset_id)
        assert asset is not None
        images = [] if isinstance(asset, FeatureAsset) else _images(asset)
        held = {band.name for image in images for band in image.bands}
        assert held == bands, asset_id
        assert not {*held, *(image.properties.get("instrumentMode") for image in images)} & absent
