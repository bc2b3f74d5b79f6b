"""What a collection shows: absences counted by biome, a picture of fresh tiles, whether finalising is due."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import xarray as xr

import flows.collect
from flows.collect import IncompleteError
from flows.settings import CollectSettings
from flows.shards import collect_one
from mmearth_data.absences import absences_by_biome
from mmearth_data.collection import collect_shard, resolve_plan
from mmearth_data.completion import is_finalized
from mmearth_data.modalities import STORED
from mmearth_data.plan import Plan
from mmearth_data.report.mosaic import COLUMNS, GAP, SIDE, mosaic
from mmearth_data.statistics import finalize
from mmearth_data.store import StoreError, consolidate
from tests.collecting import FormulaSource, location_table


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight primaries and as many reserves in four strata; a fifth of the locations is cloudy in all products."""
    folder = tmp_path_factory.mktemp("shown")
    table = location_table(folder / "locations.parquet", primaries=4, reserves=4)
    cloudy = frozenset((int(i), k) for i in table["location_id"][::5] for k in range(2))
    source = FormulaSource(cloudy=cloudy)
    plan = Plan.prepare(folder / "store.zarr", folder / "locations.parquet")
    resolve_plan(plan, source)
    while todo := plan.pending() or plan.next_round():
        for shard in todo:
            collect_shard(plan.store, plan.spec(shard), source, workers=2)
    consolidate(plan.store)
    return plan.store


def test_absences_are_those_of_the_consolidated_table(store: Path) -> None:
    rows = pq.read_table(store / "locations.parquet").to_pylist()
    stored, gave_way, absent = Counter(), Counter(), Counter()
    for row in rows:
        if row["outcome"] == "stored":
            stored[row["biome"]] += 1
            reasons = [row[f"absent_{modality.name}"] for modality in STORED]
            absent.update((row["biome"], reason) for reason in reasons if reason)
        elif row["reason"]:
            gave_way[row["biome"], row["reason"]] += 1
    found = absences_by_biome(store)
    assert {biome: counts.stored for biome, counts in found.items()} == dict(stored)
    assert {(b, r): n for b, counts in found.items() for r, n in counts.gave_way.items()} == dict(gave_way)
    assert {(b, r): n for b, counts in found.items() for r, n in counts.absent.items()} == dict(absent)
    assert gave_way
    assert absent


def test_each_tile_of_the_picture_brightens_where_its_red_band_does(store: Path) -> None:
    """Red and place of the picture follow band B4 of the shard's stored rows, in order."""
    picture = mosaic(store, [0])
    assert picture is not None
    rows = [row["row"] for row in pq.read_table(store / "_commits" / "000000.parquet").to_pylist() if row["location_id"]
            and row["outcome"] == "stored"]  # fmt: skip
    data = xr.open_zarr(store, mask_and_scale=False)["sentinel2"].sel(sentinel2_band="B4")
    red = np.asarray(picture.convert("RGB"), dtype=float)[..., 0]
    compared = 0
    for place, row in enumerate(rows[: 3 * COLUMNS]):
        left, top = place % COLUMNS * (SIDE + GAP), place // COLUMNS * (SIDE + GAP)
        shown = red[top : top + SIDE, left : left + SIDE]
        stored = data[row].to_numpy().astype(float)
        blocks = shown.reshape(len(stored), SIDE // len(stored), len(stored), SIDE // len(stored)).mean(axis=(1, 3))
        others = [data[other].to_numpy().astype(float) for other in rows if other != row]
        alike = [np.corrcoef(blocks.ravel(), values.ravel())[0, 1] for values in (stored, *others)]
        assert alike[0] > 0.7  # what the stretch and the palette leave
        assert alike[0] == max(alike)  # some of the formula's tiles have one pattern
        assert min(alike) < 0
        compared += 1
    assert compared >= 12


def test_finalising_is_due_until_it_was_done_and_again_after_a_newer_commit(store: Path) -> None:
    assert not is_finalized(store)
    finalize(store)
    assert is_finalized(store)
    record = store / "_commits" / "000000.json"
    later = (store / "statistics.json").stat().st_mtime + 10
    os.utime(record, (later, later))
    assert not is_finalized(store)


def test_what_a_shard_that_another_process_committed_was_resolved_to_is_not_read(store: Path) -> None:
    run: Any = SimpleNamespace(plan=SimpleNamespace(store=store))  # there is nothing else to ask for
    assert not collect_one.fn(run, 0).committed_here


def test_what_a_run_left_is_said_though_its_tables_cannot_be_shown(
    store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def left(*_: Any) -> None:
        raise IncompleteError("1 of 2 shards are not committed")

    def full(*_: Any) -> None:
        raise StoreError("no space is left for the account")

    ledger = SimpleNamespace(show_estimate=lambda: None, show_account=full)
    for name, stand_in in {
        "ensure_limit": lambda *_: None, "connected": lambda *_: None, "Ledger": lambda *_: ledger,
        "publish_table": lambda *_: None, "keep_table": lambda *_: None, "_collect_with_slots": left,
    }.items():  # fmt: skip
        monkeypatch.setattr(flows.collect, name, stand_in)
    with pytest.raises(IncompleteError, match="1 of 2 shards"):
        flows.collect.collect.fn(CollectSettings(store.parent / "locations.parquet", store))
    assert "no space is left for the account" in caplog.text
