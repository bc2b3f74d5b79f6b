"""The pace of requests: at the service's limit, never over ours, shared by every thread, left at once on a stop."""

from __future__ import annotations

import heapq
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmearth_data import pace
from mmearth_data.pace import Interrupted, PaceError, Pacer, Pacers, Window, on_behalf_of


class SimulatedService:
    """A service with room for ``capacity(time)`` requests at once, each of a random length; a clock of its own."""

    def __init__(self, slots: int, capacity, seed: int) -> None:
        self.window, self.capacity = Window(slots), capacity
        self.draw = np.random.default_rng(seed)
        self.now, self.inside = 0.0, 0
        self.events: list[tuple[float, int, int, bool]] = []
        self.most_under_way = 0
        self.answered: list[float] = []
        self.refused: list[float] = []
        self.busy = 0.0

    def run(self, until: float) -> None:
        ticket = 0
        while self.now < until:
            while len(self.events) < self.window.places:
                begun, ticket = self.window.begin(), ticket + 1
                admitted = self.inside < self.capacity(self.now)
                self.inside += admitted
                length = self.draw.uniform(0.5, 1.5) if admitted else 0.02
                heapq.heappush(self.events, (self.now + length, ticket, begun, admitted))
            self.most_under_way = max(self.most_under_way, len(self.events))
            then, _, begun, admitted = heapq.heappop(self.events)
            self.busy += self.inside * (then - self.now)
            self.now = then
            if admitted:
                self.inside -= 1
                self.window.accepted()
                self.answered.append(then)
            else:
                self.window.refused(begun)
                self.refused.append(then)


@settings(max_examples=40, deadline=None)
@given(slots=st.integers(1, 64), share=st.floats(0.05, 1.5), seed=st.integers(0, 2**31))
def test_whatever_the_service_allows_is_used_and_little_is_refused(slots: int, share: float, seed: int) -> None:
    capacity = max(1, round(slots * share))
    service = SimulatedService(slots, lambda now: capacity, seed)
    service.run(400.0)
    assert service.most_under_way <= slots
    allowed = min(slots, capacity)
    assert service.busy / (allowed * service.now) > 0.75
    # A quarter more per window: a refusal per four windows at most, after those of the fall from ``slots`` at first.
    assert len(service.refused) < 0.35 * len(service.answered) / allowed + 4 * slots
    if capacity >= slots:
        assert not service.refused
        assert service.window.limit == slots


@settings(max_examples=20, deadline=None)
@given(slots=st.integers(8, 40), seed=st.integers(0, 2**31))
def test_it_gives_way_when_others_come_and_comes_back_when_they_go(slots: int, seed: int) -> None:
    service = SimulatedService(slots, lambda now: slots // 4 if 100 <= now < 200 else slots, seed)
    service.run(100.0)
    assert not service.refused
    service.run(130.0)
    assert service.window.limit < 0.6 * slots
    service.run(450.0)
    assert service.window.limit == slots
    assert all(100 <= moment < 202 for moment in service.refused)


def test_one_overload_is_one_decrease_however_many_it_refuses() -> None:
    window = Window(40)
    begun = [window.begin() for _ in range(40)]
    for ticket in begun:
        window.refused(ticket)
    assert window.limit == 40 * pace.DECREASE
    window.refused(window.begin())
    assert window.limit == pytest.approx(40 * pace.DECREASE**2)
    for _ in range(1000):
        window.refused(window.begin())
    assert window.places == 1
    with pytest.raises(PaceError, match="at least one request"):
        Pacers(0)


class Counted:
    def __init__(self) -> None:
        self.lock, self.inside, self.most, self.starts = threading.Lock(), 0, 0, list[float]()

    def hold(self, pacer: Pacer, seconds: float = 0.0) -> None:
        with pacer.turn():
            with self.lock:
                self.inside += 1
                self.most = max(self.most, self.inside)
                self.starts.append(time.monotonic())
            time.sleep(seconds)
            with self.lock:
                self.inside -= 1


def test_threads_share_the_places_and_the_rate() -> None:
    pacer, counted = Pacer(5, 200.0), Counted()
    with ThreadPoolExecutor(30) as pool:
        for future in [pool.submit(counted.hold, pacer, 0.002) for _ in range(120)]:
            future.result()
    assert counted.most <= 5
    starts = np.sort(counted.starts)
    # A thread notes its start later than it was given, so the span of the first to the last is what the rate bounds.
    assert len(starts) == 120
    assert starts[-1] - starts[0] >= 119 / 200.0 - 0.05


def test_lower_orders_go_first_and_equal_ones_in_turn() -> None:
    pacer, served = Pacer(1, 10_000.0), list[tuple[int, int]]()
    queued = threading.Semaphore(0)

    def work(order: int, number: int) -> None:
        with on_behalf_of(order, lambda: queued.release() or False), pacer.turn():
            served.append((order, number))

    threads = []
    with pacer.turn():
        for number, order in enumerate((3, 1, 2, 1, 3, 2)):
            threads.append(threading.Thread(target=work, args=(order, number)))
            threads[-1].start()
            assert queued.acquire(timeout=10)
    for thread in threads:
        thread.join()
    assert served == [(1, 1), (1, 3), (2, 2), (2, 5), (3, 0), (3, 4)]


def test_who_waits_leaves_when_the_run_ends_and_holds_nobody_up() -> None:
    pacer, stop, left = Pacer(1, 10_000.0), threading.Event(), list[type]()

    def work() -> None:
        try:
            with on_behalf_of(0, stop.is_set), pacer.turn():
                left.append(int)
        except Interrupted:
            left.append(Interrupted)

    with pacer.turn():
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        stop.set()
        for thread in threads:
            thread.join(timeout=20)
        assert left == [Interrupted] * 3
    with pacer.turn():
        pass


def test_a_place_is_given_back_whatever_happens_in_it() -> None:
    pacer = Pacer(2, 10_000.0)
    for _ in range(5):
        with pytest.raises(OSError, match="gone"), pacer.turn():
            raise OSError("gone")
    assert pacer.limit == 2.0
    with pacer.turn() as turn:
        turn.refused = True
    assert pacer.limit == pytest.approx(2 * pace.DECREASE)


def test_each_endpoint_has_its_own_pacer_and_a_share_of_the_rate() -> None:
    pacers = Pacers(10)
    assert pacers.of("a") is pacers.of("a")
    assert pacers.of("a") is not pacers.of("b")
    assert (pace.rate_share(10), pace.rate_share(40), pace.rate_share(80)) == (25.0, 100.0, 100.0)
