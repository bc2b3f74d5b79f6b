"""Products that leave the archive between resolving and fetching, asked for through the real client."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mmearth_data.collection import collect_shard, resolve_plan
from mmearth_data.earthengine.session import connect
from mmearth_data.plan import Plan
from mmearth_data.source import Acquisition, RadarPass, Rejected, Unavailable
from mmearth_data.store import shards
from tests.collecting import location_table
from tests.emulated import start_emulator


def without_sentinel2(acquisition: Acquisition) -> Acquisition:
    return replace(acquisition, sentinel2_id=acquisition.sentinel2_id + "_GONE")


def without_radar(acquisition: Acquisition) -> Acquisition:
    gone = RadarPass("COPERNICUS/S1_GRD/S1A_IW_GRDH_GONE", acquisition.time, ("VV", "VH"))
    return replace(acquisition, ascending=gone)


def test_the_next_product_is_taken_and_the_location_gives_way_where_none_is_left(tmp_path: Path) -> None:
    location_table(tmp_path / "locations.parquet", 3, 0, biomes=1, years=(2019,), around=((-100.0, 40.0),))
    with start_emulator(tmp_path, "flat") as emulator:
        source = connect(None, emulator.url)
        plan = Plan.prepare(tmp_path / "store", tmp_path / "locations.parquet", max_shard_rows=3)
        resolve_plan(plan, source)
        plan.next_round()
        spec = plan.spec(0)
        one, other, third = spec.slots
        changed = (
            replace(one, acquisitions=(without_sentinel2(one.acquisitions[0]), *one.acquisitions[1:])),
            replace(other, acquisitions=tuple(map(without_sentinel2, other.acquisitions[:2]))),
            replace(third, acquisitions=(without_radar(third.acquisitions[0]), *third.acquisitions[1:])),
        )
        report = collect_shard(plan.store, replace(spec, slots=changed), source, 1)
    rows = shards.row_table(plan.store, 0).to_pylist()
    assert [(row["outcome"], row["attempts"], row["reason"]) for row in rows] == [
        ("stored", 2, ""),
        ("vacant", 2, "no_product"),
        ("stored", 2, ""),
    ]
    assert [rows[0]["sentinel2_id"], rows[2]["sentinel2_id"]] == [
        one.acquisitions[1].sentinel2_id,
        third.acquisitions[1].sentinel2_id,
    ]
    assert report.requests == 6, "no request is repeated for a fact"


@pytest.mark.parametrize("change", [without_sentinel2, without_radar])
def test_a_product_that_the_archive_lost_is_a_fact_and_any_other_missing_image_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Acquisition], Acquisition]
) -> None:
    location_table(tmp_path / "locations.parquet", 1, 0, biomes=1, years=(2019,), around=((-100.0, 40.0),))
    with start_emulator(tmp_path, "flat") as emulator:
        source = connect(None, emulator.url)
        plan = Plan.prepare(tmp_path / "store", tmp_path / "locations.parquet")
        resolved = source.resolve(plan.batch(0))[0].acquisitions[0]
        with pytest.raises(Unavailable, match="GONE is in the archive no more"):
            source.fetch(change(resolved))
        other = without_sentinel2(resolved)
        monkeypatch.setattr(Acquisition, "image_ids", (resolved.sentinel2_id,))
        with pytest.raises(Rejected, match="not found"):
            source.fetch(other)
