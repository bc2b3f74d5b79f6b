"""EECU-seconds from Cloud Monitoring, asked over HTTP of a server that answers as its reference documents."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
import requests

from mmearth_data.earthengine.consumption import NotReported, eecu_seconds

SINCE = datetime(2026, 5, 1, 14, tzinfo=timezone(timedelta(hours=2)))


def series(compute_type: str, *points: tuple[str, float]) -> dict[str, object]:
    """A DELTA time series (projects.timeSeries reference), one point per minute that something ended in."""
    return {
        "metric": {
            "type": "earthengine.googleapis.com/project/cpu/usage_time",
            "labels": {"compute_type": compute_type, "workload_tag": "mmearth-1"},
        },
        "resource": {"type": "earthengine.googleapis.com/Project", "labels": {"project_id": "p"}},
        "metricKind": "DELTA",
        "valueType": "DOUBLE",
        "points": [
            {"interval": {"startTime": end, "endTime": end}, "value": {"doubleValue": used}} for end, used in points
        ],
    }


@contextmanager
def monitoring(
    answers: list[tuple[int, object]] | Callable[[dict[str, str]], object],
) -> Iterator[tuple[str, list[str]]]:
    """Its URL, and the paths it was asked for; one answer after the other, or what follows from the query."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if callable(answers):
                status, body = 200, answers(dict(parse_qsl(urlsplit(self.path).query)))
            else:
                status, body = answers[len(asked) - 1]
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()


def ask(url: str) -> dict[str, dict[str, float]]:
    session = requests.Session()
    session.trust_env = False
    return eecu_seconds("p", "mmearth-1", SINCE, url=url, session=session)


NOW = datetime.now(UTC)
MIDNIGHT = NOW.replace(hour=0, minute=0, second=0, microsecond=0)


def aligned(query: dict[str, str], raw: dict[str, list[tuple[datetime, float]]]) -> list[dict[str, object]]:
    """ALIGN_SUM as it is documented: the interval in periods, each with the sum of its points, dated to its end."""
    assert query["aggregation.perSeriesAligner"] == "ALIGN_SUM"
    start, end = (datetime.fromisoformat(query[f"interval.{name}Time"]) for name in ("start", "end"))
    period = timedelta(seconds=int(query["aggregation.alignmentPeriod"].removesuffix("s")))
    assert period >= timedelta(minutes=1)
    assert not (end - start) % period
    found = []
    for kind, points in raw.items():
        sums = [
            (f"{start + (k + 1) * period:%Y-%m-%dT%H:%M:%SZ}", sum(inside))
            for k in range((end - start) // period)
            if (inside := [used for at, used in points if start + k * period < at <= start + (k + 1) * period])
        ]
        found += [series(kind, *sums)] if sums else []
    return found


def test_it_is_asked_for_sums_by_day_and_today_so_far() -> None:
    raw = {
        "highvolume": [
            (datetime(2026, 5, 1, 12, 1, tzinfo=UTC), 1.0),
            (datetime(2026, 5, 1, 23, 59, tzinfo=UTC), 0.5),
            (datetime(2026, 5, 2, 0, 1, tzinfo=UTC), 2.0),
            (datetime(2026, 5, 2, 7, 0, tzinfo=UTC), 0.25),
            (MIDNIGHT - timedelta(minutes=1), 16.0),
        ],
        "online": [(datetime(2026, 5, 2, 7, 0, tzinfo=UTC), 9.0)],
    }
    expected = {
        "2026-05-01": {"highvolume": 1.5},
        "2026-05-02": {"highvolume": 2.25, "online": 9.0},
        f"{MIDNIGHT - timedelta(days=1):%Y-%m-%d}": {"highvolume": 16.0},
    }
    if timedelta(minutes=5) < NOW - MIDNIGHT:
        raw["highvolume"].append((MIDNIGHT + timedelta(minutes=1), 32.0))
        expected[f"{MIDNIGHT:%Y-%m-%d}"] = {"highvolume": 32.0}
    with monitoring(lambda query: {"timeSeries": aligned(query, raw)}) as (url, asked):
        assert ask(url) == expected
    queries = [parse_qs(urlsplit(path).query) for path in asked]
    assert queries[0]["interval.startTime"] == ["2026-05-01T00:00:00Z"]
    assert queries[0]["interval.endTime"] == [f"{MIDNIGHT:%Y-%m-%dT%H:%M:%SZ}"]
    assert queries[0]["aggregation.alignmentPeriod"] == ["86400s"]
    assert len(queries) <= 2, "however long ago it began"


def test_every_page_counts() -> None:
    first = {"timeSeries": [series("highvolume", ("2026-05-02T00:00:00Z", 1.5))], "nextPageToken": "t/2"}
    second = {"timeSeries": [series("highvolume", ("2026-05-03T00:00:00Z", 0.25))]}
    with monitoring([(200, first), (200, second), (200, {})]) as (url, asked):
        assert ask(url) == {"2026-05-01": {"highvolume": 1.5}, "2026-05-02": {"highvolume": 0.25}}
    queries = [parse_qs(urlsplit(path).query) for path in asked]
    assert {urlsplit(path).path for path in asked} == {"/v3/projects/p/timeSeries"}
    assert queries[0]["filter"] == [
        'metric.type = "earthengine.googleapis.com/project/cpu/usage_time" AND metric.labels.workload_tag = "mmearth-1"'
    ]
    assert [query.get("pageToken") for query in queries[:2]] == [None, ["t/2"]]


def test_nothing_used_is_an_empty_answer() -> None:
    with monitoring(lambda _: {}) as (url, _):
        assert ask(url) == {}


def test_a_service_that_does_not_tell_is_not_a_use_of_nothing() -> None:
    with (
        monitoring([(403, {"error": {"code": 403}})]) as (url, _),
        pytest.raises(NotReported, match="answered 403; enable it with"),
    ):
        ask(url)
    with (
        monitoring([(200, b"<html>")]) as (url, _),
        pytest.raises(NotReported, match="no list of time series"),
    ):
        ask(url)
    with (
        monitoring([(200, {"timeSeries": [{"points": [{}]}]})]) as (url, _),
        pytest.raises(NotReported, match="no list of"),
    ):
        ask(url)
    with pytest.raises(NotReported, match="cannot be asked"):
        ask("http://127.0.0.1:9")
