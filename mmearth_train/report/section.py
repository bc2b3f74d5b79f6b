"""What a section of the report is: content without markup, which the page lays out.

``str`` is a paragraph, ``DataFrame`` a table (its ``attrs["caption"]`` the caption), ``Figure`` a chart, ``Image`` a
picture, ``dict`` a legend of label to colour, ``list`` a row of any of them; table cells may hold any of these too.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

State = Literal["good", "bad", "plain", "missing"]


class Fact(NamedTuple):
    """One key fact for the page's header: what it is, its value, whether that is good, and why in a few words."""

    label: str
    value: str
    state: State
    note: str


class Section(NamedTuple):
    """One section: its title, its anchor in the page, its content in order, and its facts for the header."""

    title: str
    anchor: str
    blocks: tuple[Any, ...]
    facts: tuple[Fact, ...] = ()
