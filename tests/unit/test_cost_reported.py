"""EECU-seconds from Cloud Monitoring, asked over HTTP of a server that answers as its reference documents."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

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
def monitoring(answers: list[tuple[int, object]]) -> Iterator[tuple[str, list[str]]]:
    """Its URL, and the paths it was asked for; one answer after the other."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
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


def test_points_of_all_pages_are_summed_by_day_and_type() -> None:
    first = {
        "timeSeries": [series("highvolume", ("2026-05-01T23:59:00Z", 1.5), ("2026-05-02T00:01:00Z", 2.0))],
        "nextPageToken": "t/2",
    }
    second = {
        "timeSeries": [
            series("highvolume", ("2026-05-02T07:00:00Z", 0.25)),
            series("online", ("2026-05-02T07:00:00Z", 9.0)),
        ]
    }
    with monitoring([(200, first), (200, second)]) as (url, asked):
        assert ask(url) == {"2026-05-01": {"highvolume": 1.5}, "2026-05-02": {"highvolume": 2.25, "online": 9.0}}
    queries = [parse_qs(urlsplit(path).query) for path in asked]
    assert [urlsplit(path).path for path in asked] == ["/v3/projects/p/timeSeries"] * 2
    assert queries[0]["filter"] == [
        'metric.type = "earthengine.googleapis.com/project/cpu/usage_time" AND metric.labels.workload_tag = "mmearth-1"'
    ]
    assert queries[0]["interval.startTime"] == ["2026-05-01T12:00:00Z"]
    ends = datetime.fromisoformat(queries[0]["interval.endTime"][0])
    assert abs(datetime.now(UTC) - ends) < timedelta(minutes=5)
    assert [query.get("pageToken") for query in queries] == [None, ["t/2"]]


def test_nothing_used_is_an_empty_answer() -> None:
    with monitoring([(200, {})]) as (url, _):
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
