"""Locations for which no answer can be used when they are resolved: found, named, waited for, and gone past."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mmearth_data.collection import Retry, collect_shard, resolve_plan
from mmearth_data.collection.resolving import MOST_UNRESOLVED
from mmearth_data.plan import GiveUpError, Plan, given_up
from mmearth_data.source import Corrupt, Location, Resolved
from mmearth_data.store import shards
from tests.collecting import FormulaSource, location_table
from tests.stores import content

QUICK = Retry(attempts=4, corrupt_attempts=2, timeout=20, wait_initial=0.001, wait_max=0.01, wait_jitter=0.001)


@dataclass
class PartlyUnresolvable(FormulaSource):
    """No answer that has one of these locations in it can be used."""

    broken: frozenset[int] = frozenset()
    asked: Counter[int] = field(default_factory=Counter)

    def resolve(self, locations: Sequence[Location]) -> list[Resolved]:
        ids = [place.location_id for place in locations]
        self.asked.update(ids)
        if not self.broken.isdisjoint(ids):
            raise Corrupt("a row arrived without its time", repr(ids).encode())
        return super().resolve(locations)


@pytest.fixture
def locations(tmp_path: Path) -> list[int]:
    """56 locations in four strata, 40 of them primaries."""
    table = location_table(tmp_path / "locations.parquet", primaries=10, reserves=4)
    return [int(location_id) for location_id in table["location_id"]]


def prepared(store: Path) -> Plan:
    return Plan.prepare(store, store.parent / "locations.parquet", max_shard_rows=8)


def collect(plan: Plan, source: FormulaSource) -> list[str]:
    """Resolve and collect round after round until it is done or shards stay uncommitted; returns why."""
    resolve_plan(plan, source, retry=QUICK)
    while todo := plan.pending() or plan.next_round():
        failures = []
        for shard in todo:
            try:
                collect_shard(plan.store, plan.spec(shard), source, 2, retry=QUICK)
            except Corrupt as error:
                failures.append(str(error))
        if failures:
            return failures
    return []


def kept(store: Path) -> dict[str, str]:
    """What the store holds beside the bytes that were kept for inspection."""
    return {name: digest for name, digest in content(store).items() if not name.startswith("_quarantine")}


def test_a_shard_that_waits_for_a_location_is_not_fetched_in_vain(tmp_path: Path, locations: list[int]) -> None:
    plan, source = prepared(tmp_path / "store"), PartlyUnresolvable(broken=frozenset(locations[:1]))
    resolve_plan(plan, source, retry=QUICK)
    assert plan.next_round()
    specs = [plan.spec(shard) for shard in plan.pending()]
    (waiting,) = [spec for spec in specs if not all(slot.answered for slot in spec.slots)]
    with pytest.raises(Corrupt, match=f"location {locations[0]}: no answer"):
        collect_shard(plan.store, waiting, source, 2, retry=QUICK)
    assert not source.fetched


def test_one_location_is_found_and_named_and_the_others_are_resolved_and_collected(
    tmp_path: Path, locations: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    primary, reserve = locations[7], locations[-3]
    plan, source = prepared(tmp_path / "store"), PartlyUnresolvable(broken=frozenset({primary, reserve}))
    (failure,) = collect(plan, source)
    assert plan.unresolved() == (0,)
    assert [place.location_id for place in plan.unanswered(0)] == [primary, reserve]
    folder = plan.store / "_quarantine"
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
        f"{location_id}-resolving.bin": f"[{location_id}]".encode() for location_id in source.broken
    }
    warned = [record.message for record in caplog.records if "cannot be resolved" in record.message]
    assert sorted(warned) == sorted(
        f"location {i} cannot be resolved: a row arrived without its time; "
        f"its bytes are kept in {folder / f'{i}-resolving.bin'}"
        for i in source.broken
    )
    assert failure.startswith(f"location {primary}: no answer that it was to be resolved from could be used; its bytes")
    assert failure.endswith(f"run again to retry or go past with --give-up {primary}")
    assert f"{primary}-resolving.bin" in failure
    assert len(shards.committed(plan.store)) == 4, "of five shards, all but the location's"
    assert plan.summary().resolved == 54


def test_what_is_resolved_later_ends_as_if_nothing_had_been(tmp_path: Path, locations: list[int]) -> None:
    calm = prepared(tmp_path / "calm")
    assert collect(calm, FormulaSource()) == []
    plan, source = prepared(tmp_path / "store"), PartlyUnresolvable(broken=frozenset({locations[7], locations[-3]}))
    assert collect(plan, source)
    broken, source.broken = source.broken, frozenset()
    source.asked.clear()
    again = Plan.open(plan.store)
    assert collect(again, source) == []
    assert source.asked == dict.fromkeys(broken, 1), "those that have an answer are not asked for again"
    assert again.unresolved() == ()
    assert kept(plan.store) == kept(calm.store)


def test_a_person_goes_past_them_and_it_does_not_matter_when(tmp_path: Path, locations: list[int]) -> None:
    """Before a round is planned or after, with or without a row: the store follows from the decisions."""
    primary, reserve = locations[7], locations[-3]
    stores = []
    for name in ("before", "after"):
        plan, source = prepared(tmp_path / name), PartlyUnresolvable(broken=frozenset({primary, reserve}))
        if name == "before":
            with pytest.raises(GiveUpError, match=f"location {primary} has no row"):
                plan.give_up([primary])
            resolve_plan(plan, source, retry=QUICK)
            plan.give_up([primary, reserve])
        else:
            assert collect(plan, source)
            plan.give_up([reserve])
            plan.give_up([primary])
        plan = Plan.open(plan.store)
        source.asked.clear()
        assert collect(plan, source) == []
        assert plan.unresolved() == ()
        assert not source.asked
        rows = [row for s in shards.committed(plan.store) for row in shards.row_table(plan.store, s).to_pylist()]
        assert [(r["location_id"], r["reason"]) for r in rows if r["reason"]] == [(primary, "given_up")]
        assert (plan.summary().stored, plan.summary().rounds) == (40, 2)
        plan.give_up([primary, reserve])  # the same command, run again
        assert given_up(plan.store) == {primary, reserve}
        stores.append(kept(plan.store))
    assert stores[0] == stores[1]


def test_a_service_that_answers_nothing_usable_ends_the_run(tmp_path: Path, locations: list[int]) -> None:
    plan, source = prepared(tmp_path / "store"), PartlyUnresolvable(broken=frozenset(locations))
    with pytest.raises(Corrupt, match=rf"location \d+ cannot be .* those of {MOST_UNRESOLVED - 1} more: run again"):
        resolve_plan(plan, source, retry=QUICK)
    named = [int(file.name.partition("-")[0]) for file in (plan.store / "_quarantine").iterdir()]
    assert len(named) == MOST_UNRESOLVED
    assert len(plan.unanswered(0)) == len(locations)
    plan.give_up(named)
    resolve_plan(plan, source, retry=QUICK)
    assert {place.location_id for place in plan.unanswered(0)} == set(locations) - set(named)


def test_what_was_answered_before_the_run_was_left_is_not_asked_for_again(tmp_path: Path, locations: list[int]) -> None:
    good = frozenset(locations[:10])
    plan, source = prepared(tmp_path / "store"), PartlyUnresolvable(broken=frozenset(locations) - good)
    with pytest.raises(Corrupt):
        resolve_plan(plan, source, retry=QUICK)
    answered = set(locations) - {place.location_id for place in plan.unanswered(0)}
    assert answered
    assert answered <= good
    source.broken = frozenset()
    source.asked.clear()
    resolve_plan(plan, source, retry=QUICK)
    assert set(source.asked) == set(locations) - answered


def test_a_batch_whose_file_is_lost_is_saved_anew_though_all_of_it_was_given_up(tmp_path: Path) -> None:
    table = location_table(tmp_path / "locations.parquet", primaries=2, reserves=1)
    every = [int(location_id) for location_id in table["location_id"]]
    plan, source = prepared(tmp_path / "store"), PartlyUnresolvable(broken=frozenset(every))
    resolve_plan(plan, source, retry=QUICK)
    plan.give_up(every)
    assert Plan.open(plan.store).unresolved() == ()
    (plan.store / "_plan" / "resolved" / "00000.parquet").unlink()
    again = Plan.open(plan.store)
    assert again.unresolved() == (0,)
    assert collect(again, PartlyUnresolvable()) == []
    assert again.summary().stored == 0
    assert given_up(plan.store) == set(every)
