"""``mmearth convert``: a store from, and to, the layouts of others."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from mmearth_data.convert.journal import ConversionError, Progress
from mmearth_data.store.objects import at

_STAGES = TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()


@dataclass(frozen=True)
class ConvertSettings:
    """Which way to convert: --from with --source into --store, or --to with --out from --store.

    The same command carries on after an interruption, and reads back what it wrote before it ends.
    """

    store: Path
    """The Zarr store: made by --from, read by --to."""
    from_: Annotated[Literal["published"] | None, tyro.conf.arg(name="from")] = None
    """Make the store from MMEarth's published HDF5 layout."""
    source: Path | None = None
    """The folder that is converted: data_….h5 with its tile_info and splits files."""
    to: Literal["hdf5", "webdataset", "store64"] | None = None
    """Write the store as MMEarth's published HDF5 layout, as WebDataset tars, or as a store of the central 64 px."""
    out: Path | None = None
    """The folder that is written; its name names the HDF5 files, so call it data_1M_v001 for TorchGeo's MMEarth."""


def run(settings: ConvertSettings) -> None:
    """``mmearth convert``."""
    into, out_of = settings.from_ is not None, settings.to is not None
    written = settings.store if into else settings.out
    if written is not None and not isinstance(at(written), Path):
        raise ConversionError(f"conversions write to disks, not to {at(written)}; name a folder and copy it")
    if into == out_of:
        raise ConversionError("one direction at a time: give --from published --source DIR, or --to FORMAT --out DIR")
    if into:
        if settings.source is None or settings.out is not None:
            raise ConversionError("--from published reads --source DIR and writes --store DIR; give these two")
        _import(settings.source, settings.store)
        return
    if settings.out is None or settings.source is not None:
        raise ConversionError(f"--to {settings.to} reads --store DIR and writes --out DIR; give these two")
    if settings.out.resolve() == settings.store.resolve():
        raise ConversionError(f"--out must be another directory than the store {settings.store}")
    _export(settings.store, settings.out, str(settings.to))


def _import(source: Path, store: Path) -> None:
    with _needs("--from published"):
        from mmearth_data.convert.from_published import import_published

    with _progress() as progress:
        report = import_published(source, store, progress)
    _say(f"{store}: {report.stored} tiles ({_counts(report.splits)})")


def _export(store: Path, out: Path, to: str) -> None:
    with _needs(f"--to {to}"), _progress() as progress:
        if to == "hdf5":
            from mmearth_data.convert.to_published import export_published

            exported = export_published(store, out, progress)
            line = f"{exported.data}: {sum(exported.rows.values())} tiles ({_counts(exported.rows)})"
        elif to == "webdataset":
            from mmearth_data.convert.to_webdataset import export_webdataset

            tars = export_webdataset(store, out, progress)
            line = f"{out}: {sum(tars.samples.values())} samples ({_counts(tars.samples)}) in {tars.tars} tars"
        else:
            from mmearth_data.convert.crop import crop_store

            cropped = crop_store(store, out, 64, progress)
            line = f"{out}: {cropped.stored} tiles of 64 px ({_counts(cropped.splits)})"
    _say(line)


@contextmanager
def _needs(option: str) -> Iterator[None]:
    """Turn a package that is not installed into one line."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConversionError(
            f"{option} needs the package {error.name}; install with: pip install 'mmearth[convert]'"
        ) from error


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none in a split"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


@contextmanager
def _progress() -> Iterator[Progress]:
    """One bar per stage, on the terminal's error stream."""
    bars, tasks = Bars(*_STAGES, console=Console(stderr=True)), dict[str, TaskID]()

    def show(stage: str, done: int, total: int) -> None:
        bars.start()
        if stage not in tasks:
            tasks[stage] = bars.add_task(stage, total=total)
        bars.update(tasks[stage], completed=done)

    try:
        yield show
    finally:
        if tasks:
            bars.stop()
