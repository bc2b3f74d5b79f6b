"""What each collection verb is told: frozen dataclasses that the command line and Prefect deployments share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sampling.config import SampleConfig


@dataclass(frozen=True)
class SampleSettings(SampleConfig):
    """Where the locations come from and where their table goes."""

    project: str | None = None
    """Google Cloud project, where ecoregions or countries come from Earth Engine."""
    emulator: str | None = None
    """URL of an emulator to ask instead of Earth Engine."""
    cache: Path | None = None
    """Folder for layers from Earth Engine; the user's cache folder by default, none for an emulator's."""


@dataclass(frozen=True)
class CollectSettings:
    """Which locations go into which store, and whom to ask for their pixels."""

    locations: Path
    """The location table that mmearth sample wrote."""
    store: Path
    """The Zarr store: a directory, s3://bucket/prefix or gs://bucket/prefix; a new one, or one to carry on with."""
    project: str | None = None
    """Google Cloud project that is asked and billed."""
    emulator: str | None = None
    """URL of an emulator to ask instead of Earth Engine."""
    workers: int = 16
    """Requests under way at once in one process; Earth Engine allows 40 per project."""
    give_up: tuple[int, ...] = ()
    """Locations to go past because no answer for them can be used; kept in the store's plan."""
    dask: str | None = None
    """Address of a Dask scheduler whose workers collect the shards; by default this process does."""
    downstream: tuple[str, ...] = ()
    """Modalities to ask frozen encoders for, which a new store holds besides: their names, or all."""


@dataclass(frozen=True)
class FinalizeSettings:
    """The store whose tables and statistics are made."""

    store: Path
    """The Zarr store: a directory, s3://bucket/prefix or gs://bucket/prefix."""


@dataclass(frozen=True)
class StatusSettings:
    """The store to look at, and how to print what is seen."""

    store: Path
    """The Zarr store: a directory, s3://bucket/prefix or gs://bucket/prefix."""
    json: bool = False
    """Print JSON instead of tables."""
