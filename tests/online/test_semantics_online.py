"""The real service and the emulator are asked the same; every difference is named by its algorithm.

Run with ``MMEARTH_PROJECT=my-project python -m pytest tests/online`` after ``earthengine authenticate``.
"""

from __future__ import annotations

import os
from typing import Any

import ee
import pytest
from ee.ee_exception import EEException

from mmearth_data.emulator.world import build
from tests.emulated import connected, start_emulator
from tests.online.answers.asking import alike, answers
from tests.online.semantics import CASES, QUESTIONS

TOLERANCE = 1e-6
"""Relative; of measures on the Earth, where the service's spheroid is not documented, a thousandth."""
MEASURES = ("Geometry.", "Image.pixelArea", "Projection.nominalScale")


def _answer(name: str) -> Any:
    try:
        return QUESTIONS[name]().getInfo()
    except EEException as error:
        return f"refused: {error}"


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with start_emulator(tmp_path_factory.mktemp("log"), archive=build("flat", 0)) as running, connected(running.url):
        return {name: _answer(name) for name in QUESTIONS}


@pytest.fixture(scope="module")
def service() -> None:
    project = os.environ.get("MMEARTH_PROJECT")
    if not project:
        pytest.skip("MMEARTH_PROJECT names no Google Cloud project with Earth Engine")
    ee.Reset()
    ee.Initialize(project=project)


@pytest.fixture(scope="module")
def real(service: None, emulated: dict[str, Any]) -> dict[str, Any]:
    return {name: _answer(name) for name in QUESTIONS}


def test_the_emulator_answers_every_question(emulated: dict[str, Any]) -> None:
    refused = {name: answer for name, answer in emulated.items() if str(answer).startswith("refused")}
    assert refused == {}


def test_the_service_gives_the_answers_that_the_emulator_is_held_to(emulated: dict[str, Any], service: None) -> None:
    different = [
        f"{case.algorithm}: {got!r} there, {case.expected!r} expected"
        for case, got in zip(CASES, answers(CASES), strict=True)
        if not alike(got, case.expected, max(case.relative, TOLERANCE))
    ]
    assert not different, "\n".join(different)


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_service_and_the_emulator_agree(name: str, real: dict[str, Any], emulated: dict[str, Any]) -> None:
    tolerance = 1e-3 if name.startswith(MEASURES) else TOLERANCE
    assert alike(real[name], emulated[name], tolerance), f"{name}: {real[name]} there, {emulated[name]} here"
