"""A run's part of its store's account: the estimate before it, what the service reports meanwhile, what it came to."""

from __future__ import annotations

import logging
import time
from datetime import datetime

from flows.artifacts import keep_table, publish_table
from flows.cost import account_rows, eecu_rows, estimate_rows
from flows.settings import CollectSettings
from mmearth_data.cost.account import Session, committed_bytes, read_account
from mmearth_data.cost.estimate import estimate
from mmearth_data.cost.work import measured_in, work_left
from mmearth_data.earthengine.consumption import NotReported, eecu_seconds
from mmearth_data.earthengine.session import EarthEngineSource
from mmearth_data.plan import Plan

logger = logging.getLogger(__name__)
ASK_SECONDS = 300.0
"""How often, at most, the service is asked what the store has cost; it learns that only minutes later itself."""


class Ledger:
    """What the flow itself does about cost; the tasks count through ``session``."""

    def __init__(self, settings: CollectSettings, plan: Plan, source: EarthEngineSource) -> None:
        self._plan, self._source = plan, source
        self._workers = settings.workers
        self._project = None if settings.emulator else settings.project
        self._asked = time.monotonic()
        self._eecu_seconds = 0.0
        self.session = Session(plan.store, source.read_traffic)
        self.session.keep(now=True)

    def show_estimate(self) -> None:
        """Show what is left to do and what it will ask for, unless nothing is left."""
        summary = self._plan.summary()
        work = work_left(self._plan, summary)
        if not work.tiles:
            return
        measured = measured_in(self._plan.store, read_account(self._plan.store), summary.stored)
        expected = estimate(work, self._workers, measured)
        publish_table("estimate", f"What collecting {work.tiles:,} tiles will ask for", estimate_rows(expected))
        keep_table("estimate-eecu", "EECU-hours by modality", eecu_rows(expected))

    def words(self, requests: int) -> str:
        """What the progress of a run says of cost."""
        reported = f", {self._eecu_seconds:,.0f} EECU-seconds of the store reported" if self._eecu_seconds else ""
        return f"{requests:,} requests{reported}"

    def ask_now_and_then(self) -> None:
        """Ask the service what the store has cost, every ASK_SECONDS at most."""
        if time.monotonic() - self._asked > ASK_SECONDS:
            self.ask()

    def ask(self) -> None:
        """Ask the service what the store has cost and keep the answer; an emulator has none, a failure is said."""
        self._asked = time.monotonic()
        account = read_account(self._plan.store)
        if not self._project or account is None:
            return
        try:
            reported = eecu_seconds(self._project, self._source.tag, datetime.fromisoformat(account.since))
        except NotReported as reason:
            logger.warning("EECU-seconds are not in the account: %s", reason)
            return
        self._eecu_seconds = sum(sum(types.values()) for types in reported.values())
        self.session.report(reported)

    def show_account(self, stored: int) -> None:
        """Show what the store has cost so far, this run included."""
        self.session.keep(now=True)
        self.ask()
        account = read_account(self._plan.store)
        if account is not None:
            rows = account_rows(account, stored, committed_bytes(self._plan.store))
            publish_table("cost", "What the store has cost so far", rows)
