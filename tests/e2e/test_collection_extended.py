"""Through the command: a longer table extends a finished store; a location that cannot be resolved is gone past."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmearth_data import grid
from mmearth_data.store.commits import committed
from tests.collecting import location_table
from tests.commands import mmearth
from tests.emulated import start_emulator
from tests.integration.test_resolve_unusable import Damaged, Unpolarised
from tests.stores import content

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def status(environment: dict[str, str], store: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(mmearth(environment, "status", "--store", store, "--json").stdout)
    return result


def test_a_longer_table_extends_a_finished_store(environment: dict[str, str], tmp_path: Path) -> None:
    store = tmp_path / "store.zarr"
    with start_emulator(tmp_path, "flat") as emulator:

        def run(verb: str, *options: object) -> None:
            result = mmearth(environment, verb, *options, timeout=600)
            assert result.returncode == 0, result.stderr

        def collect(locations: Path) -> None:
            run("collect", "--locations", locations, "--store", store, "--emulator", emulator.url)

        short, long, other = (tmp_path / f"{name}.parquet" for name in ("short", "long", "other"))
        for file, primaries, longitude in ((short, 2, -100.0), (long, 5, -100.0), (other, 5, 100.0)):
            location_table(file, primaries, 1, years=(2019,), around=((longitude, 40.0),))
        collect(short)
        run("finalize", "--store", store)
        before, asked = content(store), len(emulator.requests("computePixels"))
        assert (asked, committed(store)) == (4, {0})

        collect(long)
        run("finalize", "--store", store)
        after = content(store)
        pixels = {name for name in before if name.startswith(("_commits/", "sentinel2/c/", "aster/c/", "era5/c/"))}
        assert len(pixels) == 5
        assert all(after[name] == before[name] for name in pixels)
        assert committed(store) == {0, 1}
        assert len(emulator.requests("computePixels")) == 10, "nothing is fetched twice"
        found = status(environment, store)
        assert (found["quota"], found["stored"], found["rows"]) == (10, 10, 2 * 224)
        assert [stratum["complete"] for stratum in found["strata"]] == [5, 5]
        run("verify", "--store", store)

        collect(short)  # the shorter table asks for no more than there is
        refused = mmearth(
            environment, "collect", "--locations", other, "--store", store, "--emulator", emulator.url, timeout=600
        )
        assert refused.returncode == 2
        assert "does not extend the location table of" in refused.stderr
        assert content(store) == after


def test_what_cannot_be_resolved_is_named_and_gone_past(environment: dict[str, str], tmp_path: Path) -> None:
    locations, store = tmp_path / "locations.parquet", tmp_path / "store.zarr"
    table = location_table(locations, 2, 2, biomes=1, years=(2019,), around=((-100.0, 40.0),), pixels=32)
    bad = int(table["location_id"][0])
    lon, lat = grid.centres(bad)
    archive = Damaged(Unpolarised("COPERNICUS/S1_GRD", float(lon[0]), float(lat[0])))
    with start_emulator(tmp_path, "flat", archive=archive) as emulator:
        where = ("collect", "--locations", locations, "--store", store, "--emulator", emulator.url)
        named = mmearth(environment, *where)
        assert named.returncode == 1, named.stderr
        assert "Traceback" not in named.stderr
        (line,) = [line for line in named.stderr.splitlines() if line.startswith("mmearth collect: ")]
        assert f"location {bad}: no answer that it was to be resolved from could be used" in line
        assert f"go past with --give-up {bad}" in line
        assert "0 of 2 tiles stored" in named.stderr  # the tables of a run's end are shown of this one too
        assert list((store / "_quarantine").iterdir()) == [store / "_quarantine" / f"{bad}-resolving.bin"]
        past = mmearth(environment, *where, "--give-up", bad)
        assert past.returncode == 0, past.stderr
        assert "2 of 2 tiles stored" in past.stderr
    found = status(environment, store)
    assert (found["stored"], found["quota"], found["refusals"]) == (2, 2, {"given_up": 1})
