"""A location table may lie in a bucket, where a collection reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmearth_data.plan import Plan
from mmearth_data.store.objects import at
from sampling.errors import SamplingError
from sampling.table import write_locations
from tests.buckets import s3_server
from tests.collecting import location_table


def test_a_location_table_in_a_bucket_is_the_one_on_disk(tmp_path: Path) -> None:
    table = location_table(tmp_path / "locations.parquet", primaries=2, reserves=1)
    write_locations(table, tmp_path / "again.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.parquet", "locations.parquet"]
    there = "s3://tiles/plans/locations.parquet"
    (tmp_path / "server").mkdir()
    with s3_server(tmp_path / "server") as server:
        with pytest.raises(SamplingError, match="its bucket does not exist; make the bucket"):
            write_locations(table, there)
        server.make_bucket("tiles")
        write_locations(table, there)
        assert at(there).read_bytes() == (tmp_path / "again.parquet").read_bytes()
        assert Plan.prepare(tmp_path / "store", there).batches == 1


def test_another_url_is_refused_and_makes_no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = location_table(tmp_path / "locations.parquet", primaries=2, reserves=1)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SamplingError, match=r"^az:/tiles/t\.parquet is not a place .*; name one on a disk, or s3://"):
        write_locations(table, Path("az://tiles/t.parquet"))
    assert [path.name for path in tmp_path.iterdir()] == ["locations.parquet"]
