"""The account of a store: what each process that collected it has sent and received, kept beside the plan.

    DIR/_plan/account/TIME-ID.json    one session: a process from its start to its end, or to its death

A session is the only writer of its file and always writes all that it has counted so far, so that whatever is killed,
nothing is counted twice. It writes before a shard is committed: what is lost with a killed process is only what it
had sent for uncommitted work in the last seconds. Times in it are of the log alone; no array or table has them.
"""

from __future__ import annotations

import json
import os
import platform
import re
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from mmearth_data.store.commits import committed, read_record
from mmearth_data.store.files import StoreError, each, write_atomic
from mmearth_data.store.objects import Place, at
from mmearth_data.traffic import Count, Traffic, total

KEEP_SECONDS = 5.0
"""How often, at most, a session is written while it works."""
REQUESTS_PER_BATCH = 2
"""computeFeatures requests that resolve one batch of locations."""
FEATURES_KIND, PIXELS_KIND = "computeFeatures", "computePixels"
_SESSION = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}\.json")

ONLINE = "online"
"""The type of computation of what goes to the standard endpoint: resolving."""
EecuSeconds = Mapping[str, Mapping[str, float]]
"""EECU-seconds by UTC day (YYYY-MM-DD) and type of computation (``online``, ``highvolume``, ``batch``)."""


@dataclass(frozen=True)
class SessionRecord:
    """What one session has come to: its process, its beginning and last sign of life (ISO 8601, UTC), its traffic.

    ``eecu_seconds`` is what Cloud Monitoring said of the whole store when this session asked.
    """

    host: str
    process: int
    started: str
    updated: str
    traffic: Traffic = field(default_factory=dict)
    eecu_seconds: EecuSeconds = field(default_factory=dict)

    @property
    def span(self) -> tuple[datetime, datetime]:
        """From when to when it was at work."""
        return datetime.fromisoformat(self.started), datetime.fromisoformat(self.updated)


class Session:
    """This process's own part of a store's account; ``traffic`` tells what it has sent so far."""

    def __init__(self, store: str | Place, traffic: Callable[[], Traffic]) -> None:
        self._traffic = traffic
        self._started = _now()
        stamp = self._started.strftime("%Y%m%dT%H%M%SZ")
        self._file = _folder(store) / f"{stamp}-{uuid.uuid4().hex[:8]}.json"
        self._eecu_seconds: EecuSeconds = {}
        self._lock = threading.Lock()
        self._kept = 0.0
        self._begun = False

    def begin(self) -> None:
        """Say that work begins: what this process waited for before is no time at work."""
        if not self._begun:
            self._begun, self._started = True, _now()
        self.keep(now=True)

    def keep(self, *, now: bool = False) -> None:
        """Write what was counted so far: at once if ``now``, else every KEEP_SECONDS; raises StoreError."""
        if not now and self._fresh():
            return
        with self._lock:
            if not now and self._fresh():
                return  # another thread was faster
            self._kept = time.monotonic()
            record = SessionRecord(
                host=platform.node(),
                process=os.getpid(),
                started=self._started.isoformat(),
                updated=_now().isoformat(),
                traffic=self._traffic(),
                eecu_seconds=self._eecu_seconds,
            )
            write_atomic(self._file, (json.dumps(asdict(record), indent=1) + "\n").encode())

    def _fresh(self) -> bool:
        return time.monotonic() - self._kept < KEEP_SECONDS

    def report(self, eecu_seconds: EecuSeconds) -> None:
        """Keep what Cloud Monitoring says of the whole store."""
        self._eecu_seconds = eecu_seconds
        self.keep(now=True)


@dataclass(frozen=True)
class Account:
    """All sessions of a store together.

    ``hours`` is the time in which at least one of them was at work, from when it first had its slots of the project's
    quota to its last sign of life: resolving, planning, retries, waits that the service asked for, and waits for slots
    that were lost on the way or that a cluster's machine takes for each shard are in it. ``eecu_seconds`` is the most
    that Cloud Monitoring ever said of each day, for it reports late and forgets after weeks.
    """

    sessions: int
    traffic: Traffic
    hours: float
    since: str
    eecu_seconds: EecuSeconds

    @property
    def eecu_seconds_by_type(self) -> dict[str, float]:
        """EECU-seconds over all days, by type of computation; empty where the service has reported none."""
        types: defaultdict[str, float] = defaultdict(float)
        for day in self.eecu_seconds.values():
            for name, seconds in day.items():
                types[name] += seconds
        return dict(sorted(types.items()))

    @property
    def eecu_hours_by_month(self) -> dict[str, float]:
        """EECU-hours by UTC month (YYYY-MM), which the monthly tiers count in."""
        months: defaultdict[str, float] = defaultdict(float)
        for day, types in self.eecu_seconds.items():
            months[day[:7]] += sum(types.values()) / 3600
        return dict(sorted(months.items()))

    def to_json(self) -> dict[str, object]:
        """The same as JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class Measured:
    """What a store has cost per stored tile, and the rate it was collected at; None where that is not known.

    ``eecu_seconds_per_batch`` is what one request for a batch of locations has cost.
    """

    requests_per_tile: float | None = None
    bytes_received_per_tile: float | None = None
    bytes_stored_per_tile: float | None = None
    tiles_per_hour: float | None = None
    eecu_seconds_per_tile: float | None = None
    eecu_seconds_per_batch: float | None = None


def read_account(store: str | Place) -> Account | None:
    """The account of the store, None where nobody kept one; raises StoreError where a session is damaged."""
    sessions = list(_sessions(_folder(store)))
    if not sessions:
        return None
    traffic: dict[str, Count] = {}
    eecu: dict[str, dict[str, float]] = {}
    for session in sessions:
        for kind, count in session.traffic.items():
            traffic[kind] = traffic.get(kind, Count()) + count
        for day, types in session.eecu_seconds.items():
            known = eecu.setdefault(day, {})
            known.update({name: max(seconds, known.get(name, 0.0)) for name, seconds in types.items()})
    return Account(
        sessions=len(sessions),
        traffic=dict(sorted(traffic.items())),
        hours=_hours(session.span for session in sessions),
        since=min(session.started for session in sessions),
        eecu_seconds=dict(sorted(eecu.items())),
    )


def measured(account: Account | None, stored: int, bytes_stored: int) -> Measured:
    """What the ``stored`` tiles, of ``bytes_stored`` bytes together, have cost according to the account."""
    if account is None or not stored:
        return Measured()
    eecu, nothing = account.eecu_seconds_by_type, Count()
    pixels = account.traffic.get(PIXELS_KIND, nothing).sent
    features = account.traffic.get(FEATURES_KIND, nothing).sent
    online = eecu.pop(ONLINE, 0.0)
    return Measured(
        requests_per_tile=pixels / stored if pixels else None,
        bytes_received_per_tile=total(account.traffic).bytes_received / stored if pixels else None,
        bytes_stored_per_tile=bytes_stored / stored,
        tiles_per_hour=stored / account.hours if account.hours else None,
        eecu_seconds_per_tile=sum(eecu.values()) / stored if eecu else None,
        eecu_seconds_per_batch=REQUESTS_PER_BATCH * online / features if online and features else None,
    )


def committed_bytes(store: str | Place) -> int:
    """Bytes of every committed shard; raises StoreError where a commit record is damaged."""
    records = each(at(store), lambda shard: read_record(store, shard), sorted(committed(store)))
    return sum(file.size for record in records for file in record.files.values())


def _folder(store: str | Place) -> Place:
    return at(store) / "_plan" / "account"


def _now() -> datetime:
    return datetime.now(UTC)


def _sessions(folder: Place) -> Iterator[SessionRecord]:
    if folder.is_dir():
        files = sorted(entry.name for entry in folder.iterdir() if _SESSION.fullmatch(entry.name))
        yield from each(folder, lambda name: _read(folder / name), files)


def _read(file: Place) -> SessionRecord:
    try:
        document = json.loads(file.read_bytes())
        counts = {kind: Count(**count) for kind, count in document.pop("traffic").items()}
        return SessionRecord(**document, traffic=counts)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{file} is damaged; remove it, and the account goes on without that session") from error


def _hours(spans: Iterable[tuple[datetime, datetime]]) -> float:
    """Hours covered by at least one of the spans."""
    seconds, reached = 0.0, datetime.min.replace(tzinfo=UTC)
    for start, end in sorted(spans):
        begins = max(start, reached)
        if end > begins:
            seconds += (end - begins).total_seconds()
            reached = end
    return seconds / 3600
