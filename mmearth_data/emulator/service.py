"""The three verbs of the service, without HTTP: a request body in, an answer out."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from shapely.errors import GEOSException

import mmearth_data.emulator.algorithms  # noqa: F401 - registers every algorithm
from mmearth_data.emulator import encode, exports, limits
from mmearth_data.emulator.assets import Archive
from mmearth_data.emulator.collections import EVERYTHING, is_collection
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.frames import Frames, PixelGrid
from mmearth_data.emulator.frames import affine as affine_of
from mmearth_data.emulator.geojson import crs_named
from mmearth_data.emulator.graph import Evaluator
from mmearth_data.emulator.registry import Context
from mmearth_data.emulator.values import Image

Body = Mapping[str, Any]
MAX_THUMBNAILS = 1000
"""Requests kept to be fetched; the oldest are forgotten."""
_AFFINE = ("scaleX", "shearX", "translateX", "shearY", "scaleY", "translateY")


@dataclass(frozen=True)
class Answer:
    """A body with its content type."""

    body: bytes
    content_type: str = "application/json; charset=UTF-8"


class Service:
    """Evaluates requests over an archive, from many threads: requests share nothing but the thumbnails kept."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._verbs = {
            "value:compute": self._value,
            "image:computePixels": self._pixels,
            "table:computeFeatures": self._features,
            "thumbnails": self._thumbnail,
        }
        self._kept: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def answer(self, verb: str, body: Body) -> Answer:
        """The answer of a verb such as "image:computePixels"; raises ServiceError for what the service refuses."""
        if verb not in self._verbs:
            raise ServiceError(f"The emulator does not implement {verb}; it has {', '.join(self._verbs)}.", 404)
        try:
            return self._verbs[verb](body)
        except RecursionError:
            raise ServiceError("The expression is nested too deeply to be evaluated.") from None

    def _evaluate(self, body: Body) -> tuple[Any, Frames]:
        frames = Frames()
        try:
            return Evaluator(Context(self._archive, frames)).run(body.get("expression", {})), frames
        except GEOSException as error:
            raise ServiceError(f"Geometry: the shapes cannot be computed with ({str(error)[:120]}).") from None

    def _value(self, body: Body) -> Answer:
        result, _ = self._evaluate(body)
        return _json({"result": encode.value(result)})

    def _pixels(self, body: Body) -> Answer:
        given = body.get("grid")
        grid = None if given is None else _grid(given)
        image, frames = self._evaluate(body)
        if not isinstance(image, Image):
            raise ServiceError("computePixels: the expression must evaluate to an image.")
        wanted = body.get("bandIds")
        if wanted:
            if not isinstance(wanted, list) or not all(isinstance(name, str) for name in wanted):
                raise ServiceError("computePixels: 'bandIds' must be a list of names.")
            missing = [name for name in wanted if image.band(name) is None]
            if missing:
                raise ServiceError(f"computePixels: the image has no band '{missing[0]}'.")
            image = image.with_bands(tuple(band for band in image.bands if band.name in wanted))
        kind, prefix = str(body.get("fileFormat") or "AUTO_JPEG_PNG"), str(body.get("filenamePrefix") or "")
        if "visualizationOptions" in body:
            raise ServiceError("The emulator does not implement 'visualizationOptions'; compute the colours instead.")
        return Answer(*exports.write(image, grid, kind, prefix, frames))

    def _thumbnail(self, body: Body) -> Answer:
        """Keep a request for pixels under a name, which whoever fetches them gives."""
        content = json.dumps(body, sort_keys=True)
        name = hashlib.sha256(content.encode()).hexdigest()[:32]
        with self._lock:
            self._kept[name] = content
            self._kept.move_to_end(name)
            while len(self._kept) > MAX_THUMBNAILS:
                self._kept.popitem(last=False)
        return _json({"name": f"projects/emulator/thumbnails/{name}"})

    def thumbnail(self, name: str) -> Answer:
        """The pixels of a request that was kept; a 404 if there is none of that name."""
        with self._lock:
            content = self._kept.get(name)
        if content is None:
            raise ServiceError(f"Thumbnail '{name}' not found.", 404)
        return self._pixels(json.loads(content))

    def _features(self, body: Body) -> Answer:
        asked = body.get("pageSize") or limits.MAX_PAGE_ROWS
        if not isinstance(asked, int) or asked < 1:
            raise ServiceError(f"computeFeatures: 'pageSize' must be a positive integer; got {str(asked)[:40]}.")
        size = min(asked, limits.MAX_PAGE_ROWS)
        digest = hashlib.sha256(json.dumps(body.get("expression"), sort_keys=True).encode()).hexdigest()[:16]
        offset = _offset(body.get("pageToken"), digest)
        table, _ = self._evaluate(body)
        if not is_collection(table):
            raise ServiceError("computeFeatures: the expression must evaluate to a feature collection.")
        page = list(islice(table.elements(EVERYTHING), offset, offset + size + 1))
        result: dict[str, Any] = {"type": "FeatureCollection", "features": encode.rows(page[:size])}
        if len(page) > size:
            result["nextPageToken"] = base64.urlsafe_b64encode(f"{offset + size}:{digest}".encode()).decode()
        return _json(result)


def _json(content: Any) -> Answer:
    return Answer(json.dumps(content, allow_nan=False, separators=(",", ":")).encode())


def _offset(token: Any, digest: str) -> int:
    """The row at which a page starts; a token belongs to its expression."""
    if not token:
        return 0
    if not isinstance(token, str):
        raise ServiceError("computeFeatures: the page token is not one of this expression's.")
    try:
        row, _, made_for = base64.urlsafe_b64decode(token).decode().partition(":")
    except (binascii.Error, UnicodeError, ValueError):
        row, made_for = "", ""
    if made_for != digest or not row.isdigit():
        raise ServiceError("computeFeatures: the page token is not one of this expression's.")
    return int(row)


def _grid(given: Any) -> PixelGrid:
    """The pixel grid of a computePixels request, which must be complete."""
    if not isinstance(given, Mapping) or not {"dimensions", "affineTransform", "crsCode"} <= given.keys():
        raise ServiceError(
            "computePixels: the emulator needs a grid with 'dimensions', 'affineTransform' and 'crsCode'."
        )
    affine, dimensions = given["affineTransform"], given["dimensions"]
    if not isinstance(affine, Mapping) or not isinstance(dimensions, Mapping):
        raise ServiceError("computePixels: 'affineTransform' and 'dimensions' of the grid must be objects.")
    try:
        a, b, c, d, e, f = (float(affine.get(name, 0)) for name in _AFFINE)
        width, height = int(dimensions.get("width", 0)), int(dimensions.get("height", 0))
    except (TypeError, ValueError, OverflowError):
        raise ServiceError(f"computePixels: the grid has something else than numbers: {str(given)[:120]}.") from None
    limits.check_pixels(width, height, ["uint8"])
    return PixelGrid(crs_named(str(given["crsCode"])), affine_of([a, b, c, d, e, f], "grid"), height, width)
