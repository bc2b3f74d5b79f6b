"""Sampling as a flow: read the ecoregions, choose the locations, write their table."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
from prefect import flow, task

from flows.artifacts import publish_table, run_progress
from flows.settings import SampleSettings
from mmearth_data.earthengine.regions import ecoregions as ecoregions_of_earth_engine
from mmearth_data.earthengine.session import connect
from sampling.countries import read_countries
from sampling.ecoregions import read_ecoregions
from sampling.plan import sample_locations
from sampling.table import summary, write_locations


@task(name="read ecoregions", persist_result=False)
def read_polygons(settings: SampleSettings) -> gpd.GeoDataFrame:
    """Ecoregion polygons, from a vector file or from Earth Engine page by page."""
    if settings.ecoregions == "ee":
        return ecoregions_of_earth_engine(connect(settings.project, settings.emulator))
    return read_ecoregions(Path(settings.ecoregions))


@flow(name="sample", validate_parameters=False)
def sample(settings: SampleSettings) -> Path:
    """Choose the locations that ``settings`` asks for; returns the path of their table."""
    polygons = read_polygons(settings)
    countries = read_countries(Path(settings.countries)) if settings.countries else None
    with run_progress("sample", 1, "sample-progress") as progress:
        table = sample_locations(settings, polygons, countries, progress.show)
    write_locations(table, settings.out)
    publish_table("sample", f"{len(table)} locations in {settings.out}", summary(table))
    return settings.out


def run(settings: SampleSettings) -> None:
    """``mmearth sample``."""
    sample(settings)
