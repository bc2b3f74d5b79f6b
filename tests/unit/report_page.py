"""Reading a report page as a browser would: its tables by id, its pictures, its facts, and what it refers to."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

VOID = {"meta", "img", "br", "link", "input", "hr"}


@dataclass
class Cell:
    """One table cell: its words, joined by spaces, and its pictures by their alternative text."""

    words: list[str] = field(default_factory=list)
    pictures: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def pixels(self, alt: str) -> NDArray[np.uint8]:
        """The picture with this alternative text as an array."""
        content = base64.b64decode(self.pictures[alt].removeprefix("data:image/png;base64,"))
        return np.asarray(Image.open(io.BytesIO(content)))


class Page(HTMLParser):
    """A parsed page; tags must nest properly."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[Cell]]] = {}
        self.sections: dict[str, str] = {}
        self.facts: dict[str, tuple[str, str, str]] = {}
        self.verdict, self.verdict_state = "", ""
        self.tags: list[tuple[str, dict[str, str]]] = []
        self._open: list[tuple[str, dict[str, str]]] = []
        self._rows: list[list[Cell]] | None = None
        self._section = ""
        self._fact: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, f"unclosed: {self._open}"

    @classmethod
    def of(cls, file: Path) -> Page:
        return cls(file.read_text(encoding="utf-8"))

    def table(self, name: str) -> list[list[str]]:
        """Rows of a table as text, header first."""
        return [[cell.text for cell in row] for row in self.tables[name]]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.append((tag, given))
        if tag == "img" and self._rows is not None:
            self._rows[-1][-1].pictures[given["alt"]] = given["src"]
        if tag in VOID:
            return
        self._open.append((tag, given))
        if tag == "table":
            self._rows = []
            if "id" in given:
                assert given["id"] not in self.tables
                self.tables[given["id"]] = self._rows
        elif tag == "tr" and self._rows is not None:
            self._rows.append([])
        elif tag in ("td", "th") and self._rows is not None:
            self._rows[-1].append(Cell())
        elif tag == "section":
            self._section = given["id"]
            self.sections[self._section] = ""
        elif given.get("class", "").startswith("label "):
            self._fact = [given["class"].removeprefix("label ")]
        elif given.get("id") == "verdict":
            self.verdict_state = given["class"].split()[-1]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        opened, given = self._open.pop()
        assert opened == tag, f"</{tag}> closes <{opened}>"
        if tag == "table":
            self._rows = None
        elif tag == "section":
            self._section = ""
        elif given.get("class") == "note":
            state, label, value, *note = self._fact
            self.facts[label] = (state, value, " ".join(note))
            self._fact = []

    def handle_data(self, data: str) -> None:
        words = data.strip()
        if not words or any(tag == "style" for tag, _ in self._open):
            return
        if self._rows and self._rows[-1] and not any(tag == "caption" for tag, _ in self._open):
            self._rows[-1][-1].words.append(words)
        if self._section:
            self.sections[self._section] += words + " "
        if self._fact:
            self._fact.append(words)
        if self._open and self._open[-1][1].get("id") == "verdict":
            self.verdict += words
