"""Texts."""

from __future__ import annotations

import json
from typing import Any

from mmearth_data.emulator import patterns
from mmearth_data.emulator.algorithms.lists import text_of
from mmearth_data.emulator.encode import value as encoded
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.registry import algorithm

MAX_LENGTH = 1_000_000


def _short(text: str, where: str) -> str:
    if len(text) > MAX_LENGTH:
        raise ServiceError(f"{where}: the emulator makes texts of at most {MAX_LENGTH} characters.")
    return text


@algorithm("String")
def string(input: Any) -> str:
    """A number or a text as text."""
    return text_of(input)


@algorithm("String.cat")
def cat(string1: str, string2: str) -> str:
    """Two texts, one after the other."""
    return _short(string1 + string2, "String.cat")


@algorithm("String.length")
def length(string: str) -> int:
    """The number of characters."""
    return len(string)


@algorithm("String.slice")
def sliced(string: str, start: int, end: int | None) -> str:
    """Characters from one place up to another; negative places count from the end."""
    return string[start:end]


@algorithm("String.index")
def index(target: str, pattern: str) -> int:
    """Where a text first occurs in another, -1 if it does not."""
    return target.find(pattern)


@algorithm("String.rindex")
def last_index(target: str, pattern: str) -> int:
    """Where a text last occurs in another, -1 if it does not."""
    return target.rfind(pattern)


@algorithm("String.equals")
def equals(reference: str, target: Any) -> bool:
    """Whether a value is the same text."""
    return isinstance(target, str) and reference == target


@algorithm("String.compareTo")
def compare(string1: str, string2: str) -> int:
    """-1, 0 or 1 as the first is before, equal to or after the second."""
    return int(string1 > string2) - int(string1 < string2)


@algorithm("String.toLowerCase")
def lower(string: str) -> str:
    """In small letters."""
    return string.lower()


@algorithm("String.toUpperCase")
def upper(string: str) -> str:
    """In capital letters."""
    return _short(string.upper(), "String.toUpperCase")


@algorithm("String.trim")
def trim(string: str) -> str:
    """Without space at its ends."""
    return string.strip()


@algorithm("String.match")
def match(input: str, regex: str, flags: str) -> list[str]:
    """What a regular expression finds, with its groups; all that it finds under the flag g."""
    known = patterns.compiled(regex, "String.match", flags)
    text = input[: patterns.MAX_TEXT]
    if "g" in flags:
        return [found[0] for found in known.finditer(text)]
    found = known.search(text)
    return [] if found is None else [found[0], *(group or "" for group in found.groups())]


@algorithm("String.replace")
def replaced(input: str, regex: str, replacement: str, flags: str) -> str:
    """The text with what a regular expression first finds replaced; with all of it under the flag g."""
    count = 0 if "g" in flags else 1
    return _short(
        patterns.substituted(regex, replacement, input, count, "String.replace", flags.replace("g", "")),
        "String.replace",
    )


@algorithm("String.split")
def split(string: str, regex: str, flags: str) -> list[str]:
    """The text cut where a regular expression is found."""
    if not regex:
        return list(string)
    parts = patterns.compiled(regex, "String.split", flags).split(string[: patterns.MAX_TEXT])
    return [part for part in parts if part is not None]


@algorithm("String.decodeJSON")
def decode(string: str) -> Any:
    """The value that a text writes in JSON."""
    try:
        return json.loads(string)
    except (ValueError, RecursionError) as error:
        raise ServiceError(f"String.decodeJSON: the text is no JSON ({error}).") from None


@algorithm("String.encodeJSON")
def encode(object: Any) -> str:
    """A value in JSON."""
    return _short(json.dumps(encoded(object)), "String.encodeJSON")
