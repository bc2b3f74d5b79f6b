"""Tests of a GPU run on a bare machine: python3 -m pytest tests/gpu, with torch, numpy and pytest."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest

from tests import bare_machine

if find_spec("jaxtyping") is None:
    bare_machine.stand_in()


@pytest.fixture(params=["library", "own"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions of visible sites, and layer norms, go one way, not the one that is quicker here."""
    from mmearth_train import depthwise, layer_norm

    convolution, weight_gradient, number = depthwise.convolve_grid, depthwise.grid_weight_gradient, 0
    if request.param == "own":
        kernels = pytest.importorskip("mmearth_train.depthwise_gpu", reason="Triton is not made for this system")
        convolution, weight_gradient, number = kernels.convolve, kernels.weight_gradient, 1

    def chosen(choose: Callable[..., Any], way: Callable[..., Any]) -> Callable[..., Any]:
        """Dense images have no other way than the grid's, and a CPU has its own."""
        return lambda *site: found if len(found := choose(*site)) == 1 else (way,)

    monkeypatch.setattr(depthwise, "_convolutions", chosen(depthwise._convolutions, convolution))
    monkeypatch.setattr(depthwise, "_weight_gradients", chosen(depthwise._weight_gradients, weight_gradient))
    monkeypatch.setattr(layer_norm, "quickest", lambda ways, *arguments: ways[number](*arguments))
