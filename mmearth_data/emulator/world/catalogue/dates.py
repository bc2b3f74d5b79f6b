"""Times as Earth Engine counts them, in ms since 1970 (UTC)."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np


def ms(year: int, month: int = 1, day: int = 1, hour: int = 0, minute: int = 0, second: int = 0) -> int:
    """Ms of a date."""
    return int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()) * 1000


def stamp(time: int) -> str:
    """A time as products write it: 20190704T103031."""
    return datetime.fromtimestamp(time // 1000, UTC).strftime("%Y%m%dT%H%M%S")


def parse(text: str) -> int | None:
    """The time that ``stamp`` wrote, or None."""
    try:
        return int(datetime.strptime(text, "%Y%m%dT%H%M%S").replace(tzinfo=UTC).timestamp()) * 1000
    except ValueError:
        return None


def year_of(time: int) -> int:
    """Calendar year of a time."""
    return datetime.fromtimestamp(time // 1000, UTC).year


def month_of(time: int) -> float:
    """Months since the start of the year (0–12) to about seven hours, so that one pass has one month everywhere."""
    moment = datetime.fromtimestamp(time // 1000, UTC)
    day = (moment - datetime(moment.year, 1, 1, tzinfo=UTC)).total_seconds() / 86400.0
    return round(day / (366 if moment.year % 4 == 0 else 365) * 12.0, 2)


def sun(time: int, lon: float, lat: float) -> tuple[float, float]:
    """Solar zenith and azimuth (clockwise from north) in degrees, within half a degree (Cooper 1969 declination)."""
    moment = datetime.fromtimestamp(time // 1000, UTC)
    day = moment.timetuple().tm_yday
    declination = np.radians(23.45 * np.sin(2.0 * np.pi * (284 + day) / 365.0))
    hour = moment.hour + moment.minute / 60.0 + moment.second / 3600.0
    angle = np.radians((hour - 12.0) * 15.0 + lon)
    phi = np.radians(lat)
    cosine = np.sin(phi) * np.sin(declination) + np.cos(phi) * np.cos(declination) * np.cos(angle)
    east = -np.cos(declination) * np.sin(angle)
    north = np.cos(phi) * np.sin(declination) - np.sin(phi) * np.cos(declination) * np.cos(angle)
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))), float(np.degrees(np.arctan2(east, north)) % 360.0)
