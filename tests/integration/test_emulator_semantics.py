"""Every algorithm through the real client: its answer is the one that was worked out without Earth Engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import mmearth_data.emulator.algorithms  # noqa: F401 - registers every algorithm
from mmearth_data.emulator.registry import ALGORITHMS
from mmearth_data.emulator.world import build
from tests.emulated import connected, start_emulator
from tests.online.answers import rasters, reducing
from tests.online.answers.asking import alike, answers, used
from tests.online.semantics import CASES


@pytest.fixture(scope="module", autouse=True)
def _connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    archive = build("flat", 0)
    with start_emulator(tmp_path_factory.mktemp("log"), archive=archive) as running, connected(running.url):
        yield


def test_every_answer_is_the_one_worked_out_without_earth_engine() -> None:
    wrong = [
        f"{case.algorithm}: {got!r}, not {case.expected!r}"
        for case, got in zip(CASES, answers(CASES), strict=True)
        if not alike(got, case.expected, case.relative)
    ]
    assert not wrong, "\n".join(wrong)


def test_every_algorithm_is_asked_by_a_case_of_its_own() -> None:
    assert {case.algorithm for case in CASES} == set(ALGORITHMS)
    elsewhere = [case.algorithm for case in CASES if case.algorithm not in used(case.ask())]
    assert elsewhere == []


def test_an_operation_on_pixels_that_did_nothing_would_be_noticed() -> None:
    untouched = rasters.HERE, {"r": rasters.HERE}
    unmoved = [
        case.algorithm
        for case in (*rasters.CASES, *reducing.CASES)
        if any(alike(same, case.expected, case.relative) for same in untouched)
    ]
    assert unmoved == []
