"""The quickest of several ways is taken, and one that fails is not missed."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from mmearth_train.quickest import REPEATS, ROUNDS, quickest

Way = Callable[[Tensor], Tensor]


def way(calls: list[str], name: str, pause: Callable[[Tensor], bool] = lambda x: False) -> Way:
    """Doubles its argument, and takes long over those that ``pause`` says."""

    def double(x: Tensor) -> Tensor:
        calls.append(name)
        if pause(x):
            time.sleep(0.02)
        return 2 * x

    return double


def failing(error: Exception) -> Way:
    def fail(x: Tensor) -> Tensor:
        raise error

    return fail


def test_the_quicker_way_is_found_once_for_each_kind_of_arguments() -> None:
    calls: list[str] = []
    ways = (way(calls, "few", lambda x: len(x) > 2), way(calls, "many", lambda x: len(x) <= 2))
    taken = {}
    for length in (1, 4, 1, 4):
        x = torch.arange(length)
        assert torch.equal(quickest(ways, x), 2 * x)
        taken[length] = calls[-1]
    assert taken == {1: "few", 4: "many"}
    tried = len(calls)
    quickest(ways, torch.arange(4))
    quickest(ways, torch.arange(1))
    assert calls[tried:] == ["many", "few"]
    quickest(ways, torch.arange(4.0))
    assert len(calls) > tried + 3


def test_a_way_that_fails_is_named_once_and_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[str] = []
    ways = (failing(OSError("no compiler\nlong story")), way(calls, "slow", lambda x: True))
    for length in (1, 1, 2, 3):
        assert quickest(ways, torch.ones(length)).tolist() == length * [2]
    assert calls == 7 * ["slow"]
    assert len(caplog.messages) == 1
    assert caplog.messages[0].endswith("fail cannot be used here (OSError: no compiler); carrying on without it")


def test_a_way_that_finds_something_else_than_the_first_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[str] = []

    def wrong(x: Tensor) -> Tensor:
        return 2.1 * x

    def rounded(x: Tensor) -> Tensor:
        calls.append("rounded")
        return (2 * x).bfloat16()

    def lost(x: Tensor) -> Tensor:
        return x * torch.nan

    x = torch.rand(50)
    found = quickest((way(calls, "slow", lambda x: True), wrong, lost, rounded), x)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, (2 * x).bfloat16())
    assert [message.partition(" ")[0].rpartition(".")[2] for message in caplog.messages] == ["wrong", "lost"]
    assert all("(it computes something else than" in message for message in caplog.messages)


def test_data_that_is_not_finite_says_nothing_about_a_way(caplog: pytest.LogCaptureFixture) -> None:
    ways = (way([], "slow", lambda x: True), way([], "quick"))
    assert quickest(ways, torch.full((2, 7), torch.inf)).isinf().all()
    assert not caplog.messages


def test_a_gpu_is_waited_for_after_each_trial_and_never_while_a_graph_is_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is asked of a GPU, in order, by tensors that pretend to lie on one."""
    asked: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            asked.append("record")

        def elapsed_time(self, end: Event) -> float:
            return 1.0

    capturing = True
    monkeypatch.setattr(Tensor, "is_cuda", True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: asked.append("wait"))
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: asked.append("idle"))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    ways = (way(asked, "first"), way(asked, "second"))
    quickest(ways, torch.ones(1))
    assert asked == ["first"]
    asked.clear()
    capturing = False
    quickest(ways, torch.ones(1))
    trial = ["first", "wait", "second", "wait"]
    rounds = [["idle", "record", *REPEATS * [name], "record", "wait"] for name in ("first", "second")]
    assert asked == [*trial, *ROUNDS * [*rounds[0], *rounds[1]], "first"]


def test_where_all_ways_fail_the_first_ones_error_is_raised() -> None:
    ways = (failing(ValueError("of the first")), failing(OSError("of the second")))
    with pytest.raises(ValueError, match="of the first"):
        quickest(ways, torch.ones(2))


def test_too_little_memory_is_no_reason_to_go_another_way() -> None:
    """It would be slower for the rest of the run, when a smaller part is what helps."""
    calls: list[str] = []
    with pytest.raises(torch.OutOfMemoryError):
        quickest((way(calls, "first"), failing(torch.OutOfMemoryError("full"))), torch.ones(3))
