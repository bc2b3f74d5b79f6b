"""Collecting one shard: fetch its tiles, check them, give way where content says so, and write it whole."""

from __future__ import annotations

import io
import logging
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from mmearth_data import checks
from mmearth_data.collection.requests import Requests, Retry, quarantine, quarantined, run_all
from mmearth_data.collection.resolving import unresolved_name
from mmearth_data.modalities import BIOME_NAMES, ECOREGION_NAMES, Modality
from mmearth_data.plan import ShardSpec, Slot, given_up
from mmearth_data.source import Absence, Acquisition, Corrupt, Source, Tile, Unavailable
from mmearth_data.store import shards
from mmearth_data.store.layout import Layout, read_layout
from mmearth_data.store.objects import Place, at
from mmearth_data.store.rows import STORED_OUTCOME, row_table

logger = logging.getLogger(__name__)
MOST_CORRUPT = 8
"""Locations whose answers cannot be used after which a shard is left: then it is the service that is broken."""


@dataclass(frozen=True)
class ShardReport:
    """What collecting a shard came to: rows by outcome, requests sent, and stored tiles that look odd, by suspicion.

    ``stored`` + ``gave_way`` + ``vacant`` = rows, whose reasons are in the row table. ``requests`` counts repetitions
    too. A shard that somebody else committed has no rows here.
    """

    shard: int
    stored: int = 0
    gave_way: int = 0
    vacant: int = 0
    requests: int = 0
    odd: dict[str, int] = field(default_factory=dict)

    @property
    def committed_here(self) -> bool:
        """Whether it is this report's task that committed the shard."""
        return self.stored + self.gave_way + self.vacant > 0


@dataclass(frozen=True)
class _Outcome:
    """What became of a slot: the acquisition stored, or the reason why there is none, after that many products."""

    acquisition: Acquisition | None
    reason: Absence | None
    attempts: int
    clear_fraction: float = math.nan
    absent: dict[str, Absence] = field(default_factory=dict)
    odd: tuple[checks.Suspicion, ...] = ()
    fingerprint: bytes | None = None


@dataclass(frozen=True)
class _Unusable:
    """A location of which every answer was Corrupt: the last failure, and where its bytes were kept."""

    location_id: int
    error: Corrupt
    kept: Place


def collect_shard(
    store: str | Place,
    spec: ShardSpec,
    source: Source,
    workers: int,
    on_tile: Callable[[], None] = lambda: None,
    *,
    retry: Retry | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> ShardReport:
    """Fetch, check and commit one shard; ``on_tile`` is called after each of its locations.

    A shard that is already committed is left as it is; locations that were given up are not asked for. Raises
    ShardLocked while another process works on it, Corrupt with the names of all locations whose answers cannot be used
    (the bytes are kept in the store's ``_quarantine``; after MOST_CORRUPT no other is tried), Transient or Quota where
    repeating did not help, and Rejected at once; then nothing of the shard is committed. Once ``stopping()`` is true
    no request is sent or repeated, which ends in Interrupted or in the last failure.
    """
    path = at(store)
    with shards.lock(path, spec.shard):
        if shards.is_committed(path, spec.shard):
            return ShardReport(spec.shard)
        requests = Requests(retry or Retry(), stopping, order=spec.shard)
        first_row = spec.slots[0].row
        filled = [slot for slot in spec.slots if slot.location is not None]
        layout = read_layout(path)
        arrays = shards.no_data(layout.tile_pixels, len(spec.slots), layout.modalities)
        status = np.zeros((len(spec.slots), len(layout.modalities)), dtype=np.uint8)
        outcomes: dict[int, _Outcome] = {}
        passed_over = given_up(path)
        if unresolved := _unresolved(filled, passed_over, path):
            raise _all_unusable(unresolved)  # before anything is fetched that could not be committed
        unusable: list[_Unusable] = []

        def collect(slot: Slot) -> None:
            tile, attempts = _first_usable(slot, source, requests, layout, passed_over)
            if isinstance(tile, _Unusable):
                unusable.append(tile)
                if len(unusable) >= MOST_CORRUPT:
                    raise _all_unusable(unusable)
                return
            if isinstance(tile, Absence):
                outcomes[slot.row] = _Outcome(None, tile, attempts)
            else:
                values = tile.pixels | _image_values(slot, tile.acquisition)
                for name, value in values.items():
                    arrays[name][slot.row - first_row] = value
                status[slot.row - first_row] = checks.statuses(values, tile.acquisition, layout.modalities)
                outcomes[slot.row] = _Outcome(
                    tile.acquisition,
                    None,
                    attempts,
                    checks.clear_fraction(tile),
                    _absent(tile),
                    checks.suspicions(tile),
                    checks.fingerprint(tile),
                )
            on_tile()

        run_all(collect, filled, workers, requests.stopping)
        unusable += _answered_twice(outcomes, path, lambda row: {n: a[row - first_row] for n, a in arrays.items()})
        if unusable:
            raise _all_unusable(unusable)
        table = row_table((_record(slot, outcomes.get(slot.row)) for slot in spec.slots), layout.modalities)
        shards.commit_shard(path, spec.shard, shards.ShardData(arrays=arrays, status=status, table=table))
    odd = _tally(suspicion for outcome in outcomes.values() for suspicion in outcome.odd)
    if odd:
        said = ", ".join(f"{suspicion} {count}" for suspicion, count in odd.items())
        logger.warning("shard %d: tiles that look odd and may be honest: %s of %d", spec.shard, said, len(outcomes))
    return ShardReport(
        shard=spec.shard,
        stored=sum(outcome.acquisition is not None for outcome in outcomes.values()),
        gave_way=sum(outcome.acquisition is None for outcome in outcomes.values()),
        vacant=len(spec.slots) - len(filled),
        requests=requests.sent,
        odd=odd,
    )


def _first_usable(
    slot: Slot, source: Source, requests: Requests, layout: Layout, passed_over: Set[int]
) -> tuple[Tile | Absence | _Unusable, int]:
    """The first tile of the location that is clear and without gaps, else why there is none; and products tried."""
    if slot.location is not None and slot.location["location_id"] in passed_over:
        return Absence.GIVEN_UP, 0
    refusal = Absence.NO_PRODUCT
    for number, acquisition in enumerate(slot.acquisitions):
        try:
            tile = requests.call(partial(_fetch_checked, source, acquisition, layout.modalities))
        except Unavailable as fact:
            logger.warning("location %d: %s; its next product is tried", acquisition.location_id, fact)
            continue
        except Corrupt as error:
            kept = quarantine(error, layout.path, f"{acquisition.location_id}-{number}")
            return _Unusable(acquisition.location_id, error, kept), number + 1
        refused = checks.refusal(tile)
        if refused is None:
            return tile, number + 1
        refusal = Absence.GAPS if Absence.GAPS in (refusal, refused) else refused
    return refusal, len(slot.acquisitions)


def _unresolved(slots: Sequence[Slot], passed_over: Set[int], store: Place) -> list[_Unusable]:
    """The locations that were not resolved because no answer could be used, and were not given up."""
    error = Corrupt("no answer that it was to be resolved from could be used")
    waiting = [int(slot.location["location_id"]) for slot in slots if slot.location is not None and not slot.answered]
    left = [location_id for location_id in waiting if location_id not in passed_over]
    return [_Unusable(i, error, quarantined(store, unresolved_name(i))) for i in left]


def _answered_twice(
    outcomes: Mapping[int, _Outcome], store: Place, arrays: Callable[[int], dict[str, NDArray[np.generic]]]
) -> list[_Unusable]:
    """The locations whose tile is, pixel for pixel, that of another one of the shard: one of the answers is wrong."""
    same: defaultdict[bytes, list[int]] = defaultdict(list)
    for row in sorted(outcomes):
        if (fingerprint := outcomes[row].fingerprint) is not None:
            same[fingerprint].append(row)
    found = []
    for rows in same.values():
        ids = {row: acquisition.location_id for row in rows if (acquisition := outcomes[row].acquisition)}
        for row in rows if len(rows) > 1 else ():
            others = " and ".join(str(ids[other]) for other in rows if other != row)
            error = Corrupt(f"its sentinel2 is that of location {others}, pixel for pixel", _as_npz(arrays(row)))
            found.append(_Unusable(ids[row], error, quarantine(error, store, f"{ids[row]}-twice")))
    return found


def _all_unusable(locations: Sequence[_Unusable]) -> Corrupt:
    """One line that names every location, what arrived for the first of them, and the way past them."""
    first, *others = sorted(locations, key=lambda location: location.location_id)
    ids = " ".join(str(location.location_id) for location in (first, *others))
    said = f"location {first.location_id}: {first.error}; its bytes are kept in {first.kept}"
    if others:
        said += f", those of {len(others)} more locations beside them"
    if all(location.error.same_each_time for location in locations):
        said += f", the same at every try: inspect them, then go past with --give-up {ids}"
    else:
        said += f", run again to retry or go past with --give-up {ids}"
    return Corrupt(said, first.error.payload)


def _fetch_checked(source: Source, acquisition: Acquisition, asked: Sequence[Modality]) -> Tile:
    """The tile, its content checked; impossible content is Corrupt and kept as an .npz of its arrays."""
    tile = source.fetch(acquisition)
    try:
        checks.check_content(tile, asked)
    except Corrupt as error:
        raise Corrupt(str(error), _as_npz(tile.pixels)) from error
    return tile


def _as_npz(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    kept = io.BytesIO()
    np.savez(kept, **cast("dict[str, Any]", arrays))
    return kept.getvalue()


def _image_values(slot: Slot, acquisition: Acquisition) -> dict[str, NDArray[np.generic]]:
    """The values of the modalities that describe a whole tile, each of shape (bands,)."""
    location = cast("dict[str, Any]", slot.location)
    return {
        "era5": np.array(acquisition.era5, dtype=np.float32),
        "biome": np.array([BIOME_NAMES.index(location["biome"])], dtype=np.uint8),
        "eco_region": np.array([ECOREGION_NAMES.index(location["ecoregion"])], dtype=np.uint16),
    }


def _absent(tile: Tile) -> dict[str, Absence]:
    """The reason of every stored modality that the tile has nothing of."""
    masked = {"era5": Absence.MASKED} if np.isnan(tile.acquisition.era5).all() else {}
    return tile.absent | masked


def _record(slot: Slot, outcome: _Outcome | None) -> dict[str, Any]:
    """The slot's line of the row table; columns that do not apply to it are left out."""
    record: dict[str, Any] = {"row": slot.row, **(slot.location or {})}
    if outcome is None:
        return record
    record |= {"attempts": outcome.attempts, "reason": str(outcome.reason or "")}
    acquisition = outcome.acquisition
    if acquisition is None:
        return record
    passes = {"asc": acquisition.ascending, "desc": acquisition.descending}
    return {
        **record,
        "outcome": STORED_OUTCOME,
        "level": acquisition.level,
        "sentinel2_id": acquisition.sentinel2_id,
        "time": acquisition.time,
        "scene_cloud": acquisition.scene_cloud,
        "baseline": acquisition.baseline,
        **{f"sentinel1_{name}_id": radar.image_id for name, radar in passes.items() if radar},
        **{f"sentinel1_{name}_time": radar.time for name, radar in passes.items() if radar},
        "clear_fraction": outcome.clear_fraction,
        **{f"absent_{name}": str(reason) for name, reason in outcome.absent.items()},
    }


def _tally(suspicions: Iterable[checks.Suspicion]) -> dict[str, int]:
    return dict(sorted(Counter(map(str, suspicions)).items()))
