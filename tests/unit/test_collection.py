"""Collecting shards: what is written, who gives way, what is repeated, and the same content however it went."""

from __future__ import annotations

import io
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from mmearth_data.collection import Retry, collect_shard, resolve_plan
from mmearth_data.modalities import STORED
from mmearth_data.plan import Plan
from mmearth_data.source import Corrupt, Quota, Rejected, Transient
from mmearth_data.store import shards
from mmearth_data.store.locking import ShardLocked
from tests.collecting import FormulaSource, location_table, tile
from tests.stores import content

QUICK = Retry(
    attempts=6, corrupt_attempts=3, timeout=20, wait_initial=0.001, wait_max=0.01, wait_jitter=0.001, quota_wait=0.001
)


def collect_all(store: Path, locations: Path, source: FormulaSource, workers: int = 4) -> Plan:
    plan = Plan.prepare(store, locations, max_shard_rows=24)
    resolve_plan(plan, source, workers=workers, retry=QUICK)
    while todo := plan.pending() or plan.next_round():
        for shard in todo:
            collect_shard(store, plan.spec(shard), source, workers, retry=QUICK)
    return plan


@pytest.fixture
def locations(tmp_path: Path) -> Path:
    location_table(tmp_path / "locations.parquet", primaries=10, reserves=4)
    return tmp_path / "locations.parquet"


def troubled(locations: Path) -> FormulaSource:
    """Some locations without products, some cloudy at first, some cloudy or with gaps in every product."""
    import geopandas as gpd

    ids = [int(i) for i in gpd.read_parquet(locations)["location_id"]]
    return FormulaSource(
        products={ids[3]: 0, ids[8]: 1},
        cloudy=frozenset({(ids[0], 0), (ids[1], 0), (ids[1], 1), (ids[2], 0)}),
        gaps=frozenset({(ids[2], 1), (ids[5], 0)}),
    )


def test_every_stored_row_holds_its_tile_and_its_record(tmp_path: Path, locations: Path) -> None:
    source = troubled(locations)
    plan = collect_all(tmp_path / "store", locations, source)
    store = xr.open_zarr(tmp_path / "store", mask_and_scale=False).load()
    seen = 0
    for shard in sorted(shards.committed(plan.store)):
        for record in shards.row_table(plan.store, shard).to_pylist():
            if record["outcome"] == "vacant":
                assert (store["sentinel2"][record["row"]] == 0).all()
                continue
            slot = next(s for s in plan.spec(shard).slots if s.row == record["row"])
            taken = slot.acquisitions[record["attempts"] - 1]
            expected = tile(taken)
            for name, pixels in expected.pixels.items():
                np.testing.assert_array_equal(store[name][record["row"]].to_numpy(), pixels, err_msg=name)
            np.testing.assert_array_equal(
                store["era5"][record["row"]].to_numpy(), np.array(taken.era5, dtype=np.float32)
            )
            assert record["sentinel2_id"] == taken.sentinel2_id
            assert record["time"] == taken.time
            assert record["sentinel1_desc_id"] == (taken.descending.image_id if taken.descending else None)
            assert record["clear_fraction"] == 1.0
            absent = {m.name: record[f"absent_{m.name}"] for m in STORED if record[f"absent_{m.name}"]}
            masked = {"era5": "masked"} if np.isnan(taken.era5).all() else {}
            assert absent == {name: str(reason) for name, reason in expected.absent.items()} | masked
            seen += 1
    assert seen == 40


def test_locations_give_way_by_content_and_further_rounds_make_up(tmp_path: Path, locations: Path) -> None:
    source = troubled(locations)
    plan = collect_all(tmp_path / "store", locations, source)
    rows = [r for shard in shards.committed(plan.store) for r in shards.row_table(plan.store, shard).to_pylist()]
    by_id = {r["location_id"]: r for r in rows if r["location_id"]}
    ids = [int(i) for i in plan.table["location_id"]]
    assert (by_id[ids[0]]["outcome"], by_id[ids[0]]["attempts"]) == ("stored", 2)
    assert (by_id[ids[1]]["outcome"], by_id[ids[1]]["reason"], by_id[ids[1]]["attempts"]) == ("vacant", "cloudy", 2)
    assert (by_id[ids[2]]["outcome"], by_id[ids[2]]["reason"]) == ("vacant", "gaps")
    assert (by_id[ids[5]]["outcome"], by_id[ids[5]]["attempts"]) == ("stored", 2)
    assert ids[3] not in by_id
    summary = plan.summary()
    assert {(s.quota, s.stored, s.dry) for s in summary.strata} == {(10, 10, False)}
    assert sum(s.gave_way for s in summary.strata) == 2
    assert summary.rounds == 2
    assert plan.next_round() is None
    assert all(count == 1 for count in source.fetched.values()), "no tile was fetched twice"


def test_strata_that_run_dry_are_said_to_be(tmp_path: Path, locations: Path) -> None:
    import geopandas as gpd

    table = gpd.read_parquet(locations)
    stratum = table[(table["biome"] == table["biome"][0]) & (table["year"] == 2018)]
    gone = {int(i): 0 for i in stratum["location_id"][:6]}
    plan = collect_all(tmp_path / "store", locations, FormulaSource(products=gone))
    (dry,) = plan.summary().dry
    assert (dry.biome, dry.year, dry.quota, dry.stored) == (table["biome"][0], 2018, 10, 8)


def test_content_does_not_depend_on_workers_failures_or_interruptions(tmp_path: Path, locations: Path) -> None:
    collect_all(tmp_path / "calm", locations, troubled(locations), workers=1)
    rough = troubled(locations)
    rough.failures = [Transient("500"), Quota("429"), Corrupt("garbage", b"x"), Transient("dropped")] * 2
    collect_all(tmp_path / "rough", locations, rough, workers=7)

    class StopError(Exception):
        pass

    broken = troubled(locations)
    plan = Plan.prepare(tmp_path / "broken", locations, max_shard_rows=24)
    resolve_plan(plan, broken, retry=QUICK)
    first, second = plan.next_round() or ()
    collect_shard(plan.store, plan.spec(first), broken, 3, retry=QUICK)
    countdown = iter(range(5))

    def stop_after_five() -> None:
        if next(countdown, None) is None:
            raise StopError

    with pytest.raises(StopError):
        collect_shard(plan.store, plan.spec(second), broken, 3, stop_after_five, retry=QUICK)
    assert shards.committed(plan.store) == {first}
    collect_all(tmp_path / "broken", locations, broken)
    calm = content(tmp_path / "calm")
    assert content(tmp_path / "rough") == calm
    assert content(tmp_path / "broken") == calm


def test_a_committed_shard_is_left_alone_and_a_held_one_refused(tmp_path: Path, locations: Path) -> None:
    source = FormulaSource()
    plan = collect_all(tmp_path / "store", locations, source)
    before, fetched = content(plan.store), sum(source.fetched.values())
    report = collect_shard(plan.store, plan.spec(0), source, 2, retry=QUICK)
    assert (report.stored, report.requests) == (0, 0)
    assert content(plan.store) == before
    assert sum(source.fetched.values()) == fetched
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with shards.lock(plan.store, 1):
            held.set()
            done.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)
    with pytest.raises(ShardLocked):
        collect_shard(plan.store, plan.spec(1), source, 2, retry=QUICK)
    done.set()
    holder.join()


def test_corrupt_answers_leave_the_shard_uncommitted_and_their_bytes_kept(tmp_path: Path, locations: Path) -> None:
    source = FormulaSource()
    plan = Plan.prepare(tmp_path / "store", locations, max_shard_rows=24)
    resolve_plan(plan, source, retry=QUICK)
    plan.next_round()
    source.failures = [Corrupt("cut short", b"PK-"), Corrupt("cut short", b"PK"), Corrupt("cut short", b"PK-garbage")]
    with pytest.raises(
        Corrupt, match=r"location \d+: cut short; its bytes are kept in .*_quarantine/\d+-0\.bin, run again to retry"
    ) as failed:
        collect_shard(plan.store, plan.spec(0), source, 1, retry=QUICK)
    kept = Path(str(failed.value).split("kept in ")[1].split(",")[0])
    assert kept.read_bytes() == b"PK-garbage"
    assert shards.committed(plan.store) == set()

    class Impossible(FormulaSource):
        def fetch(self, wanted):
            result = super().fetch(wanted)
            result.pixels["esa_worldcover"][0, 0, 0] = 11
            return result

    says = r"holds the class 11.*, the same at every try: inspect them, then go past with --give-up( \d+){8}"
    with pytest.raises(Corrupt, match=says) as failed:
        collect_shard(plan.store, plan.spec(0), Impossible(), 1, retry=QUICK)
    kept = Path(str(failed.value).split("kept in ")[1].split(",")[0])
    with np.load(io.BytesIO(kept.read_bytes())) as arrays:
        assert arrays["esa_worldcover"][0, 0, 0] == 11
    collect_shard(plan.store, plan.spec(0), source, 1, retry=QUICK)
    assert shards.committed(plan.store) == {0}


def test_rejected_stops_at_once_and_transient_after_its_attempts(tmp_path: Path, locations: Path) -> None:
    source = FormulaSource()
    plan = Plan.prepare(tmp_path / "store", locations, max_shard_rows=24)
    resolve_plan(plan, source, retry=QUICK)
    plan.next_round()
    source.failures = [Rejected("400: unknown band")]
    with pytest.raises(Rejected, match="unknown band"):
        collect_shard(plan.store, plan.spec(0), source, 1, retry=QUICK)
    assert sum(source.fetched.values()) == 1
    source.failures = [Transient("503")] * 6
    with pytest.raises(Transient, match="503"):
        collect_shard(plan.store, plan.spec(0), source, 1, retry=QUICK)
    assert sum(source.fetched.values()) == 1 + 6
    assert shards.committed(plan.store) == set()


def test_no_request_is_repeated_once_the_run_is_asked_to_stop(tmp_path: Path, locations: Path) -> None:
    class StoppedWhileFailing(FormulaSource):
        def resolve(self, places):
            stop.set()
            raise Transient("503")

    source, stop = FormulaSource(), threading.Event()
    plan = Plan.prepare(tmp_path / "store", locations, max_shard_rows=24)
    with pytest.raises(Transient, match="503"):
        resolve_plan(plan, StoppedWhileFailing(), retry=QUICK, stopping=stop.is_set)
    resolve_plan(plan, source, retry=QUICK)
    plan.next_round()
    source.failures = [Transient("503")] * 5
    with pytest.raises(Transient, match="503"):
        collect_shard(plan.store, plan.spec(0), source, 1, retry=QUICK, stopping=stop.is_set)
    assert sum(source.fetched.values()) == 1
    stop.clear()
    asked = iter([False, True, True])  # the stop comes while the request waits to be repeated
    with pytest.raises(Transient, match="503"):
        collect_shard(plan.store, plan.spec(0), source, 1, retry=QUICK, stopping=lambda: next(asked))
    assert sum(source.fetched.values()) == 2
    assert shards.committed(plan.store) == set()


def test_the_report_counts_rows_requests_and_reasons(tmp_path: Path, locations: Path) -> None:
    source = troubled(locations)
    source.failures = [Transient("500"), Quota("429")]
    plan = Plan.prepare(tmp_path / "store", locations, max_shard_rows=24)
    resolve_plan(plan, source, retry=QUICK)
    plan.next_round()
    called: list[int] = []
    reports = [
        collect_shard(plan.store, plan.spec(s), source, 3, lambda: called.append(1), retry=QUICK)
        for s in plan.pending()
    ]
    assert sum(r.stored + r.gave_way + r.vacant for r in reports) == 2 * 24
    assert sum(r.stored for r in reports) == 38
    assert sum(r.gave_way for r in reports) == 2
    assert sum(r.requests for r in reports) == sum(source.fetched.values())
    assert len(called) == 40
    rows = [r for s in shards.committed(plan.store) for r in shards.row_table(plan.store, s).to_pylist()]
    assert sorted(row["reason"] for row in rows if row["reason"]) == ["cloudy", "gaps"]
    assert any(row["absent_era5"] == "masked" for row in rows)


def test_resolving_repeats_what_may_pass_and_keeps_what_is_done(tmp_path: Path, locations: Path) -> None:
    class Flaky(FormulaSource):
        calls = 0

        def resolve(self, places):
            self.calls += 1
            if self.calls in (1, 3):
                raise Transient("timeout")
            return super().resolve(places)

    plan = Plan.prepare(tmp_path / "store", locations)
    assert plan.batches == 1
    assert resolve_plan(plan, Flaky(), retry=QUICK) == 1
    assert resolve_plan(plan, Flaky(), retry=QUICK) == 0


def test_a_batch_that_another_run_saved_meanwhile_is_not_resolved_again(tmp_path: Path) -> None:
    location_table(tmp_path / "locations.parquet", primaries=40, reserves=15)
    plan = Plan.prepare(tmp_path / "store", tmp_path / "locations.parquet")
    assert plan.batches == 3

    class Overtaken(FormulaSource):
        asked = 0

        def resolve(self, places):
            self.asked += 1
            resolve_plan(Plan.open(plan.store), FormulaSource(), retry=QUICK)
            return super().resolve(places)

    called: list[int] = []
    source = Overtaken()
    assert resolve_plan(plan, source, workers=1, on_batch=lambda: called.append(1), retry=QUICK) == 1
    assert (source.asked, len(called)) == (1, 3)
    assert plan.unresolved() == ()


def test_an_answer_that_is_given_for_two_locations_is_stored_for_neither(tmp_path: Path, locations: Path) -> None:
    class Twice(FormulaSource):
        stuck = True

        def fetch(self, wanted):
            result = super().fetch(wanted)
            if self.stuck and wanted.location_id == second:
                first_acquisition = replace(wanted, location_id=first, bands=wanted.bands)
                result.pixels["sentinel2"] = tile(first_acquisition).pixels["sentinel2"]
            return result

    plan = Plan.prepare(tmp_path / "store", locations, max_shard_rows=24)
    source = Twice()
    resolve_plan(plan, source, retry=QUICK)
    plan.next_round()
    ids = sorted(int(slot.location["location_id"]) for slot in plan.spec(0).slots if slot.location)
    first, second = [i for i in ids if i % 2 == 0][:2]
    with pytest.raises(
        Corrupt, match=f"location {first}: its sentinel2 is that of location {second}, .*{first} {second}$"
    ):
        collect_shard(plan.store, plan.spec(0), source, 3, retry=QUICK)
    assert shards.committed(plan.store) == set()
    with np.load(plan.store / "_quarantine" / f"{second}-twice.bin") as kept:
        np.testing.assert_array_equal(kept["aster"], tile(plan_acquisition(plan, second)).pixels["aster"])
    source.stuck = False
    collect_shard(plan.store, plan.spec(0), source, 3, retry=QUICK)
    assert shards.committed(plan.store) == {0}


def plan_acquisition(plan: Plan, location_id: int):
    slots = {slot.location["location_id"]: slot for slot in plan.spec(0).slots if slot.location}
    return slots[location_id].acquisitions[0]


def test_a_shard_warns_once_of_what_looks_odd(
    tmp_path: Path, locations: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Snow(FormulaSource):
        def fetch(self, wanted):
            result = super().fetch(wanted)
            if wanted.location_id in white:
                result.pixels["sentinel2"][4] = 28000
            return result

    plan, source = Plan.prepare(tmp_path / "store", locations, max_shard_rows=24), Snow()
    resolve_plan(plan, source, retry=QUICK)
    plan.next_round()
    located = [int(slot.location["location_id"]) for slot in plan.spec(0).slots if slot.location]
    white = set(located[:3])
    report = collect_shard(plan.store, plan.spec(0), source, 3, retry=QUICK)
    assert report.odd == {"constant": 3}
    assert shards.committed(plan.store) == {0}
    (line,) = [record.message for record in caplog.records if "odd" in record.message]
    assert line == f"shard 0: tiles that look odd and may be honest: constant 3 of {len(located)}"
