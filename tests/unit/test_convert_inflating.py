"""Rows read by several threads are those that HDF5 itself reads, however the array is stored."""

from __future__ import annotations

import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mmearth_data.convert.inflating import read_rows

STORED: dict[str, dict[str, Any]] = {
    "published": {"chunks": (1, 3, 5), "compression": "gzip"},
    "contiguous": {},
    "shuffled": {"chunks": (1, 3, 5), "compression": "gzip", "shuffle": True},
    "several rows a chunk": {"chunks": (4, 3, 5), "compression": "gzip"},
    "big-endian": {"chunks": (1, 3, 5), "compression": "gzip", "dtype": ">f4"},
}


@pytest.mark.parametrize("how", STORED)
def test_rows_are_those_of_hdf5(tmp_path: Path, how: str) -> None:
    values = np.random.default_rng(1).normal(size=(11, 3, 5)).astype("f4")
    with h5py.File(tmp_path / "a.h5", "w") as file, ThreadPoolExecutor() as pool:
        array = file.create_dataset("a", data=values, **STORED[how])
        for start, stop in ((0, 11), (3, 8), (10, 40), (5, 5)):
            np.testing.assert_array_equal(read_rows(array, start, stop, pool), values[start:stop])


def test_rows_that_were_never_written_have_the_fill_value(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file, ThreadPoolExecutor() as pool:
        array = file.create_dataset("a", (6, 4), "i2", chunks=(1, 4), compression="gzip", fillvalue=-7)
        array[2] = [1, 2, 3, 4]
        np.testing.assert_array_equal(read_rows(array, 1, 4, pool), [[-7] * 4, [1, 2, 3, 4], [-7] * 4])


def test_a_row_of_too_few_values_is_an_error(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file, ThreadPoolExecutor() as pool:
        array = file.create_dataset("a", data=np.ones((6, 4), "i2"), chunks=(1, 4), compression="gzip")
        array.id.write_direct_chunk((2, 0), zlib.compress(b"short"))
        with pytest.raises(OSError, match="row 2 holds 5 bytes of values where 8 belong"):
            read_rows(array, 1, 4, pool)


def test_compound_rows_are_read(tmp_path: Path) -> None:
    kind = np.dtype([("tile_id", "S100"), ("S2_type", "S10")])
    values = np.array([(str(n), "l2a") for n in range(9)], kind)
    with h5py.File(tmp_path / "a.h5", "w") as file, ThreadPoolExecutor() as pool:
        array = file.create_dataset("a", data=values, chunks=(1,), compression="gzip")
        assert read_rows(array, 2, 9, pool)["tile_id"].tolist() == [str(n).encode() for n in range(2, 9)]
