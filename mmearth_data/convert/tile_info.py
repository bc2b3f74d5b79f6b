"""``NAME_tile_info.json``: one JSON object of over a gigabyte, read entry by entry.

Parsing it whole takes several times its size in memory, so one pass notes where each entry lies, and entries are
parsed when they are asked for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from mmearth_data.convert.journal import ConversionError
from mmearth_data.store.schema import LEVELS

OWN_KEY = "mmearth"
"""Key of an entry under which our export keeps what the layout has no place for; others ignore it."""
POLARISATIONS = ("VV", "VH", "HH", "HV")

_PIECE = 1 << 20
_SPACE = " \t\r\n"


@dataclass(frozen=True)
class TileFacts:
    """What an entry says of a tile, checked.

    ``time`` is the start of the day of acquisition (ms since 1970, UTC): the layout has no time of day. ``passes``
    gives the polarisations of each radar pass, None where the entry does not list them. ``own`` is what our export
    keeps of the row, empty in a published file.
    """

    level: str
    time: int
    year: int
    epsg: int
    lon: float
    lat: float
    passes: dict[str, tuple[str, ...]] | None
    own: dict[str, Any]


class TileInfoFile:
    """The entries of a file by tile id; a context manager. Safe to ask from several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")
        try:
            self._places = dict(self._index())
        except ConversionError:
            self._file.close()
            raise

    def __enter__(self) -> TileInfoFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._places)

    def _damaged(self, why: str) -> ConversionError:
        return ConversionError(f"{self._path} is no JSON object of tiles ({why}); download it again")

    def _index(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """(tile id, (offset, length)) of each entry.

        Bytes are scanned as Latin-1: a byte is a character, and no byte of a multi-byte character is JSON syntax.
        """
        scan, read, text, start = json.JSONDecoder().raw_decode, self._file.read, "", 0
        at = 0

        def grow() -> bool:
            """Drop what was parsed and read on; False at the end of the file."""
            nonlocal text, start, at
            piece = read(max(_PIECE, len(text) - at)).decode("latin-1")
            text, start, at = text[at:] + piece, start + at, 0
            return bool(piece)

        def skip(expected: str) -> str:
            """The next character that is no space, one of ``expected``."""
            nonlocal at
            while True:
                while at < len(text) and text[at] in _SPACE:
                    at += 1
                if at < len(text):
                    break
                if not grow():
                    raise self._damaged("it ends early")
            if text[at] not in expected:
                raise self._damaged(f"{text[at]!r} where one of {expected!r} belongs")
            at += 1
            return text[at - 1]

        def value() -> tuple[str, int]:
            """The next value as it is written, and its offset in the file."""
            nonlocal at
            while True:
                try:
                    _, end = scan(text, at)
                except ValueError as error:
                    if not grow():
                        raise self._damaged(str(error)) from error
                    continue
                found, offset = text[at:end], start + at
                at = end
                return found, offset

        skip("{")
        more = skip('"}') == '"'
        while more:
            at -= 1
            name, _ = value()
            skip(":")
            skip("{")
            at -= 1
            found, offset = value()
            try:
                yield json.loads(name.encode("latin-1")), (offset, len(found))
            except ValueError as error:
                raise self._damaged(str(error)) from error
            more = skip(",}") == "," and skip('"') == '"'
        if text[at:].strip(_SPACE) or read(_PIECE).strip():
            raise self._damaged("it goes on after its end")

    def facts(self, tile_id: str) -> TileFacts:
        """The facts of a tile; raises ConversionError where there is no entry or it lacks one of them."""
        place = self._places.get(tile_id)
        if place is None:
            raise ConversionError(
                f"{self._path} has no entry of tile {tile_id}, which the .h5 file names; take both from one data set"
            )
        # Several threads ask, so the file's own position is left alone.
        entry = json.loads(os.pread(self._file.fileno(), place[1], place[0]))
        try:
            return _facts(entry)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConversionError(f"tile {tile_id} of {self._path} is not as published ({error!r})") from error


def _facts(entry: dict[str, Any]) -> TileFacts:
    own = dict(entry.get(OWN_KEY, {}))
    level = str(entry["S2_type"]).upper()
    if level not in LEVELS:
        raise ValueError(f"S2_type must be l1c or l2a, not {entry['S2_type']!r}")
    authority, code = str(entry["CRS"]).split(":")
    if authority != "EPSG":
        raise ValueError(f"CRS must be an EPSG code, not {entry['CRS']!r}")
    day = np.datetime64(entry["S2_DATE"], "D")
    bands = entry.get("BANDS")
    passes = None
    if bands is not None:
        listed = {name: bands.get(f"sentinel1_{name}") or () for name in ("asc", "desc")}
        passes = {name: tuple(band for band in POLARISATIONS if band in found) for name, found in listed.items()}
    return TileFacts(
        level=level,
        time=int(day.astype("datetime64[ms]").astype(np.int64)),
        year=int(str(day)[:4]),
        epsg=int(code),
        lon=float(entry["lon"]),
        lat=float(entry["lat"]),
        passes=passes,
        own=own,
    )


def entry(
    record: dict[str, Any], classes: dict[str, int | None], passes: dict[str, list[str]], era5: list[float | None]
) -> dict[str, Any]:
    """The entry of a stored row, ``record`` being its line of the row table, kept whole under OWN_KEY.

    ``classes``: ids of biome and eco_region. ``passes``: polarisations with data in each radar pass. ``era5``: the
    twelve values, None for no-data.
    """
    level, day = record["level"], np.datetime64(record["time"], "ms").astype("datetime64[D]")
    month = day.astype("datetime64[M]")
    months = [str(m).replace("-", "") for m in (month - 1, month)]
    return {
        "S2_DATE": str(day),
        "S2_type": level.lower(),
        "CRS": f"EPSG:{record['epsg']}",
        "lat": record["lat"],
        "lon": record["lon"],
        **classes,
        "NO_DATA": False,
        "BANDS": {
            "sentinel2": _optical(level, has_probability=not record["absent_sentinel2_cloudprod"]),
            **{f"sentinel1_{name}": passes[name] or None for name in ("asc", "desc")},
            "aster": ["b1", "slope"],
            "era5": [f"{m}_{name}" for m in months for name, _ in _ERA5]
            + [f"{i}_{name}_{reducer}" for i, (name, reducer) in enumerate(_ERA5)],
            "dynamic_world": ["label"],
            "canopy_height_eth": ["height", "std"],
            "esa_worldcover": ["Map"],
        },
        "era5": {name: era5[first : first + 4] for first, name in ((0, "month1"), (4, "month2"), (8, "year"))},
        OWN_KEY: {name: value for name, value in record.items() if value not in (None, "") and value == value},
    }


_ERA5 = (
    ("temperature_2m", "mean"),
    ("temperature_2m_min", "min"),
    ("temperature_2m_max", "max"),
    ("total_precipitation_sum", "sum"),
)
"""The variables of ERA5-Land and how a year of each is reduced."""


def _optical(level: str, *, has_probability: bool) -> list[str]:
    """Sentinel-2 bands in the order in which the data set's writer lists them."""
    bands = ["B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8A", "B8", "B9"]
    if level == "L1C":
        return [*bands, "B10", "B11", "B12", "QA60"]
    return [*bands, "B11", "B12", *(["MSK_CLDPRB"] if has_probability else []), "SCL", "QA60"]
