"""Map tiles: the XYZ scheme of web maps, painted, written as PNG and kept for a while."""

from __future__ import annotations

import struct
import threading
import zlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.page import colours
from mmearth_data.emulator.world.overview import View
from mmearth_data.emulator.world.setting import World

SIZE = 256
DEEPEST = 16
"""Zoom at which a pixel is 2.4 m wide at the equator: each of the world's 10 m has four on a side."""
_HALF = 20_037_508.342789244
"""Half the equator in Web Mercator's metres (EPSG:3857)."""
_KEPT = 1024
_AT_ONCE = 2
"""Tiles painted at a time: a map that is moved must leave the processors to the clients."""


def view_of(zoom: int, x: int, y: int) -> View:
    """The ground of a tile; ServiceError 404 where the scheme has none."""
    count = 2**zoom if 0 <= zoom <= DEEPEST else 0
    if not (0 <= x < count and 0 <= y < count):
        raise ServiceError(
            f"There is no tile {zoom}/{x}/{y}; zooms are 0 to {DEEPEST}, x and y below 2 to their power.", 404
        )
    width = 2.0 * _HALF / count
    return View(-_HALF + x * width, _HALF - y * width, width / SIZE, SIZE)


def png(picture: NDArray[np.uint8]) -> bytes:
    """A picture (height, width, 3) as a PNG file (RFC 2083), each row stored as differences from its left neighbour."""
    height, width, _ = picture.shape
    rows = picture.astype(np.int16)
    rows[:, 1:] -= picture[:, :-1]
    raw = np.empty((height, 1 + 3 * width), dtype=np.uint8)
    raw[:, 0] = 1
    raw[:, 1:] = rows.astype(np.uint8).reshape(height, 3 * width)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(raw.tobytes(), 4)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


class Tiles:
    """The tiles of one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._turn = threading.Semaphore(_AT_ONCE)
        self._painted = lru_cache(maxsize=_KEPT)(self._paint)

    def png(self, layer: str, zoom: int, x: int, y: int) -> bytes:
        """A tile of a layer as a PNG file; ServiceError 404 where there is none."""
        if layer not in colours.LAYERS:
            raise ServiceError(f"There is no layer '{layer}'; the map has {', '.join(colours.LAYERS)}.", 404)
        view_of(zoom, x, y)
        return self._painted(layer, zoom, x, y)

    def _paint(self, layer: str, zoom: int, x: int, y: int) -> bytes:
        with self._turn:
            picture = colours.LAYERS[layer][1](self._world, view_of(zoom, x, y))
        return png(np.moveaxis(np.clip(picture, 0.0, 255.0), 0, -1).astype(np.uint8))
