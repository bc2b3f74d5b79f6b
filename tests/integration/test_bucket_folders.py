"""Folders that somebody made in a bucket beforehand, on a storage's own pages, are as empty as folders on a disk."""

from __future__ import annotations

from pathlib import Path

from mmearth_data.store import open_store
from mmearth_data.store.objects import ObjectPath, at
from mmearth_data.store.shards import verify
from tests.buckets import s3_server
from tests.synthetic import make_store


def test_a_store_is_made_in_a_folder_that_was_there(tmp_path: Path) -> None:
    with s3_server(tmp_path) as server:
        server.make_bucket("tiles")
        for folder in ("deep", "deep/store.zarr", "deep/store.zarr/_commits", "deep/store.zarr/aster"):
            server.make_folder("tiles", folder)
        place = at("s3://tiles/deep/store.zarr")
        assert isinstance(place, ObjectPath)
        assert [entry.name for entry in place.iterdir()] == ["_commits", "aster"]
        assert not (place / "aster").is_dir()
        make_store(str(place), rows=28, tile_pixels=16, shard_rows=28)
        assert verify(place) == []
        assert len(open_store(place).read("aster", 0, 28)) == 28
