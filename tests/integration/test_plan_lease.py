"""Who plans in a bucket and sleeps too long writes nothing over the plan of whoever took the lease meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store

from mmearth_data.collection import resolve_plan
from mmearth_data.plan import Plan
from mmearth_data.store import layout, leases
from mmearth_data.store.leases import LeaseLost
from mmearth_data.store.objects import ObjectPath, at
from tests.buckets import S3Server, s3_server
from tests.collecting import FormulaSource, location_table


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        running.make_bucket("tiles")
        yield running


@pytest.fixture
def outlive(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Do something after every lease that is held has run out, none of which is renewed meanwhile."""

    def after_all_ran_out(work: Callable[[], object]) -> None:
        monkeypatch.setattr(leases, "LEASE_SECONDS", 0.0)
        work()
        monkeypatch.setattr(leases, "LEASE_SECONDS", 60.0)

    return after_all_ran_out


def test_a_round_is_planned_once(
    server: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    outlive: Callable[[Callable[[], object]], None],
) -> None:
    url = "s3://tiles/rounds/store.zarr"
    location_table(tmp_path / "locations.parquet", primaries=6, reserves=2)
    sleeper = Plan.prepare(url, tmp_path / "locations.parquet", max_shard_rows=8)
    resolve_plan(sleeper, FormulaSource())
    heir, picks, planned = Plan.open(url), Plan._picks, []

    def slowly(plan: Plan, number: int) -> object:
        chosen = picks(plan, number)
        if plan is sleeper and not planned:
            outlive(lambda: planned.append(heir.next_round()))
            planned.append(server.log.read_text().count("PUT /tiles/rounds/store.zarr/"))
        return chosen

    monkeypatch.setattr(Plan, "_picks", slowly)
    with caplog.at_level(logging.WARNING):
        assert sleeper.next_round() == planned[0] == (0, 1, 2)
    assert "a round was not planned, which is tried again" in caplog.text
    assert layout.read_layout(url).rows == 24
    puts = [line for line in server.log.read_text().splitlines() if "PUT /tiles/rounds/store.zarr/" in line]
    assert sum("round-00.parquet" in line for line in puts) == 1
    assert all("/_plan/lock" in line or "/_plan/clock" in line for line in puts[planned[1] :])


def test_a_round_that_another_process_wrote_is_not_written_over(server: S3Server, tmp_path: Path) -> None:
    """However late a put arrives: the storage itself refuses it."""
    url = "s3://tiles/late/store.zarr"
    location_table(tmp_path / "locations.parquet", primaries=6, reserves=2)
    plan = Plan.prepare(url, tmp_path / "locations.parquet", max_shard_rows=8)
    resolve_plan(plan, FormulaSource())
    plan.next_round()
    file = at(url) / "_plan" / "round-00.parquet"
    before, ids = file.read_bytes(), plan._rounds.read(0)["location_id"].to_numpy()
    plan._rounds.write(0, 0, ids, 0, 8)  # as where an answer was lost and the put repeated
    with pytest.raises(LeaseLost, match="was planned by another process meanwhile"):
        plan._rounds.write(0, 0, ids[::-1], 0, 8)
    assert file.read_bytes() == before


def test_a_table_is_adopted_by_whoever_holds_the_lease(
    server: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    outlive: Callable[[Callable[[], object]], None],
) -> None:
    url, one, other = "s3://tiles/adopted/store.zarr", tmp_path / "one.parquet", tmp_path / "other.parquet"
    location_table(one, primaries=6, reserves=2)
    location_table(other, primaries=6, reserves=2, around=((20.0, 50.0),))
    create, adopted = layout.create, []

    def adopt_the_other() -> None:
        obstore.delete(S3Store("tiles", client_options={"allow_http": True}), "adopted/store.zarr/zarr.json")
        Plan.prepare(url, other, max_shard_rows=8)

    def slowly(path: ObjectPath, **options: object) -> None:
        create(path, **options)  # type: ignore[arg-type]
        if not adopted:
            adopted.append(one)
            outlive(adopt_the_other)

    monkeypatch.setattr(layout, "create", slowly)
    with pytest.raises(LeaseLost, match="another process took it; run again"):
        Plan.prepare(url, one, max_shard_rows=8)
    assert (at(url) / "_plan" / "locations.parquet").read_bytes() == other.read_bytes()
