"""The plan on disk: adopted once, resumed anywhere, refusing what does not belong to it."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mmearth_data.location import LocationTableError
from mmearth_data.plan import Plan, PlanError, acquisitions
from mmearth_data.plan.resolution import BATCH_LOCATIONS
from mmearth_data.source import Resolved
from mmearth_data.store import layout
from mmearth_data.store.files import StoreError
from tests.collecting import FormulaSource, location_table


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    location_table(tmp_path / "locations.parquet", primaries=20, reserves=5)
    return Plan.prepare(tmp_path / "store", tmp_path / "locations.parquet", max_shard_rows=24)


def resolve_all(plan: Plan, source: FormulaSource) -> None:
    for number in plan.unresolved():
        plan.save_resolved(number, source.resolve(plan.batch(number)))


def test_the_table_is_adopted_byte_for_byte_and_its_batches_cover_it_once(plan: Plan, tmp_path: Path) -> None:
    original = (tmp_path / "locations.parquet").read_bytes()
    assert (plan.store / "_plan" / "locations.parquet").read_bytes() == original
    places = [place for number in range(plan.batches) for place in plan.batch(number)]
    assert [place.location_id for place in places] == plan.table["location_id"].tolist()
    assert [place.year for place in places] == plan.table["year"].tolist()
    assert len(plan.batch(0)) == BATCH_LOCATIONS
    assert layout.read_layout(plan.store).shard_rows == 24


def test_preparing_again_continues_and_another_table_is_refused(plan: Plan, tmp_path: Path) -> None:
    resolve_all(plan, FormulaSource())
    again = Plan.prepare(plan.store, tmp_path / "locations.parquet")
    assert again.rows_per_shard == plan.rows_per_shard
    assert again.unresolved() == ()
    location_table(tmp_path / "other.parquet", primaries=20, reserves=5, around=((20.0, 50.0),))
    with pytest.raises(PlanError, match=r"does not extend .*; continue with .*_plan/locations\.parquet"):
        Plan.prepare(plan.store, tmp_path / "other.parquet")


def test_adopting_that_was_killed_half_way_starts_over(plan: Plan, tmp_path: Path) -> None:
    (plan.store / "_plan" / "plan.json").unlink()
    again = Plan.prepare(plan.store, tmp_path / "locations.parquet", max_shard_rows=24)
    assert again.rows_per_shard == 24


def test_what_was_resolved_reads_back_equal(plan: Plan) -> None:
    source = FormulaSource(products={int(plan.table["location_id"][0]): 0})
    resolve_all(plan, source)
    assert plan.next_round() is not None
    expected = {
        entry.location_id: entry.acquisitions for n in range(plan.batches) for entry in source.resolve(plan.batch(n))
    }
    slots = [slot for shard in plan.pending() for slot in plan.spec(shard).slots]
    filled = [slot for slot in slots if slot.location]
    assert len(filled) == 80
    for slot in filled:
        place = plan.table[plan.table["location_id"] == slot.location["location_id"]].iloc[0]
        assert all(slot.location[name] == place[name] for name in ("lon", "x0", "biome", "year", "rank", "split"))
        assert repr(slot.acquisitions) == repr(expected[slot.location["location_id"]])
        assert slot.acquisitions
    assert all(slot.acquisitions == () for slot in slots if slot.location is None)
    assert [slot.row for slot in slots] == list(range(len(slots)))


def test_batches_that_are_damaged_or_missing_are_resolved_again(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmearth_data.plan.resolution.BATCH_LOCATIONS", 60)
    source = FormulaSource()
    resolve_all(plan, source)
    folder = plan.store / "_plan" / "resolved"
    whole = (folder / "00001.parquet").read_bytes()
    (folder / "00001.parquet").write_bytes(whole[: len(whole) // 2])
    (folder / "00000.parquet").unlink()
    assert plan.unresolved() == (0, 1)
    with pytest.raises(PlanError, match="2 batches of locations are unresolved"):
        plan.next_round()
    resolve_all(plan, source)
    assert (folder / "00001.parquet").read_bytes() == whole


def test_a_batch_of_other_locations_is_resolved_anew_however_many_they_are(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of 100 locations, batches of 40 and of 60 both have 40 in the second one."""
    source = FormulaSource()
    monkeypatch.setattr("mmearth_data.plan.resolution.BATCH_LOCATIONS", 40)
    resolve_all(Plan.open(plan.store), source)
    monkeypatch.setattr("mmearth_data.plan.resolution.BATCH_LOCATIONS", 60)
    longer = Plan.open(plan.store)
    assert [len(longer.batch(number)) for number in range(longer.batches)] == [60, 40]
    saved = pq.read_table(plan.store / "_plan" / "resolved" / "00001.parquet")
    assert saved.num_rows == 40
    assert longer.unresolved() == (0, 1)
    assert longer.unresolved() == (0, 1)
    (line,) = [record.message for record in caplog.records if "other locations" in record.message]
    assert line.startswith("2 of the batches in ")
    with pytest.raises(PlanError, match="2 batches of locations are unresolved"):
        longer.next_round()
    resolve_all(longer, source)
    assert longer.unresolved() == ()
    longer.next_round()
    expected = {
        place.location_id: source.resolve([place])[0].acquisitions for n in range(2) for place in longer.batch(n)
    }
    slots = [slot for shard in longer.pending() for slot in longer.spec(shard).slots if slot.location]
    assert len(slots) == 80
    assert all(repr(slot.acquisitions) == repr(expected[slot.location["location_id"]]) for slot in slots)


@pytest.mark.parametrize("folder", ["resolved", "shards"])
def test_a_file_that_the_system_does_not_give_is_not_taken_for_missing(plan: Plan, folder: str) -> None:
    """Else everything would be asked for again, and other answers put in its place, for want of open files, say."""
    resolve_all(plan, FormulaSource())
    plan.next_round()
    plan.spec(0)
    run = Plan.open(plan.store)
    file = plan.store / "_plan" / folder / ("00000.parquet" if folder == "resolved" else "000000.parquet")
    file.unlink()
    file.symlink_to(file)
    with pytest.raises(StoreError, match=rf"cannot read {file}: .*Too many levels of symbolic links; check the disk"):
        run.unresolved() if folder == "resolved" else run.spec(0)
    assert file.is_symlink()


def test_what_a_file_of_other_locations_says_of_shared_ones_is_not_kept(plan: Plan) -> None:
    """Another plan may have asked for the same cell in another year."""
    source, batch = FormulaSource(), plan.batch(0)
    stranger = dataclasses.replace(batch[0], year=batch[0].year - 1)
    file = plan.store / "_plan" / "resolved" / "00000.parquet"
    acquisitions.write([stranger.location_id], source.resolve([stranger]), file)
    assert plan.unanswered(0) == batch
    plan.save_resolved(0, source.resolve(batch))
    found = acquisitions.by_location(pq.read_table(file))
    assert {location_id: {a.year for a in tried or ()} for location_id, tried in found.items()} == {
        place.location_id: {place.year} for place in batch
    }


def test_a_batch_that_is_damaged_beyond_what_a_start_looks_at_is_named_with_what_mends_it(plan: Plan) -> None:
    source = FormulaSource()
    resolve_all(plan, source)
    plan.next_round()
    file = plan.store / "_plan" / "resolved" / "00000.parquet"
    whole, content = file.read_bytes(), bytearray(file.read_bytes())
    column = next(
        column
        for number in range(pq.read_metadata(file).num_columns)
        if (column := pq.read_metadata(file).row_group(0).column(number)).path_in_schema.endswith("sentinel2_id")
    )
    start = column.dictionary_page_offset or column.data_page_offset
    content[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    file.write_bytes(content)
    run = Plan.open(plan.store)
    assert run.unresolved() == (), "who has what is whole"
    with pytest.raises(PlanError, match=rf"{file} is gone or damaged; remove it, then run again"):
        run.spec(0)
    file.unlink()
    resolve_all(Plan.open(plan.store), source)
    assert file.read_bytes() == whole
    Plan.open(plan.store).spec(0)


def test_only_the_batchs_own_locations_are_saved(plan: Plan) -> None:
    resolved = FormulaSource().resolve(plan.batch(0))
    with pytest.raises(PlanError, match="not batch 0"):
        plan.save_resolved(0, resolved[::-1])
    with pytest.raises(PlanError, match="not batch 0"):
        plan.save_resolved(0, [*resolved, Resolved(1, ())])


def test_rounds_wait_for_their_shards_and_survive_a_kill_while_planning(plan: Plan) -> None:
    resolve_all(plan, FormulaSource())
    given = plan.next_round()
    assert given == plan.pending() == (0, 1, 2, 3)
    assert layout.read_layout(plan.store).rows == 4 * 24
    other = Plan.open(plan.store)
    assert other.next_round() == given, "a run that finds the round planned takes part in it"
    assert other.rounds() == 1
    specs = [plan.spec(shard) for shard in given]
    (plan.store / "_plan" / "round-00.parquet").unlink()  # killed after the arrays grew, before the round was saved
    assert plan.next_round() == given
    assert repr([plan.spec(shard) for shard in given]) == repr(specs)
    with pytest.raises(PlanError, match="shard 9 was not given out"):
        plan.spec(9)


def test_room_that_a_killed_run_made_for_more_rows_is_kept(plan: Plan) -> None:
    """What had no answer counts as available; where it turns out to have nothing, fewer shards are asked for."""
    late = {int(i) for i in plan.table.loc[plan.table["rank"] >= 18, "location_id"]}
    source = FormulaSource(products=dict.fromkeys(late, 0))
    plan.save_resolved(0, [entry for entry in source.resolve(plan.batch(0)) if entry.location_id not in late])
    assert plan.next_round() == (0, 1, 2, 3)
    (plan.store / "_plan" / "round-00.parquet").unlink()  # killed after the arrays grew, before the round was saved
    again = Plan.open(plan.store)
    again.save_resolved(0, source.resolve(again.unanswered(0)))
    assert again.next_round() == again.pending() == (0, 1, 2)
    assert layout.read_layout(plan.store).rows == 4 * 24, "a store never shrinks"


def test_the_locations_of_shards_are_counted_without_reading_batches(plan: Plan) -> None:
    resolve_all(plan, FormulaSource())
    given = plan.next_round()
    assert given is not None
    filled = {shard: sum(slot.location is not None for slot in plan.spec(shard).slots) for shard in given}
    shutil.rmtree(plan.store / "_plan" / "resolved")
    assert {shard: plan.tiles([shard]) for shard in given} == filled
    assert plan.tiles(iter(given)) == 80
    assert plan.tiles([]) == 0


def test_a_shards_locations_are_gathered_once_and_again_where_the_copy_is_damaged(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmearth_data.plan.gathering.SHARDS_AT_ONCE", 3)
    resolve_all(plan, FormulaSource())
    given = plan.next_round()
    assert given == (0, 1, 2, 3)
    slots = {shard: repr(plan.spec(shard).slots) for shard in (0, 3)}  # a pass each: 0 to 2, and 3
    folder = plan.store / "_plan" / "shards"
    assert sorted(file.name for file in folder.glob("*.parquet")) == [f"00000{shard}.parquet" for shard in given]
    copies = {file.name: file.read_bytes() for file in folder.glob("*.parquet")}
    (folder / "000003.parquet").write_bytes(copies["000003.parquet"][:-9])
    (folder / "000000.parquet").write_bytes(copies["000001.parquet"])
    assert {shard: repr(Plan.open(plan.store).spec(shard).slots) for shard in slots} == slots
    assert {file.name: file.read_bytes() for file in folder.glob("*.parquet")} == copies
    shutil.rmtree(plan.store / "_plan" / "resolved")
    assert {shard: repr(Plan.open(plan.store).spec(shard).slots) for shard in slots} == slots
    (folder / "000002.parquet").unlink()
    with pytest.raises(PlanError, match=r"resolved/0000\d\.parquet is gone or damaged; remove it, then run again"):
        Plan.open(plan.store).spec(2)


def test_the_slots_do_not_depend_on_when_batches_were_resolved(plan: Plan, tmp_path: Path) -> None:
    other = Plan.prepare(tmp_path / "other", tmp_path / "locations.parquet", max_shard_rows=24)
    source = FormulaSource(products={int(i): 0 for i in plan.table["location_id"][::7]})
    for one, order in ((plan, 1), (other, -1)):
        for number in one.unresolved()[::order]:
            one.save_resolved(number, source.resolve(one.batch(number)))
        one.next_round()
    assert (plan.store / "_plan" / "round-00.parquet").read_bytes() == (
        other.store / "_plan" / "round-00.parquet"
    ).read_bytes()


def test_locations_without_products_are_passed_over_by_rank(plan: Plan) -> None:
    table = plan.table
    first = table[(table["biome"] == table["biome"][0]) & (table["year"] == 2018)].sort_values("rank")
    gone = first["location_id"].to_numpy()[:7]
    resolve_all(plan, FormulaSource(products={int(i): 0 for i in gone}))
    plan.next_round()
    slots = [slot for shard in plan.pending() for slot in plan.spec(shard).slots if slot.location]
    ranks = sorted(s.location["rank"] for s in slots if s.location["location_id"] in set(first["location_id"]))
    assert ranks == list(range(7, 25))
    assert len(slots) == 80 - 2


def test_a_summary_before_anything_is_stored(plan: Plan) -> None:
    before = plan.summary()
    assert (before.locations, before.resolved, before.rounds, before.shards, before.stored) == (100, 0, 0, 0, 0)
    assert before.quota == 80
    assert before.dry == ()
    resolve_all(plan, FormulaSource(default_products=0))
    assert plan.next_round() is None
    after = plan.summary()
    assert after.resolved == 100
    assert [dataclasses.astuple(s)[1:] for s in after.dry] == [(y, 20, 0, 0, True) for y in (2018, 2019) * 2]


def test_bad_places_get_one_line_and_a_remedy(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(LocationTableError, match="does not exist; make it with"):
        Plan.prepare(tmp_path / "new", tmp_path / "nowhere.parquet")
    with pytest.raises(PlanError, match="has no plan; make one with"):
        Plan.open(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        Plan.prepare(tmp_path / "file" / "store", tmp_path / "locations.parquet")
    full = tmp_path / "full"
    shutil.copytree(plan.store, full)
    shutil.rmtree(full / "_plan")
    location_table(tmp_path / "other.parquet", primaries=21, reserves=5)
    with pytest.raises(StoreError, match="already holds a store"):
        Plan.prepare(full, tmp_path / "other.parquet")
    settings = plan.store / "_plan" / "plan.json"
    settings.write_text(settings.read_text().replace('"format": 1', '"format": 9'))
    with pytest.raises(PlanError, match="format 9"):
        Plan.open(plan.store)


def test_era5_gaps_survive_saving(plan: Plan) -> None:
    resolve_all(plan, FormulaSource())
    plan.next_round()
    values = [a.era5 for shard in plan.pending() for slot in plan.spec(shard).slots for a in slot.acquisitions]
    masked = [np.isnan(v).all() for v in values]
    assert any(masked)
    assert not all(masked)
