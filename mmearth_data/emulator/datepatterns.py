"""Dates by patterns of letters, as Joda-Time writes them: YYYY-MM-dd'T'HH:mm:ss.SSS and the like."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from mmearth_data.emulator.errors import ServiceError

_TOKEN = re.compile(r"'((?:[^']|'')*)'|([A-Za-z])\2*")
_NUMBERS = "YyMdHms"
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


def written(when: datetime, pattern: str) -> str:
    """A moment by a pattern; a 400 for letters that the emulator does not know."""

    def piece(found: re.Match[str]) -> str:
        if found[0].startswith("'"):
            return found[1].replace("''", "'") or "'"
        return _part(when, found[0])

    return _TOKEN.sub(piece, pattern)


def _part(when: datetime, letters: str) -> str:
    letter, width = letters[0], len(letters)
    if letter == "M" and width > 2:
        name = _MONTHS[when.month - 1]
        return name if width > 3 else name[:3]
    if letter == "E":
        name = _DAYS[when.weekday()]
        return name if width > 3 else name[:3]
    if letter == "S":
        return f"{when.microsecond:06d}"[:width].ljust(width, "0")
    if letter == "a":
        return "AM" if when.hour < 12 else "PM"
    numbers = {
        "Y": when.year, "y": when.year, "M": when.month, "d": when.day, "H": when.hour, "m": when.minute,
        "s": when.second, "D": when.timetuple().tm_yday, "w": when.isocalendar().week, "e": when.isoweekday(),
        "h": (when.hour - 1) % 12 + 1,
    }  # fmt: skip
    if letter not in numbers:
        raise ServiceError(f"Date.format: the emulator does not know the letter '{letter}'.")
    if letter in "Yy" and width == 2:
        return f"{when.year % 100:02d}"
    return f"{numbers[letter]:0{width}d}"


def parsed(text: str, pattern: str) -> datetime:
    """The moment that a text writes by a pattern of numbers; a 400 if it does not."""
    groups: list[str] = []
    expression, end = "", 0
    for found in _TOKEN.finditer(pattern):
        expression += re.escape(pattern[end : found.start()])
        end = found.end()
        if found[0].startswith("'"):
            expression += re.escape(found[1].replace("''", "'") or "'")
            continue
        letter, width = found[0][0], len(found[0])
        if letter not in _NUMBERS or (letter == "M" and width > 2):
            raise ServiceError(f"Date.parse: the emulator does not read '{found[0][:20]}'.")
        expression += rf"(\d{{{width}}})" if width > 1 else r"(\d{1,4})"
        groups.append(letter.replace("y", "Y"))
    match = re.fullmatch(expression + re.escape(pattern[end:]), text)
    parts = {} if match is None else dict(zip(groups, map(int, match.groups()), strict=True))
    try:
        if match is None:
            raise ValueError(f"it is not of the form {pattern}")
        start = datetime(parts.get("Y", 1970), parts.get("M", 1), parts.get("d", 1), tzinfo=UTC)
        return start.replace(hour=parts.get("H", 0), minute=parts.get("m", 0), second=parts.get("s", 0))
    except ValueError as error:
        raise ServiceError(f"Date.parse: cannot read '{text[:40]}': {error}.") from None
