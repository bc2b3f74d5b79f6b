"""Algorithms are checked against Earth Engine's signatures when they are registered, and deep graphs are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mmearth_data.emulator.assets import ImageAsset
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.registry import ALGORITHMS, algorithm
from mmearth_data.emulator.service import Service
from mmearth_data.emulator.wheel import signatures
from tests.emulated import SmallArchive


def test_every_handler_takes_parameters_that_exist_and_all_that_are_required() -> None:
    assert len(ALGORITHMS) > 100
    for name, known in ALGORITHMS.items():
        parameters = signatures()[name].parameters
        assert known.takes <= parameters.keys()
        assert {p.name for p in parameters.values() if not p.optional} <= known.takes


def test_a_misnamed_algorithm_or_parameter_fails_at_import() -> None:
    with pytest.raises(TypeError, match=r"no algorithm 'Image.ad'"):
        algorithm("Image.ad")(lambda image1, image2: None)
    with pytest.raises(TypeError, match="has no parameter image3"):
        algorithm("Image.add")(lambda image1, image2, image3: None)
    with pytest.raises(TypeError, match="requires image2"):
        algorithm("Image.add")(lambda image1: None)


def _sum(left: Any, right: Any) -> dict[str, Any]:
    return {"functionInvocationValue": {"functionName": "Number.add", "arguments": {"left": left, "right": right}}}


def test_a_shared_node_is_evaluated_once_however_often_it_is_referred_to() -> None:
    """2^60 by sixty doublings: without memory this would take 2^60 additions."""
    values: dict[str, Any] = {"0": {"constantValue": 1}}
    for i in range(60):
        values[str(i + 1)] = _sum({"valueReference": str(i)}, {"valueReference": str(i)})
    answer = Service(SmallArchive([])).answer("value:compute", {"expression": {"result": "60", "values": values}})
    assert answer.body == b'{"result":%d}' % 2**60


def test_a_closed_node_within_a_function_is_evaluated_once_per_request() -> None:
    lookups: list[str] = []

    class Counting(SmallArchive):
        def lookup(self, asset_id: str) -> Any:
            lookups.append(asset_id)
            return super().lookup(asset_id)

    load = {"functionInvocationValue": {"functionName": "Image.load", "arguments": {"id": {"constantValue": "x"}}}}
    get = {"object": load, "property": {"argumentReference": "name"}}
    function = {"functionDefinitionValue": {"argumentNames": ["name"], "body": "body"}}
    calls = [
        {"functionInvocationValue": {"functionReference": "f", "arguments": {"name": {"constantValue": name}}}}
        for name in ("a", "b", "c")
    ]
    values = {
        "f": function,
        "body": {"functionInvocationValue": {"functionName": "Element.get", "arguments": get}},
        "all": {"arrayValue": {"values": calls}},
    }
    service = Service(Counting([ImageAsset("x", (), {"a": 1, "b": 2, "c": 3}, None)]))
    answer = service.answer("value:compute", {"expression": {"result": "all", "values": values}})
    assert json.loads(answer.body) == {"result": [1, 2, 3]}
    assert lookups == ["x"]


def test_a_graph_too_deep_to_evaluate_is_a_400() -> None:
    node: dict[str, Any] = {"constantValue": 1}
    for _ in range(5000):
        node = _sum(node, {"constantValue": 1})
    with pytest.raises(ServiceError, match="nested too deeply") as caught:
        Service(SmallArchive([])).answer("value:compute", {"expression": {"result": "0", "values": {"0": node}}})
    assert caught.value.code == 400
