"""Tests of a GPU run on a bare machine: python3 -m pytest tests/gpu, with torch, numpy and pytest."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest

from tests import bare_machine

if find_spec("jaxtyping") is None:
    bare_machine.stand_in()


@pytest.fixture(params=["grid", "sites"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions of visible sites go one way, not the one that is quicker here."""
    from mmearth_train import depthwise

    convolution, weight_gradient = depthwise.convolve_grid, depthwise.grid_weight_gradient
    if request.param == "sites":
        kernels = pytest.importorskip("mmearth_train.depthwise_gpu", reason="Triton is not made for this system")
        convolution, weight_gradient = kernels.convolve, kernels.weight_gradient

    def chosen(choose: Callable[..., Any], way: Callable[..., Any]) -> Callable[..., Any]:
        """Dense images have no other way than the grid's, and a CPU has its own."""
        return lambda *site: found if len(found := choose(*site)) == 1 else (way,)

    monkeypatch.setattr(depthwise, "_convolutions", chosen(depthwise._convolutions, convolution))
    monkeypatch.setattr(depthwise, "_weight_gradients", chosen(depthwise._weight_gradients, weight_gradient))
