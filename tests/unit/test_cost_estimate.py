"""What an estimate says, worked out here from the issue's own figures and from the answers of a real client."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from flows.cli import main
from mmearth_data.collection import resolve_plan
from mmearth_data.cost.account import Measured
from mmearth_data.cost.assumptions import TIERS, Range, layers_read
from mmearth_data.cost.estimate import RESOLVING, Work, answer_bytes, estimate
from mmearth_data.cost.work import work_left, work_of
from mmearth_data.modalities import DOWNSTREAM, MODALITIES, STORED, UnknownModalityError
from mmearth_data.plan import Plan
from tests.collecting import PIXELS, FormulaSource, location_table

FULL = Work(tiles=1_200_000, locations=1_440_000, batches=25_715, tile_pixels=128)


def test_layers_are_counted_for_every_modality_that_is_fetched_and_for_one_that_is_new() -> None:
    """A year of Dynamic World is 73 layers, a scene every five days; what nothing is known of has one for each band."""
    fetched = [modality for modality in (*STORED, *DOWNSTREAM) if modality.scope == "pixel"]
    assert all(layers_read(modality) > 0 for modality in fetched)
    assert layers_read(MODALITIES["dynamic_world"]) == 365 / 5
    new = replace(MODALITIES["aster"], name="burnt_area", bands=("date", "confidence", "sensor"))
    assert layers_read(new) == 3


def test_an_eecu_second_per_tile_is_333_hours_at_full_size() -> None:
    one = estimate(FULL, 40, Measured(eecu_seconds_per_tile=1.0, eecu_seconds_per_batch=0.0))
    assert one.eecu_hours_in_all.low == pytest.approx(1_200_000 / 3600)
    assert round(one.eecu_hours_in_all.high) == 333
    assert one.months["Community"].low == pytest.approx(333.33 / 150, rel=1e-4)
    assert TIERS == {"Community": 150, "Contributor": 1_000, "Partner": 100_000}


def test_the_mode_of_a_year_costs_more_than_everything_else() -> None:
    hours = estimate(FULL, 40).eecu_hours
    rest = [hours[name] for name in hours if name != "dynamic_world"]
    assert hours["dynamic_world"].low > sum(one.low for one in rest if one is not hours[RESOLVING])
    assert hours["dynamic_world"].high > sum(one.high for one in rest)


def test_without_a_store_the_sums_follow_from_the_assumptions() -> None:
    """A tile of 128 px in 97 layers at 0.03 to 0.11 EECU-seconds, 1.12 requests of 1.5 s each, 40 at once."""
    expected = estimate(FULL, 40)
    layers = 12.5 + 1 + 0.5 + 0.5 + 1 + 4 + 2 + 73 + 2 + 1
    low = (1.2e6 * 1.12 * layers * 0.03 + 1.44e6 * 1.1) / 3600
    high = (1.2e6 * 1.12 * layers * 0.11 + 1.44e6 * 1.5) / 3600
    assert (expected.eecu_hours_in_all.low, expected.eecu_hours_in_all.high) == pytest.approx((low, high))
    assert expected.requests == {"computeFeatures": 2 * 25_715, "computePixels": 1_344_000}
    assert expected.hours == pytest.approx(1.2e6 * 1.12 * 1.5 / 40 / 3600)
    assert expected.bytes_stored == pytest.approx(1.2e6 * 281_000, rel=0.01)


def test_more_workers_are_no_faster_than_the_rate_limit() -> None:
    """However quick the answers, 100 requests a second are allowed: 1.2 M tiles take 3.7 hours at least."""
    assert estimate(FULL, 4000).hours == pytest.approx(1.2e6 * 1.12 / 100 / 3600)


def test_what_was_measured_replaces_what_was_assumed() -> None:
    known = Measured(
        requests_per_tile=1.5,
        bytes_received_per_tile=1e6,
        bytes_stored_per_tile=2e5,
        tiles_per_hour=5_000,
        eecu_seconds_per_tile=7.2,
        eecu_seconds_per_batch=36.0,
    )
    found = estimate(Work(tiles=10_000, locations=560, batches=10, tile_pixels=64), 8, known)
    assert found.requests == {"computeFeatures": 20, "computePixels": 15_000}
    assert (found.bytes_received, found.bytes_stored, found.hours) == (10**10, 2 * 10**9, 2.0)
    assert found.eecu_hours_in_all.low == found.eecu_hours_in_all.high == pytest.approx(20 + 0.1)
    assert found.eecu_hours[RESOLVING] == Range(pytest.approx(0.1), pytest.approx(0.1))
    assert set(found.basis.values()) >= {"measured in this store"}


def test_larger_tiles_cost_more_and_smaller_ones_no_less() -> None:
    def hours(pixels: int) -> float:
        work = Work(tiles=1000, locations=0, batches=0, tile_pixels=pixels)
        return estimate(work, 8).eecu_hours_in_all.low

    assert hours(64) == hours(128)
    assert hours(512) == pytest.approx(4 * hours(128))


def test_an_answer_has_every_band_in_its_dtype() -> None:
    """Half the tiles have 12, half 13 bands of reflectance; QA60; half SCL and MSK_CLDPRB; four radar bands …."""
    bytes_per_pixel = 12.5 * 2 + 2 + 0.5 + 0.5 + 1 + 4 * 2 + 2 * 2 + 1 + 2 + 1
    assert answer_bytes(FULL) == pytest.approx(bytes_per_pixel * 128**2, rel=0.01)


def test_only_what_is_left_is_estimated(tmp_path: Path) -> None:
    location_table(tmp_path / "locations.parquet", primaries=40, reserves=10)
    whole = work_of(tmp_path / "locations.parquet")
    assert (whole.tiles, whole.locations, whole.batches) == (160, 200, math.ceil(200 / 100))
    plan = Plan.prepare(tmp_path / "store", tmp_path / "locations.parquet")
    assert work_left(plan, plan.summary()) == work_of(tmp_path / "locations.parquet", plan) == whole
    plan.save_resolved(0, FormulaSource().resolve(plan.batch(0)))
    begun = work_left(plan, plan.summary())
    assert begun == work_of(tmp_path / "locations.parquet", plan)
    assert (begun.tiles, begun.locations, begun.batches) == (160, 100, 1)


def test_modalities_that_are_asked_for_besides_cost_besides(tmp_path: Path) -> None:
    location_table(tmp_path / "locations.parquet", primaries=20, reserves=5)
    less, more = (work_of(tmp_path / "locations.parquet", None, names) for names in ((), ("ghsl_built_surface",)))
    expected = [estimate(work, 8) for work in (less, more)]
    assert expected[1].eecu_hours_in_all.low > expected[0].eecu_hours_in_all.low
    assert answer_bytes(more) - answer_bytes(less) == 2 * 2 * PIXELS**2
    with pytest.raises(UnknownModalityError, match="sentinel9"):
        work_of(tmp_path / "locations.parquet", None, ("sentinel9",))


def test_the_command_says_it_as_tables_and_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    location_table(tmp_path / "locations.parquet", primaries=20, reserves=5)
    Plan.prepare(tmp_path / "store", tmp_path / "locations.parquet")
    with pytest.raises(SystemExit) as ended:
        main(["estimate", "--locations", str(tmp_path / "locations.parquet"), "--workers", "40"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    for words in ("tiles to store", "computePixels", "months of Community", "bytes stored", "dynamic_world", "assumed"):
        assert words in printed
    where = ["--locations", str(tmp_path / "locations.parquet"), "--store", str(tmp_path / "store")]
    with pytest.raises(SystemExit):
        main(["estimate", *where, "--json"])
    said = json.loads(capsys.readouterr().out)
    assert said["work"]["tiles"] == 80
    assert set(said["eecu_hours"]) == {RESOLVING, *said["work"]["modalities"]}
    assert said["eecu_hours_in_all"]["low"] == pytest.approx(sum(one["low"] for one in said["eecu_hours"].values()))
    with pytest.raises(SystemExit) as ended:
        main(["estimate", *where[:2], "--store", str(tmp_path / "nowhere")])
    assert ended.value.code == 2
    assert "has no plan; make one with" in capsys.readouterr().err


@pytest.mark.parametrize("workers", ["0", "-3"])
def test_without_a_request_at_once_nothing_is_estimated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: str
) -> None:
    location_table(tmp_path / "locations.parquet", primaries=2, reserves=0)
    with pytest.raises(SystemExit) as ended:
        main(["estimate", "--locations", str(tmp_path / "locations.parquet"), "--workers", workers])
    assert ended.value.code == 2
    assert f"not {workers}; raise --workers" in capsys.readouterr().err


def test_of_a_shorter_table_than_the_store_follows_nothing_is_left(tmp_path: Path) -> None:
    location_table(tmp_path / "long.parquet", primaries=4, reserves=2)
    location_table(tmp_path / "short.parquet", primaries=2, reserves=1)
    plan = Plan.prepare(tmp_path / "store", tmp_path / "long.parquet")
    resolve_plan(plan, FormulaSource())
    left = work_of(tmp_path / "short.parquet", plan)
    assert (left.locations, left.batches) == (0, 0)
