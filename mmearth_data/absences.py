"""Why there is no data, counted by biome over what is committed so far."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from mmearth_data.store.commits import committed, row_tables
from mmearth_data.store.objects import Place
from mmearth_data.store.rows import STORED_OUTCOME


@dataclass
class BiomeAbsences:
    """One biome: tiles stored, reasons of the locations that gave way, reasons of modalities absent from tiles."""

    stored: int = 0
    gave_way: Counter[str] = field(default_factory=Counter)
    absent: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: BiomeAbsences) -> BiomeAbsences:
        """Those of both."""
        return BiomeAbsences(self.stored + other.stored, self.gave_way + other.gave_way, self.absent + other.absent)


def absences_by_biome(store: str | Place) -> dict[str, BiomeAbsences]:
    """Biome → its absences, in alphabetical order; a tile counts once in ``absent`` for each modality it lacks.

    Raises StoreError where a row table is damaged.
    """
    found: dict[str, BiomeAbsences] = {}
    for table in row_tables(store, sorted(committed(store))):
        for biome in table["biome"].drop_null().unique().to_pylist():
            rows = table.filter(pc.equal(table["biome"], biome))
            stored = pc.equal(rows["outcome"], STORED_OUTCOME)
            tiles, others = rows.filter(stored), rows.filter(pc.invert(stored))
            counts = found.setdefault(biome, BiomeAbsences())
            counts.stored += tiles.num_rows
            counts.gave_way += _words(others["reason"])
            for column in tiles.column_names:
                if column.startswith("absent_"):
                    counts.absent += _words(tiles[column])
    return dict(sorted(found.items()))


def _words(column: pa.ChunkedArray) -> Counter[str]:
    """How often each word occurs, empty ones left out."""
    return Counter(word for word in column.to_pylist() if word)
