"""The page says what is registered, and every difference it names is of an algorithm that there is."""

from __future__ import annotations

from pathlib import Path

from mmearth_data.emulator import algorithm_table
from mmearth_data.emulator.registry import ALGORITHMS

PAGE = Path(__file__).parents[2] / "docs" / "emulator.md"


def test_the_page_has_the_table_of_what_is_registered() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == algorithm_table.rewritten(page), (
        "run: python -m mmearth_data.emulator.algorithm_table docs/emulator.md"
    )
    table = page.partition(algorithm_table.BEGIN)[2].partition(algorithm_table.END)[0]
    cells = [line.split(" | ")[1] for line in table.splitlines() if line.startswith("| ")][1:]
    assert sorted(name for cell in cells for name in cell.split(", ")) == sorted(ALGORITHMS)


def test_every_algorithm_says_what_it_does_and_every_difference_has_one() -> None:
    silent = [name for name, known in ALGORITHMS.items() if not known.handler.__doc__]
    assert silent == []
    assert algorithm_table.DIFFERENCES.keys() <= ALGORITHMS.keys()
