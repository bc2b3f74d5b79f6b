"""A place is a directory or a URL of object storage; a URL of anything else never becomes a directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmearth_data.store import StoreError, open_store
from mmearth_data.store.objects import ObjectPath, at


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("s3://tiles/deep/store.zarr", "deep/store.zarr"),
        ("s3://tiles//deep///store.zarr/", "deep/store.zarr"),
        ("gs://tiles", ""),
        ("gs://tiles/", ""),
    ],
)
def test_a_url_is_one_place_however_it_is_written_and_also_once_a_path_has_merged_its_slashes(
    name: str, key: str
) -> None:
    place = at(name)
    assert isinstance(place, ObjectPath)
    assert (place.scheme, place.bucket, place.key) == (name[:2], "tiles", key)
    assert at(Path(name)) == at(str(place)) == at(place) == place


@pytest.mark.parametrize("url", ["az://tiles/s.zarr", "S3://tiles/s.zarr", "https://host/s", "file:///tmp/s", "s3://"])
def test_a_url_of_anything_else_is_refused_and_makes_no_directory(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for place in (url, Path(url)):
        with pytest.raises(
            StoreError, match=r"is not a place to keep anything; name one on a disk, or s3://bucket/prefix or"
        ):
            open_store(place)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("url", ["s3://tiles/../s.zarr", "gs://tiles/a/./s.zarr"])
def test_a_way_through_folders_that_a_bucket_does_not_have_is_refused(url: str) -> None:
    with pytest.raises(StoreError, match=r"has \. or \.\. in it.*; name the key itself"):
        open_store(url)


@pytest.mark.parametrize("name", ["store.zarr", "/data/a:/b", "./s3:", "c:", "12:30/store", "runs/s3://x"])
def test_every_other_name_is_a_path(name: str) -> None:
    assert at(name) == Path(name)
