"""The pace of the real client: back under the emulator's limit by itself, and no wait outlives a stop or a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ee
import pytest

from mmearth_data.collection.requests import Requests, Retry
from mmearth_data.earthengine.errors import TooLarge
from mmearth_data.earthengine.session import EarthEngineSource, connect
from mmearth_data.emulator import limits
from mmearth_data.pace import Interrupted, rate_share
from mmearth_data.source import Quota
from tests.emulated import Running, SmallArchive, start_emulator
from tests.integration.test_earthengine_session import Scripted, ask, failing, scripted

RETRY = Retry(timeout=60, quota_wait=0.05, wait_max=0.5)


def many(emulator: Running, slots: int, threads: int, requests: int) -> list[int]:
    """The statuses, in order, of so many requests of so many threads that repeat what is refused."""
    source, sender = connect(None, emulator.url, slots=slots), Requests(RETRY)

    def one(number: int) -> None:
        grid = {
            "dimensions": {"width": 1, "height": 1},
            "crsCode": "EPSG:32632",
            "affineTransform": {"scaleX": 10, "scaleY": -10, "translateX": number * 10, "translateY": 0},
        }
        body = {"expression": ee.Image.constant(number), "fileFormat": "NPY", "grid": grid}
        assert sender.call(lambda: source.compute_pixels(body))

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, range(requests)))
    return [entry["status"] for entry in emulator.requests("computePixels")]


def test_more_slots_than_the_service_allows_shrink_to_what_it_allows(tmp_path: Path) -> None:
    with start_emulator(tmp_path, archive=SmallArchive([]), latency=800) as emulator:
        statuses = many(emulator, slots=limits.MAX_CONCURRENT_REQUESTS + 24, threads=90, requests=300)
    refused = [index for index, status in enumerate(statuses) if status == 429]
    assert statuses.count(200) == 300
    assert refused, "the emulator refuses what is too much"
    assert sum(index >= 150 for index in refused) < 0.05 * (len(statuses) - 150)


def test_within_the_slots_nothing_is_refused_and_the_rate_is_our_share(tmp_path: Path) -> None:
    with start_emulator(tmp_path, archive=SmallArchive([]), latency=1) as emulator:
        began = time.monotonic()
        statuses = many(emulator, slots=20, threads=40, requests=75)
        took = time.monotonic() - began
    assert statuses == [200] * 75
    assert 75 / took <= rate_share(20)


def stopped_while(work: Callable[[Callable[[], bool]], object], started: threading.Event) -> type[BaseException]:
    """What ``work`` raises when it is asked to stop once ``started``; fails where it goes on regardless."""
    stop, outcome = threading.Event(), list[type[BaseException]]()

    def run() -> None:
        try:
            work(stop.is_set)
        except (Quota, Interrupted) as error:
            outcome.append(type(error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(30)
    stop.set()
    thread.join(timeout=30)
    assert not thread.is_alive(), "the wait outlived the stop"
    return outcome[0]


def test_a_wait_before_a_repetition_ends_with_the_run() -> None:
    started = threading.Event()

    def answer(handler: Scripted) -> None:
        failing(429, "Too many requests.")(handler)
        started.set()

    with scripted(answer) as (url, posts):
        source, patient = connect(None, url), Retry(quota_wait=3600, wait_max=3600, timeout=1e6)
        assert stopped_while(lambda ends: Requests(patient, ends).call(lambda: ask(source)), started) is Quota
        assert len(posts) == 1


def test_a_wait_for_a_slot_ends_with_the_run() -> None:
    started, release = threading.Event(), threading.Event()

    def answer(handler: Scripted) -> None:
        started.set()
        release.wait(60)
        failing(500, "late")(handler)

    def holding(source: EarthEngineSource) -> None:
        with pytest.raises(Exception, match="late"):
            ask(source)

    with scripted(answer) as (url, posts):
        source = connect(None, url, slots=1)
        holder = threading.Thread(target=holding, args=(source,))
        holder.start()
        assert stopped_while(lambda ends: Requests(RETRY, ends).call(lambda: ask(source)), started) is Interrupted
        assert len(posts) == 1
        release.set()
        holder.join()


def test_an_answer_that_trickles_ends_at_the_deadline() -> None:
    def trickle(handler: Scripted) -> None:
        handler.reply(200, b"x", "application/octet-stream", length=10_000)
        for _ in range(300):
            try:
                handler.wfile.write(b"x")
                handler.wfile.flush()
            except OSError:
                break
            time.sleep(0.1)
        handler.close_connection = True

    with scripted(trickle) as (url, _):
        source = connect(None, url, deadline=1.0)
        with pytest.raises(TooLarge, match="no whole answer within 1 s"):
            ask(source)
