"""The demo as a newcomer runs it: one command, no account, everything there at the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import xarray as xr

from mmearth_data.modalities import PRETEXT, STORED
from mmearth_data.source import Absence

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600)]


class Demo(NamedTuple):
    folder: Path
    output: str
    errors: str


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo")
    environment = {**os.environ, "PREFECT_HOME": str(folder / "prefect")}
    command = [sys.executable, "-m", "flows.demo", "--out", str(folder)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3600, check=False)
    assert result.returncode == 0, result.stderr
    return Demo(folder, result.stdout, result.stderr)


def test_it_ends_with_four_lines_and_no_traceback(demo: Demo) -> None:
    lines = demo.output.strip().splitlines()
    assert [line.split()[0] for line in lines] == ["store", "checkpoint", "report", "next"]
    assert all(Path(line.split()[1]).exists() for line in lines[:3])
    assert "Traceback" not in demo.errors
    assert "Error" not in demo.errors


def test_strata_are_equal_on_complete_rows(demo: Demo) -> None:
    rows = pq.read_table(demo.folder / "store.zarr" / "locations.parquet")
    stored = rows.filter(pc.equal(rows["outcome"], "stored"))
    strata = Counter(zip(stored["biome"].to_pylist(), stored["year"].to_pylist(), strict=True))
    assert len(strata) == 56
    assert set(strata.values()) == {10}


def test_plain_xarray_opens_the_store(demo: Demo) -> None:
    dataset = xr.open_zarr(demo.folder / "store.zarr")
    assert {modality.name for modality in STORED} <= set(dataset.data_vars)
    assert dataset["sentinel2"].sizes["y"] == 128


def test_at_most_1_3_requests_per_stored_tile(demo: Demo) -> None:
    log = (demo.folder / "requests.jsonl").read_text().splitlines()
    assert len(log) <= 1.3 * 560
    assert Counter(json.loads(line)["status"] for line in log) == {200: len(log)}


def test_every_absence_has_a_reason_of_the_closed_list(demo: Demo) -> None:
    rows = pq.read_table(demo.folder / "store.zarr" / "locations.parquet").to_pylist()
    reasons = {reason.value for reason in Absence}
    names = [modality.name for modality in STORED]
    dataset = xr.open_zarr(demo.folder / "store.zarr", mask_and_scale=False)
    status = dataset["status"].to_numpy()
    for row in rows:
        if row["outcome"] != "stored":
            continue
        for column, name in enumerate(names):
            is_absent = status[row["row"], column] == 3
            assert is_absent == (row[f"absent_{name}"] in reasons), (row["row"], name)


def test_every_pretext_task_was_validated_beside_the_best_constant(demo: Demo) -> None:
    lines = [json.loads(line) for line in (demo.folder / "runs" / "all" / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["split"] == "val"][-1]
    assert set(last["tasks"]) == set(last["constant"]) == {modality.name for modality in PRETEXT}


def test_both_encoders_were_probed_beside_random_and_band_means(demo: Demo) -> None:
    table = json.loads((demo.folder / "runs" / "all" / "evaluation.json").read_text())["rows"]
    encoders = {row["encoder"] for row in table}
    assert len(encoders) == 4
    seen = {(row["encoder"], row["target"]) for row in table if row["seen"]}
    assert {encoder for encoder, _ in seen} == {"all"}
    assert all(row["low"] <= row["mean"] <= row["high"] for row in table)
