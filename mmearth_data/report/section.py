"""What a section of the report is: content without markup, which the page lays out.

Content is said in types that everybody knows: ``str`` is a paragraph, ``DataFrame`` a table (its ``attrs["caption"]``
the caption), ``Figure`` a chart, ``Image`` a picture, ``dict`` a legend of label to colour, ``list`` a row of any of
them. Table cells may hold any of these too, so a table of pictures is a table. ``mmearth_train.report`` has the same
two types: training imports the registry and the store of this package, nothing else.
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
