"""Dates and ranges of them, in UTC."""

from __future__ import annotations

import calendar
from datetime import UTC, datetime
from typing import Any

from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.registry import algorithm
from mmearth_data.emulator.values import Date, DateRange, moment

_MS = {"second": 1000, "minute": 60_000, "hour": 3_600_000, "day": 86_400_000, "week": 7 * 86_400_000}
_YEAR_MS = 365.2425 * 86_400_000
_AVERAGE_MS = {**_MS, "month": _YEAR_MS / 12, "year": _YEAR_MS}


@algorithm("Date")
def date(value: Any) -> Date:
    """The moment that ms since 1970, an ISO 8601 string or another date name."""
    return Date(moment(value))


@algorithm("Date.fromYMD")
def from_ymd(year: int, month: int, day: int) -> Date:
    """Midnight of a calendar day."""
    try:
        return Date(round(datetime(year, month, day, tzinfo=UTC).timestamp() * 1000))
    except ValueError as error:
        raise ServiceError(f"Date.fromYMD: {year}-{month}-{day} is no date ({error}).") from None


@algorithm("Date.millis")
def millis(date: Date) -> int:
    """Milliseconds since 1970."""
    return date.ms


@algorithm("Date.advance")
def advance(date: Date, delta: float, unit: str) -> Date:
    """The date moved by units; months and years keep the day of the month where the new month has it."""
    if unit in _MS:
        return Date(date.ms + round(delta * _MS[unit]))
    if unit not in ("month", "year"):
        raise ServiceError(f"Date.advance: unknown unit '{unit}'.")
    if delta != int(delta):
        raise ServiceError(f"Date.advance: the emulator advances by whole {unit}s only; got {delta}.")
    moved = date.utc.year * 12 + date.utc.month - 1 + int(delta) * (12 if unit == "year" else 1)
    year, month = divmod(moved, 12)
    day = min(date.utc.day, calendar.monthrange(year, month + 1)[1])
    return Date(round(date.utc.replace(year=year, month=month + 1, day=day).timestamp() * 1000))


@algorithm("Date.difference")
def difference(date: Date, start: Date, unit: str) -> float:
    """The time from ``start`` to ``date`` in units of average length."""
    if unit not in _AVERAGE_MS:
        raise ServiceError(f"Date.difference: unknown unit '{unit}'.")
    return (date.ms - start.ms) / _AVERAGE_MS[unit]


@algorithm("Date.get")
def get(date: Date, unit: str) -> int:
    """A part of the date: year, month (from 1), day (from 1), hour, minute or second."""
    if unit not in ("year", "month", "day", "hour", "minute", "second"):
        raise ServiceError(f"Date.get: the emulator does not implement the unit '{unit}'.")
    part: int = getattr(date.utc, unit)
    return part


@algorithm("DateRange")
def date_range(start: Any, end: Any) -> DateRange:
    """From ``start`` up to but not including ``end``; one millisecond if there is no end."""
    first = moment(start)
    return DateRange(first, first + 1 if end is None else moment(end))
