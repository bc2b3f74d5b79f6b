"""The demo: the whole chain on an emulated Earth, small enough for a laptop (``make demo``)."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from flows.cli import exit_with
from flows.emulated import emulator_beside
from flows.server import prefect_server

HELD_OUT = "sentinel2,sentinel1,aster,era5,lat,lon,month"
"""Pretext tasks of the second encoder, which sees none of the evaluation's targets."""


@dataclass(frozen=True)
class DemoSettings:
    """How large the demo is, on which Earth it runs and where it goes."""

    out: Path = Path("demo")
    """Folder for the store, the runs and the report."""
    locations: int = 560
    """Locations in all: 10 for each of 14 biomes and 4 years."""
    world: int = 0
    """Seed of the emulated Earth: another one is another planet."""


def demo(settings: DemoSettings) -> int:
    """Run the chain on the emulator and say where everything is; returns the exit code."""
    out = settings.out
    out.mkdir(parents=True, exist_ok=True)
    with prefect_server(), emulator_beside(settings.world, out / "requests.jsonl") as url:
        from flows.pipeline import PipelineSettings, pipeline
        from flows.settings import SampleSettings

        report = pipeline(
            PipelineSettings(
                sample=SampleSettings(
                    locations=settings.locations, out=out / "locations.parquet", countries="ee", emulator=url
                ),
                store=out / "store.zarr",
                runs={"all": ("--preset", "demo"), "held-out": ("--preset", "demo", "--pretext", HELD_OUT)},
            )
        )
    sys.stdout.write(
        f"\nstore       {out / 'store.zarr'}  (xarray.open_zarr opens it)\n"
        f"checkpoint  {out / 'runs' / 'all' / 'encoder.safetensors'}  (mmearth_train.load_encoder loads it)\n"
        f"report      {report}  (open it in a browser)\n"
        f"next        mmearth pretrain --help, or mmearth collect --project YOUR-PROJECT for the real Earth\n"
    )
    return 0


if __name__ == "__main__":
    asked = tyro.cli(DemoSettings, prog="make demo")
    exit_with("make demo", lambda: demo(asked))
