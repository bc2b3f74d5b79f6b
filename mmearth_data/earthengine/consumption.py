"""What Earth Engine reports of its own cost: EECU-seconds by workload tag, through Cloud Monitoring.

No answer of computePixels or computeFeatures says what it cost. The service counts completed requests per project and
reports them, minutes later, as the metric ``project/cpu/usage_time`` with the labels ``workload_tag`` and
``compute_type`` (developers.google.com/earth-engine/guides/monitoring_usage); failed requests are not in it
(guides/computation_overview). It is asked for sums by day: the raw points, one per minute in which a request ended, are
tens of thousands for a run of weeks. ALIGN_SUM is the aligner for that, since ALIGN_DELTA interpolates where a period
has no point (cloud.google.com/monitoring/api/ref_v3/rest/v3/projects.alertPolicies#Aligner).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import ee
import requests
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import AuthorizedSession

MONITORING_URL = "https://monitoring.googleapis.com"
METRIC = "earthengine.googleapis.com/project/cpu/usage_time"
_TIMEOUT_SECONDS = 30.0
_PAGE_SIZE = 10_000


class NotReported(RuntimeError):  # noqa: N818 - says what is so; a collection does not fail for it
    """Cloud Monitoring does not say what was used; the message says why and what to do."""


def eecu_seconds(
    project: str, tag: str, since: datetime, *, url: str = MONITORING_URL, session: requests.Session | None = None
) -> dict[str, dict[str, float]]:
    """EECU-seconds of requests with the workload tag ``tag``, by UTC day and type of computation.

    From the day of ``since`` on, the whole of it.

    Asks as the user who logged in to Earth Engine, unless ``session`` is authorised otherwise. Raises NotReported.
    """
    asking, address = session or _authorised(), f"{url}/v3/projects/{project}/timeSeries"
    filters = f'metric.type = "{METRIC}" AND metric.labels.workload_tag = "{tag}"'
    days: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    try:
        for start, end, period in _spans(since.astimezone(UTC), datetime.now(UTC)):
            query = {
                "filter": filters,
                "interval.startTime": _stamp(start),
                "interval.endTime": _stamp(end),
                "aggregation.alignmentPeriod": f"{period.total_seconds():.0f}s",
                "aggregation.perSeriesAligner": "ALIGN_SUM",
                "pageSize": str(_PAGE_SIZE),
            }
            for series in _pages(asking, address, query):
                kind = str(series["metric"].get("labels", {}).get("compute_type", "unknown"))
                for point in series["points"]:
                    # A sum is dated to the end of its period, which is the next day's midnight.
                    until = datetime.fromisoformat(point["interval"]["endTime"]) - timedelta(microseconds=1)
                    days[f"{until.astimezone(UTC):%Y-%m-%d}"][kind] += float(point["value"]["doubleValue"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotReported("Cloud Monitoring gave an answer that is no list of time series") from error
    except (requests.RequestException, GoogleAuthError, ee.EEException) as error:
        raise NotReported(f"Cloud Monitoring cannot be asked: {' '.join(str(error).split())}") from error
    return {day: dict(sorted(kinds.items())) for day, kinds in sorted(days.items())}


def _spans(since: datetime, now: datetime) -> Iterator[tuple[datetime, datetime, timedelta]]:
    """The intervals to ask for and their alignment periods: the UTC days up to today's midnight, and today so far.

    Each is a whole number of periods, so their bounds are the same whichever end the service counts them from.
    """
    first, today = (moment.replace(hour=0, minute=0, second=0, microsecond=0) for moment in (since, now))
    minute = now.replace(second=0, microsecond=0)
    if first < today:
        yield first, today, timedelta(days=1)
    if today < minute:  # a period has a minute at least
        yield today, minute, minute - today


def _authorised() -> requests.Session:
    session: requests.Session = AuthorizedSession(ee.data.get_persistent_credentials())  # type: ignore[no-untyped-call]
    return session


def _pages(session: requests.Session, url: str, query: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Every time series, page after page."""
    while True:
        answer = session.get(url, params=query, timeout=_TIMEOUT_SECONDS)
        if answer.status_code != requests.codes.ok:
            raise NotReported(
                f"Cloud Monitoring answered {answer.status_code}; enable it with: gcloud services enable "
                "monitoring.googleapis.com, and let your account read it (roles/monitoring.viewer)"
            )
        page = answer.json()
        yield from page.get("timeSeries", ())
        if not page.get("nextPageToken"):
            return
        query = {**query, "pageToken": page["nextPageToken"]}


def _stamp(moment: datetime) -> str:
    """RFC 3339 in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
