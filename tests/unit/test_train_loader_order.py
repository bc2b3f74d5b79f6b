"""The order of rows: a permutation that shuffles like a true one, dealt to processes that decode their own groups."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmearth_train.loader.order import batch_sizes, pieces, share_bounds, shuffled

GROUP = 32


def order_of(rows: NDArray[np.int64], batches: int, epoch: int = 0, window_rows: int = 1024) -> NDArray[np.int64]:
    sizes = batch_sizes(len(rows), batches)
    return shuffled(rows, rows + 1000, sizes, 5, epoch, rows_per_group=GROUP, window_rows=window_rows)


@settings(deadline=None)
@given(
    st.sets(st.integers(0, 3000), min_size=1, max_size=600),
    st.integers(1, 40),
    st.integers(1, 2000),
    st.integers(1, 7),
    st.data(),
)
def test_processes_share_out_every_batch_in_order(
    chosen: set[int], batches: int, window_rows: int, world: int, data: st.DataObject
) -> None:
    rows = np.array(sorted(chosen))
    sizes = batch_sizes(len(rows), batches)
    assert sizes.sum() == len(rows)
    assert np.ptp(sizes) <= 1
    order = order_of(rows, batches, window_rows=window_rows)
    assert np.array_equal(np.sort(order), rows)
    first = data.draw(st.integers(0, batches))
    whole = np.split(order, np.cumsum(sizes)[:-1])
    for number, batch in enumerate(whole):
        dealt = [np.full(count, -1) for count in np.diff(share_bounds(sizes, world)[number])]
        assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
        for rank, share in enumerate(dealt):
            for piece in pieces(order, sizes, first, rank=rank, world=world, rows_per_group=GROUP, span=3):
                assert piece.last - piece.first < 3
                mine = piece.batch == number
                assert (share[piece.place[mine]] == -1).all()
                share[piece.place[mine]] = piece.group * GROUP + piece.row[mine]
        expected = batch if number >= first else np.full(len(batch), -1)
        assert np.array_equal(np.concatenate(dealt), expected)


@pytest.mark.parametrize("world", [1, 2, 8])
def test_each_process_decodes_groups_of_its_own(world: int) -> None:
    rows = np.arange(400 * GROUP)
    sizes = batch_sizes(len(rows), len(rows) // 256)
    order = order_of(rows, len(sizes))
    found = [pieces(order, sizes, 0, rank=rank, world=world, rows_per_group=GROUP, span=6) for rank in range(world)]
    # A group at the border of two lanes is decoded for each of them; every other one is decoded once by one process.
    assert sum(map(len, found)) <= 400 + 2 * 32
    assert max(map(len, found)) <= (400 + 2 * 32) / world + 2


def batch_variance(value: NDArray[np.float64], epochs: int) -> float:
    """Variance of batches' means beside that of batches drawn from all rows without replacement."""
    batch = 256
    rows = np.arange(len(value))
    means = [value[order_of(rows, len(rows) // batch, epoch)].reshape(-1, batch).mean(1) for epoch in range(epochs)]
    expected = value.var(ddof=1) / batch * (1 - batch / len(value))
    return float(np.concatenate(means).var() / expected)


def test_batches_vary_as_those_of_a_true_shuffle() -> None:
    along = np.linspace(0, 60, 128 * 256)
    smooth = np.sin(along) + 0.5 * np.sin(0.31 * along)
    slots = np.random.default_rng(0).permutation(len(smooth))
    assert batch_variance(smooth[slots], epochs=40) == pytest.approx(1, abs=0.1)
    # Rows in spatial order, as no store has them, would not be mixed enough by the window.
    assert batch_variance(smooth, epochs=4) > 2
