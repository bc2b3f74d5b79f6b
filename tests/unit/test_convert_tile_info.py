"""A table of tiles is read entry by entry, wherever the pieces in which the file is read happen to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmearth_data.convert import tile_info
from mmearth_data.convert.journal import ConversionError
from mmearth_data.convert.tile_info import TileInfoFile

FACTS = {"S2_DATE": "2018-12-31", "S2_type": "l1c", "CRS": "EPSG:32721", "lat": -14.5, "lon": -57.25}
json_values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    entries=st.dictionaries(st.text(), json_values, max_size=5),
    piece=st.integers(1, 60),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 1]),
)
def test_entries_are_what_json_loads_says(
    tmp_path: Path, entries: dict[str, Any], piece: int, ascii_only: bool, indent: int | None
) -> None:
    file = tmp_path / "tile_info.json"
    whole = {name: {**FACTS, "lat": at, "mmearth": {"any": value}} for at, (name, value) in enumerate(entries.items())}
    file.write_text(json.dumps(whole, ensure_ascii=ascii_only, indent=indent), encoding="utf-8", errors="surrogatepass")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tile_info, "_PIECE", piece)
        with TileInfoFile(file) as tiles:
            assert len(tiles) == len(entries)
            for name, expected in json.loads(file.read_bytes()).items():
                facts = tiles.facts(name)
                assert (facts.lat, facts.own) == (expected["lat"], expected["mmearth"])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"1"',
        '{"1": {',
        '{"1": {}',
        '{"1": {},}',
        '{"1": {}}x',
        '{"1": 5}',
        '{"1": {} "2": {}}',
        "nonsense",
    ],
)
def test_what_is_no_object_of_objects_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(ConversionError, match="is no JSON object of tiles"):
        TileInfoFile(tmp_path / "t.json")


@pytest.mark.parametrize(
    "change",
    [{"S2_type": "l3a"}, {"CRS": "WGS84"}, {"S2_DATE": "yesterday"}, {"lat": None}, {"BANDS": []}],
    ids=lambda change: next(iter(change)),
)
def test_facts_that_are_not_as_published_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    (tmp_path / "t.json").write_text(json.dumps({"17": FACTS, "18": FACTS | change}))
    with TileInfoFile(tmp_path / "t.json") as tiles:
        assert (tiles.facts("17").level, tiles.facts("17").year, tiles.facts("17").epsg) == ("L1C", 2018, 32721)
        assert tiles.facts("17").passes is None
        with pytest.raises(ConversionError, match=r"tile 18 of .* is not as published"):
            tiles.facts("18")
