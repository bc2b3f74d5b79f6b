"""Regular expressions of requests, tried on short texts only: a bad one may take exponential time on a long one."""

from __future__ import annotations

import re
import warnings
from functools import lru_cache

from mmearth_data.emulator.errors import ServiceError

MAX_PATTERN, MAX_TEXT = 1000, 100_000
_NESTED = re.compile(r"[+*}]\s*\)\s*[+*{]|\([^)]*\|[^)]*\)\s*[+*{]")
"""A repetition of a repetition, or of alternatives: what makes matching take exponential time."""


@lru_cache(maxsize=1024)
def compiled(pattern: str, where: str, flags: str = "") -> re.Pattern[str]:
    """A regular expression, with the flag i to ignore case; a 400 if it is none."""
    if set(flags) - set("gi"):
        raise ServiceError(f"{where}: the emulator knows the flags g and i; got '{flags}'.")
    if len(pattern) > MAX_PATTERN or _NESTED.search(pattern):
        raise ServiceError(f"{where}: the emulator does not evaluate the pattern '{pattern[:80]}': it may never end.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return re.compile(pattern, re.IGNORECASE if "i" in flags else 0)
    except (re.error, OverflowError) as error:
        raise ServiceError(f"{where}: the pattern '{pattern[:80]}' is no regular expression ({error}).") from None


def matches(pattern: str, text: str, where: str) -> bool:
    """Whether the whole text matches."""
    return pattern == text or compiled(pattern, where).fullmatch(text[:MAX_TEXT]) is not None


def substituted(pattern: str, replacement: str, text: str, count: int, where: str, flags: str = "") -> str:
    """The text with matches replaced; groups are written $1."""
    known = compiled(pattern, where, flags)
    template = re.sub(r"\$(\d)", r"\\g<\1>", replacement.replace("\\", "\\\\"))
    try:
        return known.sub(template, text[:MAX_TEXT], count=count)
    except (re.error, IndexError) as error:
        raise ServiceError(f"{where}: the replacement '{replacement[:80]}' is none ({error}).") from None
