"""What `make deploy` tells processes elsewhere: URLs as they are, paths in full, and one folder to mount."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("store", "locations", "mounted"),
    [
        ("data/s.zarr", "locations.parquet", HERE / "data"),
        ("s3://tiles/s.zarr", "plans/locations.parquet", HERE / "plans"),
        ("s3://tiles/s.zarr", "gs://plans/locations.parquet", HERE / "runs"),
    ],
)
def test_a_url_is_told_as_it_is_and_never_mounted(store: str, locations: str, mounted: Path) -> None:
    command = ["make", "-n", "-o", ".venv/.installed", "deploy", f"STORE={store}", f"LOCATIONS={locations}"]
    said = subprocess.run(command, cwd=HERE, check=True, capture_output=True, text=True).stdout
    told = dict(re.findall(r"MMEARTH_(\w+)=(\S*)", said))
    for name, place in (("STORE", store), ("LOCATIONS", locations)):
        assert told[name] == (place if "://" in place else str(HERE / place))
    assert told["VOLUME"] == f"{mounted}/:{mounted}/"
