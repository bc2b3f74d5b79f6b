"""Sampling as a flow: read the ecoregions and the countries, choose the locations, write their table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.artifacts import publish_table, run_progress
from flows.settings import SampleSettings
from mmearth_data.earthengine import regions
from mmearth_data.earthengine.layercache import LayerRequest, default_folder, kept
from mmearth_data.earthengine.session import EarthEngineSource, connect
from mmearth_data.earthengine.transport import STANDARD_URL
from mmearth_data.source import Quota, Transient
from sampling.countries import read_countries
from sampling.ecoregions import read_ecoregions
from sampling.geography import continents
from sampling.plan import sample_locations
from sampling.reference import overlap_summary, reference_points
from sampling.table import METADATA, summary, write_locations

Told = Callable[[str, int, int], None]
FROM_EARTH_ENGINE = "ee"
"""What --ecoregions and --countries say instead of a file."""


@dataclass(frozen=True)
class Layer:
    """A layer: how it is read from a file, its asset with about how many rows it has, how it is fetched."""

    name: str
    read: Callable[[Path], gpd.GeoDataFrame]
    asset: str
    rows: int
    fetch: Callable[[EarthEngineSource, float, regions.OnRows], gpd.GeoDataFrame]


ECOREGION_LAYER = Layer("ecoregions", read_ecoregions, regions.ECOREGIONS, 847, regions.ecoregions)
COUNTRY_LAYER = Layer("countries", read_countries, regions.COUNTRIES, 312, regions.countries)


@task(
    name="read layer",
    task_run_name="read {layer.name}",
    retries=2,
    retry_delay_seconds=[5, 30],
    retry_condition_fn=lambda attempt, run, state: isinstance(state.result(raise_on_failure=False), Transient | Quota),
    persist_result=False,
    cache_policy=NO_CACHE,
)
def read_layer(settings: SampleSettings, layer: Layer, given: str, told: Told) -> gpd.GeoDataFrame:
    """A layer of polygons from the vector file ``given``, or from Earth Engine page by page unless it was kept."""
    if given != FROM_EARTH_ENGINE:
        return layer.read(Path(given))

    def fetch() -> gpd.GeoDataFrame:
        source = connect(settings.project, settings.emulator)
        told(layer.name, 0, layer.rows)
        frame = layer.fetch(source, regions.BORDER_METRES, lambda rows: told(layer.name, rows, max(rows, layer.rows)))
        told(layer.name, len(frame), len(frame))
        return frame

    # An emulated Earth costs nothing to ask, and another one may listen at the same place tomorrow.
    folder = settings.cache or (None if settings.emulator else default_folder())
    if folder is None:
        return fetch()
    return kept(folder, LayerRequest(settings.emulator or STANDARD_URL, layer.asset, regions.BORDER_METRES), fetch)


@flow(name="sample", flow_run_name="{settings.out}", validate_parameters=False)
def sample(settings: SampleSettings) -> Path:
    """Choose the locations that ``settings`` asks for; returns the path of their table."""
    with run_progress("sample", 1, "sample-progress") as progress:
        polygons = read_layer(settings, ECOREGION_LAYER, settings.ecoregions, progress.show)
        if settings.preset == "reference":
            return _compare(settings, polygons, progress.show)
        countries = None
        if settings.countries:
            countries = read_layer(settings, COUNTRY_LAYER, settings.countries, progress.show)
        table = sample_locations(settings, polygons, countries, progress.show)
    write_locations(table, settings.out)
    publish_table("sample", f"{len(table)} locations in {settings.out}", summary(table))
    geography = table.attrs[METADATA].get("geography")
    if geography and (rows := continents(geography)):
        publish_table("sample-continents", "Where they lie, and where the land and published data sets lie", rows)
    return settings.out


def _compare(settings: SampleSettings, polygons: gpd.GeoDataFrame, told: Told) -> Path:
    """The published scheme instead of a plan: its points and how far they overlap."""
    told("points", 0, 1)
    points = reference_points(settings, polygons)
    told("points", 1, 1)
    write_locations(points, settings.out)
    title = f"{len(points)} points of the published scheme in {settings.out}, for comparison: no collection takes them"
    publish_table("sample", title, overlap_summary(points))
    return settings.out


def run(settings: SampleSettings) -> None:
    """``mmearth sample``."""
    sample(settings)
