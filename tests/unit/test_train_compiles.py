"""A step has what a compiler, a CUDA graph and a GPU that is never waited for need; shown without any of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmearth_train.distributed import ALONE
from mmearth_train.masking import split_patches
from mmearth_train.model import MPMAE
from mmearth_train.schedule import RECIPES, optimizer
from mmearth_train.step import Step, valid_counts
from tests.train_batches import random_batch, random_spec

MOVES = ("view", "permute", "select", "slice", "alias", "detach", "_to_copy", "device")
"""What CUDA does to uint16: it neither indexes it nor computes with it."""


def a_batch(n: int) -> dict[str, Tensor]:
    visible, masked = (torch.from_numpy(patches) for patches in split_patches(0, 0, np.arange(n), 49))
    return {**random_batch(n), "visible": visible, "masked": masked}


def loss_of(model: MPMAE, batch: dict[str, Tensor]) -> Tensor:
    return model.objective(model(batch, batch["visible"], batch["masked"]))


def moved(model: MPMAE, move: Callable[[Tensor], Tensor]) -> MPMAE:
    """The model with every parameter and buffer replaced."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(move(parameter).detach()))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, move(buffer))
    return model


class Recorded(TorchDispatchMode):
    """The name of every operation, with the tensors that go in and come out."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, list[Tensor]]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run it and note it."""
        found = function(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, found)) if isinstance(leaf, Tensor)]
        self.seen.append((function.name().split("::")[-1].split(".")[0], tensors))
        return found


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Nothing compiled stays for other tests."""
    yield
    torch._dynamo.reset()


def test_forward_and_backward_are_one_graph_with_the_same_numbers_and_are_not_compiled_again() -> None:
    torch.manual_seed(0)
    model = MPMAE(random_spec())
    backend = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(lambda batch: loss_of(model, batch), fullgraph=True, backend=backend, dynamic=False)
    for seed in (0, 1):
        batch = {**a_batch(2), **random_batch(2, seed=seed)}
        expected = loss_of(model, batch)
        expected.backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        model.zero_grad()
        found = compiled(batch)
        found.backward()
        assert found.item() == pytest.approx(expected.item(), rel=1e-6)
        assert len(gradients) == len(list(model.parameters()))
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-6, msg=name)
        model.zero_grad()
    assert backend.frame_count == 1


def test_no_value_decides_what_a_whole_step_does() -> None:
    """Fake tensors have shapes and no values: whatever asks for one (item, nonzero, a branch) raises."""
    model, batch = MPMAE(random_spec()), a_batch(2)
    with FakeTensorMode() as mode:
        moved(model, mode.from_tensor)
        fake = {name: mode.from_tensor(values) for name, values in batch.items()}
        for parts in (1, 2):
            adamw = optimizer(model, model.decays, RECIPES["default"])
            step = Step(model, adamw, ALONE, torch.device("cpu"), whole=parts == 1)
            found = step([fake] * parts, 1e-3, norm=True)
            assert found.sums.shape == (12,)


def test_nothing_of_a_step_lies_elsewhere_and_uint16_is_only_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device, which like a GPU is not the host: what the host makes would be a copy to wait for."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)  # the meta device has none to ask about
    model, batch = MPMAE(random_spec()), a_batch(2)
    moved(model, lambda tensor: tensor.to("meta"))
    there = {name: values.to("meta") for name, values in batch.items()}
    with Recorded() as recorded:
        loss_of(model, there).backward()
        valid_counts(model, there)
    assert {tensor.device.type for _, tensors in recorded.seen for tensor in tensors} == {"meta"}
    touched = {name for name, tensors in recorded.seen if any(t.dtype == torch.uint16 for t in tensors)}
    assert touched <= set(MOVES)
    assert "_to_copy" in touched
    assert {"depthwise", "depthwise_backward"} <= {name for name, _ in recorded.seen}
