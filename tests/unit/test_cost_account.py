"""The account of a store: every process's own file, whole at any moment, and sums that count nothing twice."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mmearth_data.cost import account
from mmearth_data.cost.account import Account, Session, measured, read_account
from mmearth_data.store.files import StoreError
from mmearth_data.traffic import Count, Meter, kind_of, total

BEGIN = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


def write(store: Path, name: str, start: float, end: float, sent: int = 0, eecu: object = None) -> None:
    """A session's file as a process leaves it that worked from hour ``start`` to hour ``end``."""
    folder = store / "_plan" / "account"
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "host": "here",
        "process": 1,
        "started": (BEGIN + timedelta(hours=start)).isoformat(),
        "updated": (BEGIN + timedelta(hours=end)).isoformat(),
        "traffic": {"computePixels": {"sent": sent, "repeated": sent // 10, "bytes_sent": 1, "bytes_received": 2}},
        "eecu_seconds": eecu or {},
    }
    (folder / f"20260501T120000Z-{name}.json").write_text(json.dumps(record))


def read(store: Path) -> Account:
    account = read_account(store)
    assert account is not None
    return account


def test_a_store_that_nobody_kept_account_of_has_none(tmp_path: Path) -> None:
    assert read_account(tmp_path) is None


def test_kinds_are_earth_engines_verbs() -> None:
    base = "https://earthengine.googleapis.com"
    assert kind_of(f"{base}/v1/projects/p/image:computePixels?alt=json") == "computePixels"
    assert kind_of(f"{base}/v1/projects/p/table:computeFeatures") == "computeFeatures"
    assert kind_of(f"{base}/v1/projects/p/algorithms?prettyPrint=false") == "algorithms"
    assert kind_of(f"{base}/$discovery/rest?version=v1") == "discovery"


def test_a_session_that_is_written_often_is_counted_once(tmp_path: Path) -> None:
    meters = [Meter(), Meter()]
    sessions = [Session(tmp_path, meter.read) for meter in meters]
    for number in range(10):
        for session, meter in zip(sessions, meters, strict=True):
            meter.sent("computePixels", 100, repeated=number % 5 == 4)
            meter.received("computePixels", 7)
            session.keep(now=True)
    meters[0].sent("computeFeatures", 50, repeated=False)
    assert len(list((tmp_path / "_plan" / "account").iterdir())) == 2
    killed = read(tmp_path)  # the last request was never written: that is all that a kill can lose
    assert dict(killed.traffic) == {"computePixels": Count(20, 4, 2000, 140)}
    sessions[0].keep(now=True)
    assert total(read(tmp_path).traffic) == Count(21, 4, 2050, 140)
    assert read(tmp_path).sessions == 2


def test_keeping_is_cheap_between_two_writes(tmp_path: Path) -> None:
    meter = Meter()
    session = Session(tmp_path, meter.read)
    session.keep()
    (file,) = (tmp_path / "_plan" / "account").iterdir()
    before = file.stat().st_ino
    for _ in range(1000):
        session.keep()
    assert file.stat().st_ino == before


def test_hours_in_which_two_worked_count_once(tmp_path: Path) -> None:
    for name, start, end in (("a0000000", 0, 2), ("b0000000", 1, 3), ("c0000000", 1.5, 1.75), ("d0000000", 10, 10.5)):
        write(tmp_path, name, start, end, sent=100)
    found_account = read(tmp_path)
    assert found_account.hours == pytest.approx(3.5)
    assert found_account.since == BEGIN.isoformat()
    found = measured(found_account, stored=350, bytes_stored=700)
    assert found.tiles_per_hour == pytest.approx(100)
    assert found.requests_per_tile == pytest.approx(400 / 350)
    assert found.bytes_stored_per_tile == 2
    assert found.eecu_seconds_per_tile is None


def test_waiting_for_the_first_slots_is_no_time_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hours = 0.0
    monkeypatch.setattr(account, "_now", lambda: BEGIN + timedelta(hours=hours))
    session = Session(tmp_path, Meter().read)
    session.keep(now=True)
    hours = 5.0
    session.begin()
    assert read(tmp_path).hours == 0
    hours = 6.0
    session.begin()  # slots that were lost on the way
    hours = 7.0
    session.keep(now=True)
    assert read(tmp_path).hours == pytest.approx(2)


def test_what_the_service_reported_twice_of_a_day_counts_once(tmp_path: Path) -> None:
    """It reports late, so a day grows; and forgets, so an old day may be missing from the last answer."""
    write(tmp_path, "a0000000", 0, 1, sent=60, eecu={"2026-04-30": {"highvolume": 7000.0, "online": 30.0}})
    write(
        tmp_path,
        "b0000000",
        20,
        21,
        sent=60,
        eecu={"2026-04-30": {"highvolume": 7200.0}, "2026-05-01": {"highvolume": 1.0}},
    )
    write(tmp_path, "c0000000", 30, 31, sent=60, eecu={"2026-05-01": {"highvolume": 3600.0}})
    found = read(tmp_path)
    assert found.eecu_seconds_by_type == {"highvolume": 10_800.0, "online": 30.0}
    assert found.eecu_hours_by_month == {"2026-04": pytest.approx(7230 / 3600), "2026-05": 1.0}
    assert measured(found, 100, 0).eecu_seconds_per_tile == 108


def test_a_damaged_session_is_named(tmp_path: Path) -> None:
    write(tmp_path, "a0000000", 0, 1)
    (file,) = (tmp_path / "_plan" / "account").iterdir()
    file.write_text(file.read_text()[:-20])
    with pytest.raises(StoreError, match=r"a0000000\.json is damaged; remove it"):
        read_account(tmp_path)
    file.write_text('{"host": "here"}')
    with pytest.raises(StoreError, match="is damaged"):
        read_account(tmp_path)


def test_what_another_process_is_just_writing_is_no_session(tmp_path: Path) -> None:
    write(tmp_path, "a0000000", 0, 1, sent=5)
    (tmp_path / "_plan" / "account" / ".20260501T120000Z-b0000000.json.17-1.tmp").write_text("{")
    assert read(tmp_path).sessions == 1
