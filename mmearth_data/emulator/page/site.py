"""The page and what it asks for: ``/`` itself, and under ``/page/`` its tiles, assets, products and requests."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from importlib import resources
from typing import Any

import numpy as np

from mmearth_data.emulator import limits
from mmearth_data.emulator.assets import Archive
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.page import colours, listing
from mmearth_data.emulator.page.activity import Activity
from mmearth_data.emulator.page.tiles import DEEPEST, SIZE, Tiles
from mmearth_data.emulator.service import Answer
from mmearth_data.emulator.world import biomes
from mmearth_data.emulator.world.planet import LATITUDE, LONGITUDE
from mmearth_data.emulator.world.setting import World

YEARS = tuple(range(2016, 2023))
_PROBES = 16


class Page:
    """What people see of a running emulator. ``world`` draws the map; without one there is none.

    ``ids`` are the assets that are listed.
    """

    def __init__(self, archive: Archive, ids: Iterable[str] = (), world: World | None = None) -> None:
        self._archive, self._ids, self._world = archive, tuple(ids), world
        self._tiles = None if world is None else Tiles(world)
        self.activity = Activity()

    def answer(self, path: str, query: Mapping[str, Sequence[str]], busy: int) -> Answer:
        """What a GET of ``path`` gets; ``busy`` is the number of compute requests under way.

        Raises ServiceError 404 for another path, 400 for a question that cannot be answered.
        """
        match path.split("/")[1:]:
            case [""]:
                return Answer(_page(), "text/html; charset=UTF-8")
            case ["page", "map"]:
                return _json(self._map())
            case ["page", "tile", layer, zoom, x, y]:
                return Answer(self._tile(layer, zoom, x, y.removesuffix(".png")), "image/png")
            case ["page", "assets"]:
                return _json(self._assets)
            case ["page", "products"]:
                lon, lat, year = (_number(query, name) for name in ("lon", "lat", "year"))
                if not (-180 <= lon <= 180 and -90 <= lat <= 90 and int(year) in YEARS):
                    raise ServiceError(f"lon and lat must be degrees, and year one of {YEARS[0]} to {YEARS[-1]}.")
                return _json(listing.products(self._archive, self._ids, lon, lat, int(year)))
            case ["page", "activity"]:
                return _json({**self.activity.summary(), "busy": busy, "places": limits.MAX_CONCURRENT_REQUESTS})
            case _:
                raise ServiceError(f"The emulator's page has nothing at {path}.", 404)

    def _map(self) -> dict[str, Any]:
        """What the page draws its map with; no layers where there is no world to see."""
        if self._world is None:
            return {"layers": [], "deepest": DEEPEST, "size": SIZE, "years": YEARS}
        names = {name: title for name, (title, _) in colours.LAYERS.items()}
        legends = {
            "cover": [[title, _hex(colour)] for title, colour in zip(colours.COVER_NAMES, colours.COVER, strict=True)],
            "biomes": [
                [title, _hex(colour)]
                for title, colour in zip((*biomes.NAMES, "Rock and ice"), colours.BIOME, strict=True)
            ],
            "elevation": [
                [f"{step:,.0f} m", _hex(colour)] for step, colour in zip(colours.STEPS, colours.HEIGHTS, strict=True)
            ],
        }
        layers = [{"name": name, "title": title, "legend": legends.get(name, [])} for name, title in names.items()]
        return {"layers": layers, "deepest": DEEPEST, "size": SIZE, "years": YEARS}

    def _tile(self, layer: str, zoom: str, x: str, y: str) -> bytes:
        if self._tiles is None:
            raise ServiceError("This archive has no world to draw a map of.", 404)
        if not all(part.isascii() and part.isdigit() and len(part) < 9 for part in (zoom, x, y)):
            raise ServiceError("A tile is named by its layer and three whole numbers: zoom, x and y.")
        return self._tiles.png(layer, int(zoom), int(x), int(y))

    @cached_property
    def _assets(self) -> list[dict[str, Any]]:
        return listing.describe(self._archive, self._ids, self._probes())

    def _probes(self) -> list[tuple[float, float]]:
        """Places on land, far from each other."""
        if self._world is None:
            return [(10.0, 45.0)]
        rows, columns = np.nonzero(self._world.planet.land & (np.abs(LATITUDE) < 60.0)[:, None])
        chosen = np.linspace(0, len(rows) - 1, _PROBES).astype(np.int64)
        places = zip(LONGITUDE[columns[chosen]], LATITUDE[rows[chosen]], strict=True)
        return [(float(lon), float(lat)) for lon, lat in places]


def _page() -> bytes:
    return resources.files("mmearth_data.emulator.page").joinpath("page.html").read_bytes()


def _json(content: Any) -> Answer:
    return Answer(json.dumps(content, separators=(",", ":")).encode())


def _hex(colour: Any) -> str:
    return "#" + "".join(f"{int(part):02x}" for part in colour)


def _number(query: Mapping[str, Sequence[str]], name: str) -> float:
    """A finite number of the query string; a 400 if it is none."""
    text = query.get(name, [""])[0]
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ServiceError(f"'{name}' must be a number; got {text!r}.")
    return value
