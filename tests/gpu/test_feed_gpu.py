"""Batches come to a GPU whole, while it computes, and in memory that does not grow; run: python -m pytest tests/gpu."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmearth_train.feed import placed

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

ROOT = Path(__file__).parents[2]
SIDE = 1664
"""So that each modality has more than the 10 MiB from which on torch's allocator gives a tensor a place of its own."""
MIB = 2**20


def a_batch(number: int) -> dict[str, Tensor]:
    """Every dtype that stores have, and values that are different in each batch."""
    values = (torch.arange(4 * SIDE**2, dtype=torch.int32) * (2 * number + 1) % 199).view(4, SIDE, SIDE)
    return {
        "sentinel2": values[:2].to(torch.uint16),
        "aster": values[2:].to(torch.int16),
        "era5": values[0].float(),
        "dynamic_world": values.to(torch.uint8),
        "location_id": torch.arange(number, number + 7),
    }


def used_again(count: int) -> Iterator[dict[str, Tensor]]:
    """``count`` batches in pinned memory that is written anew as soon as the next one is asked for, as a ring's is."""
    memory = {name: torch.empty_like(values).pin_memory() for name, values in a_batch(0).items()}
    for number in range(count):
        for name, values in a_batch(number).items():
            memory[name].copy_(values)
        yield memory


def reserved_bytes() -> int:
    """What the allocator takes for a batch: multiples of 2 MiB."""
    return sum(-(-values.nbytes // (2 * MIB)) * 2 * MIB for values in a_batch(0).values())


def busy() -> Tensor:
    """One, after work that keeps the GPU occupied long after its host has gone on."""
    matrix = torch.eye(4096, device="cuda")
    for _ in range(20):
        matrix = matrix @ matrix
    return matrix[0, 0].long()


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[name].numpy().tobytes() == b[name].numpy().tobytes() for name in a)


def test_values_are_those_of_the_host_and_stay_while_a_batch_is_kept() -> None:
    kept = list(placed(used_again(6), torch.device("cuda")))
    found = [{name: values.cpu() for name, values in batch.items()} for batch in kept]
    assert all(equal(batch, a_batch(number)) for number, batch in enumerate(found))


def test_a_batch_that_is_computed_on_is_not_overwritten_though_its_host_has_dropped_it() -> None:
    sums = []
    for batch in placed(used_again(8), torch.device("cuda")):
        late = busy()  # what follows waits for it on the GPU, not here
        sums.append([late * values.long().sum() for values in batch.values()])
    found = [[total.item() for total in totals] for totals in sums]
    assert found == [[values.long().sum().item() for values in a_batch(number).values()] for number in range(8)]


def test_epoch_after_epoch_no_more_memory_is_reserved() -> None:
    reserved = []
    for _ in range(6):
        for batch in placed(used_again(4), torch.device("cuda")):
            assert len(batch["location_id"]) == 7
        torch.cuda.synchronize()
        reserved.append(torch.cuda.memory_reserved())
    # A third batch is there at once or later; a stream for each epoch would keep two more of every one of them.
    assert reserved[-1] - reserved[0] <= reserved_bytes()


def test_a_host_that_is_far_ahead_of_its_gpu_does_not_fill_it() -> None:
    busy()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    for batch in placed(used_again(12), torch.device("cuda")):
        busy().add_(len(batch))
    torch.cuda.synchronize()
    matrices = 3 * 4096**2 * 4
    assert torch.cuda.memory_reserved() - before <= 3 * reserved_bytes() + matrices + 4 * MIB


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
def test_batches_of_another_gpu_leave_the_first_alone() -> None:
    """A process that merely touched the first GPU would hold half a gigabyte there."""
    program = (
        "import torch; import tests.gpu.conftest; from tests.gpu.test_feed_gpu import placed, used_again; "
        "torch.cuda.set_device(1); "
        "found = [b['era5'].device.index for b in placed(used_again(3), torch.device('cuda', 1))]; "
        "print(found, torch._C._cuda_hasPrimaryContext(0))"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "[1, 1, 1] False", result.stderr
