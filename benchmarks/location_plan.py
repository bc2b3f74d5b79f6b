"""Time and peak memory of a plan, by size, beside uniform points in the same polygons without cells or balance.

    python benchmarks/location_plan.py [ECOREGIONS] [--sizes 10000 100000 1200000 2000000] [--countries FILE]

Without a vector file of RESOLVE Ecoregions 2017 the polygons are the emulated Earth's, which have fewer vertices.
Each size runs in a process of its own, so that its peak memory is its own; reading and writing files counts.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np

from mmearth_data import grid
from mmearth_data.emulator.assets import FeatureAsset
from mmearth_data.emulator.world import build
from sampling.config import SampleConfig
from sampling.countries import read_countries
from sampling.ecoregions import covered_areas, read_ecoregions
from sampling.errors import TooFewCellsError
from sampling.plan import sample_locations
from sampling.table import write_locations


def plan(layer: Path, countries: Path | None, locations: int, out: Path) -> int:
    """Rows of the plan of this many locations, or of the largest there is, written to ``out``."""
    config = SampleConfig(locations, out, str(layer), str(countries or ""))
    regions, nations = read_ecoregions(layer), read_countries(countries) if countries else None
    try:
        table = sample_locations(config, regions, nations)
    except TooFewCellsError as error:
        print(f"{locations:,} locations are too many for {layer.name}: {error.most:,} instead", file=sys.stderr)
        table = sample_locations(replace(config, locations=error.most), regions, nations)
    write_locations(table, out)
    return len(table)


def uniform_points(layer: Path, countries: Path | None, locations: int, out: Path) -> int:
    """Distinct cells of as many points drawn by geopandas in the same polygons, equally per biome and by area."""
    regions = read_ecoregions(layer)
    areas = regions.assign(area=covered_areas(regions)).groupby("BIOME_NAME")["area"]
    share = areas.transform(lambda area: area / area.sum()) / areas.ngroups
    sizes = np.ceil(1.2 * locations * share).astype(int)
    points = gpd.GeoSeries(regions.geometry).sample_points(sizes.to_numpy(), rng=0).explode(index_parts=False)
    points = points[~points.is_empty]
    ids = np.unique(grid.cells_at(points.x, points.y))
    points.to_frame("geometry").to_parquet(out)
    return len(ids)


CASES = {"plan": plan, "uniform points": uniform_points}


def emulated_layer(folder: Path) -> Path:
    """The emulated Earth's ecoregions as a vector file."""
    table = build("earth").lookup("RESOLVE/ECOREGIONS/2017")
    assert isinstance(table, FeatureAsset)
    shapes, properties = zip(*table.features, strict=True)
    path = folder / "ecoregions.gpkg"
    gpd.GeoDataFrame(list(properties), geometry=list(shapes), crs="EPSG:4326").to_file(path)
    return path


def measure(case: str, layer: Path, countries: Path | None, locations: int) -> dict[str, float]:
    """Seconds, MiB at the peak and rows of one case in a fresh process."""
    request = json.dumps([case, str(layer), str(countries) if countries else None, locations])
    command = [sys.executable, __file__, "--one", request]
    answer: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return answer


def run_one(request: str) -> None:
    case, layer, countries, locations = json.loads(request)
    start, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        rows = CASES[case](Path(layer), Path(countries) if countries else None, locations, Path(folder) / "x.parquet")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    times = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}
    print(json.dumps(times | {"peak": peak, "rows": rows}))


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        run_one(sys.argv[2])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ecoregions", type=Path, nargs="?")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_200_000, 2_000_000])
    parser.add_argument("--countries", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(options.ecoregions or emulated_layer(Path(folder)), options.countries, options.sizes)


def compare(layer: Path, countries: Path | None, sizes: list[int]) -> None:
    print(f"{'locations':>10} {'case':15} {'rows or cells':>13} {'seconds':>8} {'CPU s':>7} {'peak MiB':>9}")
    for size in sizes:
        for case in CASES:
            seen = measure(case, layer, countries, size)
            figures = f"{seen['rows']:>13,} {seen['seconds']:8.1f} {seen['cpu']:7.1f} {seen['peak']:9,.0f}"
            print(f"{size:>10,} {case:15} {figures}", flush=True)


if __name__ == "__main__":
    main()
