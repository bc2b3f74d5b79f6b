"""Rows that arrive without what was asked for, through the real client: the location that has them is found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmearth_data import grid
from mmearth_data.collection import Retry, resolve_plan
from mmearth_data.earthengine.session import connect
from mmearth_data.emulator import world
from mmearth_data.plan import Plan
from tests.collecting import location_table
from tests.emulated import start_emulator

QUICK = Retry(attempts=4, corrupt_attempts=2, timeout=60, wait_initial=0.01, wait_max=0.05, wait_jitter=0.01)
FLAT = world.build("flat", 0)
LACKING = "transmitterReceiverPolarisation"


@dataclass(frozen=True)
class Unpolarised:
    """The archive's Sentinel-1, whose products do not say their polarisations where asked for around one place."""

    id: str
    lon: float
    lat: float

    def query(self, bounds: Any, start: int | None, end: int | None) -> Iterator[Any]:
        west, south, east, north = bounds
        here = west <= self.lon <= east and south <= self.lat <= north
        for image in FLAT.lookup(self.id).query(bounds, start, end):
            said = {name: value for name, value in image.properties.items() if name != LACKING}
            yield replace(image, properties=said) if here else image

    def image(self, index: str) -> Any:
        return FLAT.lookup(self.id).image(index)


@dataclass(frozen=True)
class Damaged:
    """The flat archive with that Sentinel-1."""

    radar: Unpolarised

    def lookup(self, asset_id: str) -> Any:
        return self.radar if asset_id == self.radar.id else FLAT.lookup(asset_id)


def test_the_others_are_resolved_and_the_next_run_asks_for_it_alone(tmp_path: Path) -> None:
    location_table(tmp_path / "locations.parquet", 5, 0, biomes=1, years=(2019,), around=((-100.0, 40.0),))
    plan = Plan.prepare(tmp_path / "store", tmp_path / "locations.parquet")
    bad = int(plan.table["location_id"][3])
    lon, lat = grid.centres(bad)
    archive = Damaged(Unpolarised("COPERNICUS/S1_GRD", float(lon[0]), float(lat[0])))
    with start_emulator(tmp_path, "flat", archive=archive) as emulator:
        assert resolve_plan(plan, connect(None, emulator.url), retry=QUICK) == 1
    assert [place.location_id for place in plan.unanswered(0)] == [bad]
    (file,) = (plan.store / "_quarantine").iterdir()
    assert file.name == f"{bad}-resolving.bin"
    assert b"ASCENDING_index" in file.read_bytes()
    assert LACKING.encode() not in file.read_bytes()

    (tmp_path / "mended").mkdir()
    with start_emulator(tmp_path / "mended", "flat") as emulator:
        assert resolve_plan(plan, connect(None, emulator.url), retry=QUICK) == 1
        assert len(emulator.requests("computeFeatures")) == 2
    assert plan.unresolved() == ()
    plan.next_round()
    slots = [slot for slot in plan.spec(0).slots if slot.location]
    assert len(slots) == 5
    assert all(slot.answered and slot.acquisitions for slot in slots)
