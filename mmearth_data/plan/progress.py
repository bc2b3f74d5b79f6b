"""How far a plan is, as people ask for it: per stratum and over all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmearth_data.plan.slots import BoolArray, IndexArray, Strata


@dataclass(frozen=True)
class StratumSummary:
    """One stratum: tiles owed and stored, locations that gave way, and whether none is left to try."""

    biome: str
    year: int
    quota: int
    stored: int
    gave_way: int
    dry: bool


@dataclass(frozen=True)
class Summary:
    """How far a plan is: locations resolved of all, shards committed of those given out, and every stratum."""

    locations: int
    resolved: int
    rounds: int
    shards: int
    committed: int
    strata: tuple[StratumSummary, ...]

    @property
    def quota(self) -> int:
        """Tiles owed."""
        return sum(stratum.quota for stratum in self.strata)

    @property
    def stored(self) -> int:
        """Rows with a tile."""
        return sum(stratum.stored for stratum in self.strata)

    @property
    def dry(self) -> tuple[StratumSummary, ...]:
        """Strata that are short of their quota with no location left to try."""
        return tuple(stratum for stratum in self.strata if stratum.dry)


def stratum_summaries(
    names: Sequence[tuple[str, int]],
    strata: Strata,
    stored: IndexArray,
    gave_way: IndexArray,
    *,
    untried: BoolArray,
    settled: bool,
) -> tuple[StratumSummary, ...]:
    """One summary per (biome, year) of ``names``.

    ``stored`` and ``gave_way`` count rows per stratum; ``untried`` marks, per location, those that are available and
    were given no row; ``settled`` says that nothing is under way, so that a short stratum without any is dry.
    """
    return tuple(
        StratumSummary(
            biome=biome,
            year=year,
            quota=int(strata.quota[s]),
            stored=int(stored[s]),
            gave_way=int(gave_way[s]),
            dry=settled and bool(stored[s] < strata.quota[s]) and not bool(untried[strata.stratum == s].any()),
        )
        for s, (biome, year) in enumerate(names)
    )
