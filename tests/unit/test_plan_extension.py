"""A longer location table extends a plan: nothing moves, shards are appended, and it does not matter when."""

from __future__ import annotations

import pickle
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pytest

from flows.settings import CollectSettings
from flows.shards import Run
from mmearth_data.collection import collect_shard, resolve_plan
from mmearth_data.plan import Plan, PlanError
from mmearth_data.plan.parts import Parts
from mmearth_data.status import status
from mmearth_data.store import StoreError, consolidate, layout, shards
from tests.collecting import FormulaSource, location_table
from tests.stores import content

SHORT, LONG = (4, 3), (12, 6)
"""Primaries and reserves of each of the four strata."""


@pytest.fixture
def short(tmp_path: Path) -> Path:
    location_table(tmp_path / "short.parquet", *SHORT)
    return tmp_path / "short.parquet"


@pytest.fixture
def long(tmp_path: Path) -> Path:
    location_table(tmp_path / "long.parquet", *LONG)
    return tmp_path / "long.parquet"


@pytest.fixture
def source(long: Path) -> FormulaSource:
    """One location in nine has no product, one in nine is cloudy: reserves step in, in further rounds."""
    ids = gpd.read_parquet(long)["location_id"].tolist()
    cloudy = frozenset((i, k) for i in ids[::9] for k in range(2))
    return FormulaSource(products=dict.fromkeys(ids[3::9], 0), cloudy=cloudy)


def prepare(store: Path, table: Path) -> Plan:
    return Plan.prepare(store, table, max_shard_rows=16)


def work(plan: Plan, source: FormulaSource, enough: Callable[[], bool] = lambda: False) -> None:
    """Resolve and collect until everything is done that the plan asks for, or ``enough()``."""
    resolve_plan(plan, source)
    while todo := plan.pending() or plan.next_round():
        for shard in todo:
            if enough():
                return
            collect_shard(plan.store, plan.spec(shard), source, workers=2)


def test_what_a_store_has_stays_and_shards_are_appended(
    tmp_path: Path, short: Path, long: Path, source: FormulaSource
) -> None:
    store = tmp_path / "store"
    plan = prepare(store, short)
    work(plan, source)
    consolidate(store)
    before, rows = content(store), layout.read_layout(store).rows
    assert {stratum.stored for stratum in plan.summary().strata} == {4}
    asked = Counter(source.fetched)

    work(prepare(store, long), source)
    after = content(store)
    grown = {"zarr.json", "locations.parquet", "_plan/plan.json"}
    kept = {name for name in before if name not in grown and not name.endswith("/zarr.json")}
    assert all(after[name] == before[name] for name in kept)
    assert (store / "_plan" / "locations-01.parquet").read_bytes() == long.read_bytes()
    assert layout.read_layout(store).rows > rows
    assert all(source.fetched[key] == times for key, times in asked.items()), "nothing is fetched twice"
    assert {(s.quota, s.stored, s.dry) for s in Plan.open(store).summary().strata} == {(12, 12, False)}
    found = status(store)
    assert (found.quota, found.stored) == (48, 48)
    assert {stratum.complete for stratum in found.strata} == {12}
    consolidate(store)
    assert shards.verify(store) == []


def test_the_store_does_not_depend_on_when_it_was_extended(
    tmp_path: Path, short: Path, long: Path, source: FormulaSource
) -> None:
    def extended_after(committed: int) -> dict[str, str]:
        store = tmp_path / f"after-{committed}"
        plan = prepare(store, short)
        work(plan, source, enough=lambda: len(shards.committed(store)) >= committed)
        work(prepare(store, long), source)
        consolidate(store)
        return content(store)

    late = extended_after(99)
    assert extended_after(0) == late
    assert extended_after(1) == late


def test_rows_say_of_a_location_what_the_table_said_that_it_was_chosen_by(
    tmp_path: Path, short: Path, long: Path, source: FormulaSource
) -> None:
    store = tmp_path / "store"
    prepare(store, short)
    work(prepare(store, long), source)
    plan = Plan.open(store)
    reserves = {name: set(frame.loc[frame["reserve"], "location_id"]) for name, frame in tables(short, long).items()}
    for shard in sorted(shards.committed(store)):
        number = plan.spec(shard).round
        longer = number >= min(n for n in range(plan.rounds()) if plan._rounds.parts()[n] == 1)
        for row in shards.row_table(store, shard).to_pylist():
            if row["location_id"]:
                assert row["reserve"] == (row["location_id"] in reserves["long" if longer else "short"])


def tables(short: Path, long: Path) -> dict[str, gpd.GeoDataFrame]:
    return {"short": gpd.read_parquet(short), "long": gpd.read_parquet(long)}


def test_the_row_table_of_a_committed_shard_is_read_once(tmp_path: Path, short: Path, source: FormulaSource) -> None:
    plan = prepare(tmp_path / "store", short)
    work(plan, source)
    before = plan.summary()
    for table in (plan.store / "_commits").glob("*.parquet"):
        table.unlink()
    assert plan.summary() == before
    with pytest.raises(StoreError, match="is missing though its shard is committed"):
        Plan.open(plan.store).summary()


def test_every_shard_of_what_is_added_holds_each_stratum_equally_often(tmp_path: Path, short: Path, long: Path) -> None:
    """As in a plan that was that long from the beginning; without gaps in the archive all are full but the last."""
    source, store = FormulaSource(), tmp_path / "store"
    work(prepare(store, short), source)
    plan = prepare(store, long)
    work(plan, source)
    first = 4 * SHORT[0] // 16
    for shard in sorted(shards.committed(store))[first:]:
        strata = Counter(
            (slot.location["biome"], slot.location["year"]) for slot in plan.spec(shard).slots if slot.location
        )
        assert set(strata.values()) == {4}
        assert len(strata) == 4


def test_no_batch_is_resolved_twice_and_none_has_locations_of_both_tables(
    tmp_path: Path, short: Path, long: Path, source: FormulaSource
) -> None:
    plan = prepare(tmp_path / "store", short)
    resolve_plan(plan, source)
    few, many = (len(frame) for frame in tables(short, long).values())
    assert plan.batches == 1
    longer = prepare(tmp_path / "store", long)
    assert longer.unresolved() == (1,)
    sizes = [len(longer.batch(number)) for number in range(longer.batches)]
    assert sizes == [few, many - few]
    places = [place.location_id for number in range(longer.batches) for place in longer.batch(number)]
    assert sorted(places) == sorted(gpd.read_parquet(long)["location_id"])
    assert places[:few] == gpd.read_parquet(short)["location_id"].tolist()


def test_a_run_that_knows_the_shorter_table_alone_finishes_what_that_asks_for(
    tmp_path: Path, short: Path, long: Path, source: FormulaSource
) -> None:
    """One process may still collect while another one extends the plan."""
    store = tmp_path / "store"
    older = prepare(store, short)
    resolve_plan(older, source)
    older.next_round()
    assert older.is_whole()
    work(prepare(store, long), source)
    assert not older.is_whole(), "what it finishes is not the whole store"
    assert older.pending() == ()
    assert older.next_round() is None
    assert {(s.quota, s.dry) for s in older.summary().strata} == {(4, False)}
    again = prepare(store, short)
    assert again.unresolved() == ()
    assert again.next_round() is None
    assert len(again.table) == len(gpd.read_parquet(short))


def test_an_extension_that_was_killed_is_done_by_the_next_run_or_not_at_all(
    tmp_path: Path, short: Path, long: Path, source: FormulaSource
) -> None:
    store = tmp_path / "store"
    work(prepare(store, short), source)
    whole = tmp_path / "whole"
    shutil.copytree(store, whole)
    work(prepare(whole, long), source)

    (store / "_plan" / "locations-01.parquet").write_bytes(b"left by a process that was killed before it was listed")
    assert len(Plan.open(store).table) == len(gpd.read_parquet(short))
    assert prepare(store, short).next_round() is None
    work(prepare(store, long), source, enough=lambda: len(shards.committed(store)) == 3)
    work(prepare(store, long), source)
    assert content(store) == content(whole)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"format": 1}', b'{"format": 2, "shard_rows": 8, "tables": [{}]}'])
def test_a_damaged_plan_is_named(tmp_path: Path, short: Path, content: bytes) -> None:
    store = tmp_path / "store"
    prepare(store, short)
    (store / "_plan" / "plan.json").write_bytes(content)
    with pytest.raises(PlanError, match=r"plan\.json is damaged; restore it"):
        Plan.open(store)


def test_a_plan_is_extended_again_and_again(tmp_path: Path, short: Path, long: Path, source: FormulaSource) -> None:
    store, between = tmp_path / "store", tmp_path / "between.parquet"
    location_table(between, 8, 4)
    for table in (short, between, long):
        work(prepare(store, table), source)
    assert [file.name for file in sorted((store / "_plan").glob("locations*"))] == [
        "locations-01.parquet",
        "locations-02.parquet",
        "locations.parquet",
    ]
    assert {(s.quota, s.stored) for s in Plan.open(store).summary().strata} == {(12, 12)}
    assert prepare(store, between).next_round() is None


def test_new_years_are_new_strata(tmp_path: Path, short: Path) -> None:
    """A table may add strata; those that are complete get no more."""
    store, wider = tmp_path / "store", tmp_path / "wider.parquet"
    source = FormulaSource()
    work(prepare(store, short), source)
    frame = gpd.read_parquet(short)
    location_table(tmp_path / "other.parquet", *SHORT, years=(2020,), around=((15.0, 48.0),))
    added = gpd.read_parquet(tmp_path / "other.parquet")
    gpd.pd.concat([added, frame], ignore_index=True).to_parquet(wider)
    work(prepare(store, wider), source)
    assert Counter(s.year for s in Plan.open(store).summary().strata if s.stored == 4) == {2018: 2, 2019: 2, 2020: 2}
    assert Plan.open(store).summary().stored == 24


@pytest.mark.parametrize(
    ("column", "change", "says"),
    [
        ("location_id", lambda frame: frame.iloc[1:], "lacks 1 of its 28 locations"),
        ("year", lambda frame: frame.assign(year=frame["year"] + 1), "has year 2019, where the store follows 2018"),
        ("rank", lambda frame: frame.assign(rank=frame["rank"] + 1), "has rank 1, where the store follows 0"),
        ("split", lambda frame: frame.assign(split="val"), "has split val, where the store follows train"),
    ],
)
def test_a_table_that_says_otherwise_is_refused_and_changes_nothing(
    tmp_path: Path,
    short: Path,
    long: Path,
    column: str,
    change: Callable[[gpd.GeoDataFrame], gpd.GeoDataFrame],
    says: str,
) -> None:
    store = tmp_path / "store"
    prepare(store, short)
    before = content(store)
    change(gpd.read_parquet(long)).reset_index(drop=True).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(PlanError, match=says) as refused:
        prepare(store, tmp_path / "other.parquet")
    assert str(refused.value).startswith(f"{tmp_path / 'other.parquet'} does not extend the location table of {store}")
    assert "same seed, layers and options" in str(refused.value)
    assert "new --store" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert content(store) == before


def test_locations_are_found_in_the_plans_order_and_strangers_are_not(short: Path, long: Path) -> None:
    frames = tables(short, long)
    parts = Parts.of([frames["short"], frames["long"]], [0, 1])
    ids = parts.ids.tolist()
    asked = [*ids[::-3], 0, max(ids) + 1, ids[0] + 1 if ids[0] + 1 not in ids else 1]
    expected = [ids.index(i) if i in ids else len(ids) for i in asked]
    np.testing.assert_array_equal(parts.find(np.array(asked, dtype=np.int64)), expected)


def test_a_machine_of_a_cluster_opens_a_plan_anew_once_it_was_extended(
    tmp_path: Path, short: Path, long: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command, whose table was replaced by a longer one, reaches a process that had the shorter one open."""
    monkeypatch.setattr("flows.shards.connected", lambda settings, plan: SimpleNamespace(read_traffic=dict))
    settings = CollectSettings(locations=tmp_path / "table.parquet", store=tmp_path / "store")
    lengths = []
    for table in (short, short, long):
        prepare(settings.store, table)
        run = pickle.loads(pickle.dumps(Run(settings, *(None,) * 5)))  # type: ignore[arg-type]
        lengths.append(len(run.plan.table))
        assert pickle.loads(pickle.dumps(run)) is run
    assert lengths == [len(table) for table in (*[tables(short, long)["short"]] * 2, tables(short, long)["long"])]
