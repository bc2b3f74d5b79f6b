"""What the installed earthengine-api wheel says of the service: its discovery document and algorithm signatures.

The client's own test data holds both; the wheel is found without importing ``ee``, because importing it would set up
the client inside the server.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Parameter:
    """One parameter of an algorithm: its Earth Engine type, whether it may be left out, and its default."""

    name: str
    type: str
    optional: bool
    default: Any


@dataclass(frozen=True)
class Signature:
    """An algorithm's name, parameters in order, and return type."""

    name: str
    parameters: Mapping[str, Parameter]
    returns: str


def _file(name: str) -> Path:
    spec = importlib.util.find_spec("ee")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "the emulator reads its signatures from earthengine-api, which is not installed; "
            "install it with: pip install 'mmearth[emulator]'"
        )
    return Path(spec.origin).parent / "tests" / name


@cache
def algorithms_document() -> bytes:
    """The answer to GET /v1/projects/P/algorithms."""
    return _file("algorithms.json").read_bytes()


@cache
def discovery_document() -> bytes:
    """The answer to GET /$discovery/rest: the wheel's document with the version that the client asks for."""
    text = _file("cloud_api_discovery_document.json").read_text(encoding="utf-8")
    return text.replace("v1alpha", "v1").encode()


@cache
def signatures() -> Mapping[str, Signature]:
    """Every algorithm of the service by name."""
    result: dict[str, Signature] = {}
    for entry in json.loads(algorithms_document())["algorithms"]:
        name = entry["name"].removeprefix("algorithms/")
        parameters = {
            argument["argumentName"]: Parameter(
                name=argument["argumentName"],
                type=argument["type"],
                optional=bool(argument.get("optional", False)),
                default=argument.get("defaultValue"),
            )
            for argument in entry.get("arguments", [])
        }
        result[name] = Signature(name=name, parameters=parameters, returns=entry["returnType"])
    return result
