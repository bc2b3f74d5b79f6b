"""The real service and the emulator are asked the same; every difference is named by its algorithm.

Run with ``MMEARTH_PROJECT=my-project python -m pytest tests/online`` after ``earthengine authenticate``.
"""

from __future__ import annotations

import os
from typing import Any

import ee
import numpy as np
import pytest
from ee.ee_exception import EEException

from mmearth_data.emulator.world import build
from tests.emulated import connected, start_emulator
from tests.online.semantics import QUESTIONS

TOLERANCE = 1e-6
"""Relative; of measures on the Earth, where the service's spheroid is not documented, a thousandth."""
MEASURES = ("Geometry.", "Image.pixelArea", "Projection.nominalScale")


def _answer(name: str) -> Any:
    try:
        return QUESTIONS[name]().getInfo()
    except EEException as error:
        return f"refused: {error}"


def _alike(left: Any, right: Any, tolerance: float) -> bool:
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_alike(left[key], right[key], tolerance) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(_alike(a, b, tolerance) for a, b in zip(left, right, strict=True))
    if isinstance(left, int | float) and isinstance(right, int | float):
        return bool(np.isclose(left, right, rtol=tolerance, atol=tolerance))
    return bool(left == right)


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with start_emulator(tmp_path_factory.mktemp("log"), archive=build("flat", 0)) as running, connected(running.url):
        return {name: _answer(name) for name in QUESTIONS}


@pytest.fixture(scope="module")
def real() -> dict[str, Any]:
    project = os.environ.get("MMEARTH_PROJECT")
    if not project:
        pytest.skip("MMEARTH_PROJECT names no Google Cloud project with Earth Engine")
    ee.Reset()
    ee.Initialize(project=project)
    return {name: _answer(name) for name in QUESTIONS}


def test_the_emulator_answers_every_question(emulated: dict[str, Any]) -> None:
    refused = {name: answer for name, answer in emulated.items() if str(answer).startswith("refused")}
    assert refused == {}


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_service_and_the_emulator_agree(name: str, real: dict[str, Any], emulated: dict[str, Any]) -> None:
    tolerance = 1e-3 if name.startswith(MEASURES) else TOLERANCE
    assert _alike(real[name], emulated[name], tolerance), f"{name}: {real[name]} there, {emulated[name]} here"
