"""Asking many cases at once, and comparing what comes back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import ee
from ee.ee_exception import EEException

from tests.online.answers.case import Case

AT_ONCE = 100


def answers(cases: Sequence[Case]) -> list[Any]:
    """What the service that the client is connected to answers: a hundred in a request, one by one where that fails."""
    found: list[Any] = []
    for start in range(0, len(cases), AT_ONCE):
        part = cases[start : start + AT_ONCE]
        try:
            together: Any = ee.Dictionary({str(k): case.ask() for k, case in enumerate(part)}).getInfo()
            found += [together.get(str(k)) for k in range(len(part))]
        except EEException:
            found += [_alone(case) for case in part]
    return found


def _alone(case: Case) -> Any:
    try:
        alone: Any = ee.Dictionary({"0": case.ask()}).getInfo()
        return alone["0"]
    except EEException as error:
        return f"refused: {error}"


def alike(got: Any, expected: Any, relative: float) -> bool:
    """Whether an answer is what it should be, numbers within a relative tolerance."""
    if isinstance(got, dict) and isinstance(expected, dict):
        return got.keys() == expected.keys() and all(alike(got[key], expected[key], relative) for key in expected)
    if isinstance(got, list) and isinstance(expected, list):
        return len(got) == len(expected) and all(alike(a, b, relative) for a, b in zip(got, expected, strict=True))
    if isinstance(got, int | float) and isinstance(expected, int | float):
        return math.isclose(got, expected, rel_tol=relative, abs_tol=relative)
    return bool(got == expected)


def used(asked: Any) -> set[str]:
    """The algorithms that an expression names."""
    graph = ee.serializer.encode(ee.Dictionary({"0": asked}), for_cloud_api=True)
    found: set[str] = set()
    waiting: list[Any] = [graph]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if "functionName" in node:
                found.add(node["functionName"])
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node
    return found
