"""Dates and ranges of them, in UTC."""

from __future__ import annotations

import calendar
import math
from datetime import UTC, datetime, timedelta
from typing import Any

from mmearth_data.emulator.datepatterns import parsed, written
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.registry import algorithm
from mmearth_data.emulator.values import Date, DateRange, checked, moment

_MOST_UNITS = 1e15
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
    except (ValueError, OverflowError) as error:
        raise ServiceError(f"Date.fromYMD: {year}-{month}-{day} is no date ({error}).") from None


@algorithm("Date.millis")
def millis(date: Date) -> int:
    """Milliseconds since 1970."""
    return date.ms


@algorithm("Date.advance")
def advance(date: Date, delta: float, unit: str) -> Date:
    """The date moved by units; months and years keep the day of the month where the new month has it."""
    if not math.isfinite(delta) or abs(delta) > _MOST_UNITS:
        raise ServiceError(f"Date.advance: 'delta' must be a number up to {_MOST_UNITS:g}; got {delta}.")
    if unit in _MS:
        return Date(checked(date.ms + round(delta * _MS[unit])))
    if unit not in ("month", "year"):
        raise ServiceError(f"Date.advance: unknown unit '{unit}'.")
    if delta != int(delta):
        raise ServiceError(f"Date.advance: the emulator advances by whole {unit}s only; got {delta}.")
    moved = date.utc.year * 12 + date.utc.month - 1 + int(delta) * (12 if unit == "year" else 1)
    year, month = divmod(moved, 12)
    if not 1 <= year <= 9999:
        raise ServiceError(f"Date.advance: the year {year} is beyond the emulator's calendar.")
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
    """A part of the date: year, month (from 1), week (ISO 8601), day (from 1), hour, minute or second."""
    if unit == "week":
        return date.utc.isocalendar().week
    if unit not in ("year", "month", "day", "hour", "minute", "second"):
        raise ServiceError(f"Date.get: the emulator does not implement the unit '{unit}'.")
    part: int = getattr(date.utc, unit)
    return part


@algorithm("DateRange")
def date_range(start: Any, end: Any) -> DateRange:
    """From ``start`` up to but not including ``end``; one millisecond if there is no end."""
    first = moment(start)
    return DateRange(first, first + 1 if end is None else moment(end))


def _start_of(when: datetime, unit: str, where: str) -> datetime:
    """When the unit that a moment is in began."""
    day = when.replace(hour=0, minute=0, second=0, microsecond=0)
    starts = {
        "year": lambda: day.replace(month=1, day=1),
        "month": lambda: day.replace(day=1),
        "week": lambda: day - timedelta(days=day.weekday()),
        "day": lambda: day,
        "hour": lambda: when.replace(minute=0, second=0, microsecond=0),
        "minute": lambda: when.replace(second=0, microsecond=0),
        "second": lambda: when.replace(microsecond=0),
    }
    if unit not in starts:
        raise ServiceError(f"{where}: unknown unit '{unit}'.")
    return starts[unit]()


def _span(date: Date, unit: str, where: str) -> DateRange:
    start = Date(round(_start_of(date.utc, unit, where).timestamp() * 1000))
    return DateRange(start.ms, advance(start, 1, unit).ms)


@algorithm("Date.getRange")
def get_range(date: Date, unit: str) -> DateRange:
    """The unit that the date is in, from its start to its end."""
    return _span(date, unit, "Date.getRange")


@algorithm("Date.getFraction")
def get_fraction(date: Date, unit: str) -> float:
    """How much of the unit that the date is in has passed."""
    span = _span(date, unit, "Date.getFraction")
    return (date.ms - span.start) / (span.end - span.start)


@algorithm("Date.getRelative")
def get_relative(date: Date, unit: str, inUnit: str) -> int:
    """Which unit of a larger one the date is in, from 0."""
    start = _span(date, inUnit, "Date.getRelative").start
    if unit == "month":
        if inUnit not in ("year", "month"):
            raise ServiceError(f"Date.getRelative: '{unit}' is no part of '{inUnit}'.")
        return date.utc.month - Date(start).utc.month
    if unit not in _MS:
        raise ServiceError(f"Date.getRelative: the emulator does not count the unit '{unit}'.")
    return int((date.ms - start) // _MS[unit])


@algorithm("Date.update")
def update(
    date: Date,
    year: int | None,
    month: int | None,
    day: int | None,
    hour: int | None,
    minute: int | None,
    second: float | None,
) -> Date:
    """The date with some of its parts changed."""
    given = {"year": year, "month": month, "day": day, "hour": hour, "minute": minute}
    parts: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if second is not None:
        parts |= {"second": int(second), "microsecond": round(second % 1 * 1_000_000) % 1_000_000}
    try:
        return Date(round(date.utc.replace(**parts).timestamp() * 1000))
    except (ValueError, OverflowError) as error:
        raise ServiceError(f"Date.update: there is no such date ({error}).") from None


@algorithm("Date.unitRatio")
def unit_ratio(numerator: str, denominator: str) -> float:
    """How many of one unit, of average length, are in another."""
    for unit in (numerator, denominator):
        if unit not in _AVERAGE_MS:
            raise ServiceError(f"Date.unitRatio: unknown unit '{unit}'.")
    return _AVERAGE_MS[numerator] / _AVERAGE_MS[denominator]


@algorithm("Date.format")
def formatted(date: Date, format: str | None) -> str:
    """The date written by a pattern of letters, ISO 8601 by default."""
    return written(date.utc, "YYYY-MM-dd'T'HH:mm:ss" if format is None else format)


@algorithm("Date.parse")
def parse(format: str, date: str) -> Date:
    """The date that a text writes by a pattern of letters."""
    return Date(round(parsed(date, format).timestamp() * 1000))


@algorithm("DateRange.start")
def range_start(dateRange: DateRange) -> Date:
    """When the range begins."""
    return Date(dateRange.start)


@algorithm("DateRange.end")
def range_end(dateRange: DateRange) -> Date:
    """When the range has ended."""
    return Date(dateRange.end)


@algorithm("DateRange.isEmpty")
def range_empty(dateRange: DateRange) -> bool:
    """Whether no moment is in the range."""
    return dateRange.end <= dateRange.start


@algorithm("DateRange.contains")
def range_contains(dateRange: DateRange, other: Any) -> bool:
    """Whether a date, or every moment of another range, is in the range."""
    if isinstance(other, DateRange):
        return dateRange.start <= other.start and other.end <= dateRange.end
    return dateRange.start <= moment(other) < dateRange.end


@algorithm("DateRange.intersects")
def range_intersects(dateRange: DateRange, other: DateRange) -> bool:
    """Whether some moment is in both ranges."""
    return max(dateRange.start, other.start) < min(dateRange.end, other.end)
