"""Times as Earth Engine counts them, in ms since 1970 (UTC)."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

_STAMP = re.compile(r"[0-9]{8}T[0-9]{6}")


def ms(year: int, month: int = 1, day: int = 1, hour: int = 0, minute: int = 0, second: int = 0) -> int:
    """Ms of a date."""
    return int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()) * 1000


def stamp(time: int) -> str:
    """A time as products write it: 20190704T103031."""
    return datetime.fromtimestamp(time // 1000, UTC).strftime("%Y%m%dT%H%M%S")


def stamps(seconds: I64) -> list[str]:
    """``stamp`` of times in whole seconds since 1970."""
    texts = np.datetime_as_string(seconds.astype("datetime64[s]")).tolist()
    return [text.replace("-", "").replace(":", "") for text in texts]


def parse(text: str) -> int | None:
    """The time that ``stamp`` wrote, or None."""
    if not _STAMP.fullmatch(text):
        return None
    try:
        return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000
    except ValueError:
        return None


def year_of(time: int) -> int:
    """Calendar year of a time."""
    return datetime.fromtimestamp(time // 1000, UTC).year


@lru_cache(maxsize=65536)
def month_of(time: int) -> float:
    """Months since the start of the year (0–12) to about seven hours, so that one pass has one month everywhere."""
    moment = datetime.fromtimestamp(time // 1000, UTC)
    day = (moment - datetime(moment.year, 1, 1, tzinfo=UTC)).total_seconds() / 86400.0
    return round(day / (366 if moment.year % 4 == 0 else 365) * 12.0, 2)


def months_of(seconds: I64) -> list[float]:
    """``month_of`` of times in whole seconds since 1970."""
    moments = seconds.astype("datetime64[s]")
    years = moments.astype("datetime64[Y]")
    leap = (years.astype(np.int64) + 1970) % 4 == 0
    parts = (moments - years).astype(np.int64) / 86400.0 / np.where(leap, 366, 365) * 12.0
    # As Python rounds: to the nearest decimal fraction, which NumPy misses by a bit.
    return [round(part, 2) for part in parts.tolist()]


def suns(times: I64, lon: float, lat: float) -> tuple[F64, F64]:
    """Solar zenith and azimuth (clockwise from north) in degrees at times, within half a degree.

    Cooper's declination (1969).
    """
    moments = (times // 1000).astype("datetime64[s]")
    day = (moments.astype("datetime64[D]") - moments.astype("datetime64[Y]")).astype(np.int64) + 1
    second = times // 1000 % 86400
    declination = np.radians(23.45 * np.sin(2.0 * np.pi * (284 + day) / 365.0))
    hour = second // 3600 + second % 3600 // 60 / 60.0 + second % 60 / 3600.0
    angle = np.radians((hour - 12.0) * 15.0 + lon)
    phi = np.radians(lat)
    cosine = np.sin(phi) * np.sin(declination) + np.cos(phi) * np.cos(declination) * np.cos(angle)
    east = -np.cos(declination) * np.sin(angle)
    north = np.cos(phi) * np.sin(declination) - np.sin(phi) * np.cos(declination) * np.cos(angle)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1))), np.degrees(np.arctan2(east, north)) % 360.0
