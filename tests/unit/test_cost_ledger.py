"""What a run does with what the service reports: keeps it with the store, says it, and goes on without it."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

from flows import ledger
from flows.cost import account_rows
from flows.settings import CollectSettings
from mmearth_data.cost.account import read_account
from mmearth_data.earthengine.consumption import eecu_seconds
from mmearth_data.plan import Plan
from mmearth_data.traffic import Meter
from tests.collecting import location_table
from tests.unit.test_cost_reported import monitoring, series


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    location_table(tmp_path / "locations.parquet", 2, 1)
    return Plan.prepare(tmp_path / "store", tmp_path / "locations.parquet")


def opened(plan: Plan, project: str | None, emulator: str | None = None) -> ledger.Ledger:
    meter = Meter()
    meter.sent("computePixels", 10, repeated=False)
    source = SimpleNamespace(tag="mmearth-1", read_traffic=meter.read)
    settings = CollectSettings(locations=Path(), store=Path(), project=project, emulator=emulator)
    return ledger.Ledger(settings, plan, source)  # type: ignore[arg-type]


def test_what_the_service_reports_is_kept_with_the_store_and_said(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    session = requests.Session()
    session.trust_env = False
    said = {"timeSeries": [series("highvolume", ("2026-05-01T23:59:00Z", 7200.0))]}
    with monitoring([(200, said), (403, {})]) as (url, asked):
        monkeypatch.setattr(ledger, "eecu_seconds", partial(eecu_seconds, url=url, session=session))
        book = opened(plan, "p")
        assert book.words(1234) == "1,234 requests"
        book.ask()
        assert book.words(1234) == "1,234 requests, 7,200 EECU-seconds of the store reported"
        with caplog.at_level(logging.WARNING):
            book.ask()
        assert "EECU-seconds are not in the account: Cloud Monitoring answered 403" in caplog.text
        book.ask_now_and_then()
        assert len(asked) == 2, "it is asked every five minutes at most"
    account = read_account(plan.store)
    assert account is not None
    assert account.eecu_seconds == {"2026-05-01": {"highvolume": 7200.0}}
    assert account.traffic["computePixels"].sent == 1
    shown = {row["what"]: row["so far"] for row in account_rows(account, stored=0, bytes_stored=0)}
    assert shown["EECU-hours in 2026-05"] == "2.00"


def test_nobody_is_asked_what_an_emulator_has_used(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    with monitoring([]) as (url, asked):
        monkeypatch.setattr(ledger, "eecu_seconds", partial(eecu_seconds, url=url))
        opened(plan, "p", "http://127.0.0.1:9").ask()
        opened(plan, None, "http://127.0.0.1:9").ask()
        assert asked == []
    account = read_account(plan.store)
    assert account is not None
    shown = {row["what"]: row["so far"] for row in account_rows(account, stored=0, bytes_stored=0)}
    assert (shown["EECU-seconds"], account.sessions) == ("not reported", 2)
