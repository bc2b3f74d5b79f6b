"""Going past locations whose answers cannot be used: decided by a person, recorded, and the same whoever works when."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from flows.cli import _exit_code
from mmearth_data.collection import Retry, collect_shard, resolve_plan
from mmearth_data.plan import GiveUpError, Plan, given_up
from mmearth_data.source import Acquisition, Corrupt, Tile
from mmearth_data.status import status
from mmearth_data.store import shards
from mmearth_data.store.locking import ShardLocked
from tests.collecting import FormulaSource, location_table
from tests.stores import content

QUICK = Retry(attempts=4, corrupt_attempts=2, timeout=20, wait_initial=0.001, wait_max=0.01, wait_jitter=0.001)


class PartlyBroken(FormulaSource):
    """Every answer for some locations is impossible."""

    broken: frozenset[int] = frozenset()

    def fetch(self, wanted: Acquisition) -> Tile:
        result = super().fetch(wanted)
        if wanted.location_id in self.broken:
            result.pixels["esa_worldcover"][0, 0, 0] = 11
        return result


def prepared(store: Path, broken: int = 0) -> tuple[Plan, PartlyBroken]:
    """A plan in its first round and a source that answers nothing usable for the first few locations of shard 0."""
    plan, source = Plan.prepare(store, store.parent / "locations.parquet", max_shard_rows=24), PartlyBroken()
    resolve_plan(plan, source, retry=QUICK)
    plan.next_round()
    located = [int(slot.location["location_id"]) for slot in plan.spec(0).slots if slot.location]
    source.broken = frozenset(located[:broken])
    return plan, source


def collect(plan: Plan, source: FormulaSource, workers: int, *, backwards: bool = False) -> list[Corrupt]:
    """Collect round after round until it is done or a round leaves shards uncommitted; returns why."""
    while todo := plan.pending() or plan.next_round():
        failures = []
        for shard in sorted(todo, reverse=backwards):
            try:
                collect_shard(plan.store, plan.spec(shard), source, workers, retry=QUICK)
            except Corrupt as error:
                failures.append(error)
        if failures:
            return failures
    return []


@pytest.fixture(autouse=True)
def _locations(tmp_path: Path) -> None:
    location_table(tmp_path / "locations.parquet", primaries=10, reserves=4)


def test_a_run_names_every_unusable_location_and_goes_on_with_the_other_shards(tmp_path: Path) -> None:
    plan, source = prepared(tmp_path / "store", broken=3)
    (failure,) = collect(plan, source, workers=3)
    assert shards.committed(plan.store) == {1}
    ids = sorted(source.broken)
    assert f"--give-up {' '.join(map(str, ids))}" in str(failure)
    assert "\n" not in str(failure)
    kept = sorted(int(file.name.partition("-")[0]) for file in (plan.store / "_quarantine").iterdir())
    assert kept == ids
    assert plan.next_round() == (0,), "the round waits for what is uncommitted"


def test_given_up_locations_are_vacant_with_their_reason_and_the_next_of_their_stratum_step_in(tmp_path: Path) -> None:
    plan, source = prepared(tmp_path / "store", broken=3)
    collect(plan, source, workers=3)
    plan.give_up(source.broken)
    asked = source.fetched.copy()
    assert collect(plan, source, workers=3) == []
    assert all(source.fetched[key] == asked[key] for key in asked if key[0] in source.broken), "asked for again"
    rows = [row for shard in (0, 1, 2) for row in shards.row_table(plan.store, shard).to_pylist()]
    gone = {row["location_id"]: (row["outcome"], row["reason"], row["attempts"]) for row in rows if row["reason"]}
    assert gone == dict.fromkeys(source.broken, ("vacant", "given_up", 0))
    summary = plan.summary()
    assert (summary.rounds, summary.stored, summary.dry) == (2, 40, ())
    state = status(plan.store)
    assert (state.refusals, state.stored) == ({"given_up": 3}, 40)


def test_the_store_follows_from_the_decisions_whoever_works_and_in_whatever_order(tmp_path: Path) -> None:
    stores = []
    for name, workers, backwards, piecewise in (("one", 1, False, False), ("two", 6, True, True)):
        plan, source = prepared(tmp_path / name, broken=3)
        collect(plan, source, workers, backwards=backwards)
        for part in [[i] for i in sorted(source.broken, reverse=True)] if piecewise else [source.broken]:
            plan.give_up(part)
            collect(Plan.open(plan.store), source, workers, backwards=backwards)
        stores.append(content(plan.store))
    first, second = ({k: v for k, v in files.items() if "_quarantine" not in k} for files in stores)
    assert first == second


def test_a_decision_is_kept_and_may_be_said_again(tmp_path: Path) -> None:
    plan, source = prepared(tmp_path / "store", broken=2)
    one, two = sorted(source.broken)
    plan.give_up([two])
    plan.give_up([one, two])
    assert given_up(plan.store) == {one, two}
    assert collect(plan, source, workers=2) == []
    plan.give_up([one, two])  # the same command, run again
    assert given_up(tmp_path / "elsewhere") == frozenset()


def test_only_rows_that_are_not_committed_can_be_given_up(tmp_path: Path) -> None:
    plan, source = prepared(tmp_path / "store", broken=1)
    collect(plan, source, workers=2)
    committed = next(int(slot.location["location_id"]) for slot in plan.spec(1).slots if slot.location)
    (broken,) = source.broken
    with pytest.raises(GiveUpError, match="is in shard 1, which is committed and never rewritten; leave it out"):
        plan.give_up([broken, committed])
    given = {int(s.location["location_id"]) for shard in (0, 1) for s in plan.spec(shard).slots if s.location}
    reserve = next(int(i) for i in plan.table["location_id"] if int(i) not in given)
    for location_id in (reserve, 17):
        with pytest.raises(GiveUpError, match=f"location {location_id} has no row of .* those that a collection named"):
            plan.give_up([broken, location_id])
    assert given_up(plan.store) == frozenset(), "all or none"


def test_nobody_gives_up_a_location_of_a_shard_that_is_being_written(tmp_path: Path) -> None:
    plan, source = prepared(tmp_path / "store", broken=1)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with shards.lock(plan.store, 0):
            held.set()
            done.wait(30)

    writer = threading.Thread(target=hold)
    writer.start()
    held.wait(30)
    with pytest.raises(ShardLocked) as refused:
        plan.give_up(source.broken)
    assert _exit_code(refused.value) == 1, "the same command succeeds later"
    done.set()
    writer.join()
    assert given_up(plan.store) == frozenset()


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    plan, source = prepared(tmp_path / "store")
    (plan.store / "_plan" / "given-up.json").write_text("[1, ")
    with pytest.raises(GiveUpError, match=r"given-up\.json is damaged; restore it"):
        collect_shard(plan.store, plan.spec(0), source, 1, retry=QUICK)
