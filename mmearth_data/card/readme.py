"""The data set card for people: README.md, with the header that data set hubs read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mmearth_data.card.facts import Facts
from mmearth_data.card.pages import timestamp
from mmearth_data.card.terms import terms_of
from mmearth_data.modalities import Modality
from mmearth_data.store.schema import Status

TITLE = "Aligned Earth observation modalities for balanced locations"
_OF_ALL_STORES = """\
- A modality may be absent from a tile; `status` and the columns `absent_<modality>` of `locations.parquet` say so, and
  why. Plain Zarr reads a file that is missing as no-data: ask `status` before you believe a value.
- Land cover, canopy height and elevation are products with errors of their own and of other years than the images
  (WorldCover and canopy height: 2020; ASTER: 2000 to 2013)."""
_OF_COLLECTED_STORES = """\
- Locations are balanced over biomes and years, so they are not a sample of the land by area: rare biomes are
  over-represented on purpose. The map in `mmearth report` shows where they lie.
- Sentinel-2 scenes were chosen clear (less than 10 % cloud in the scene, at least 90 % clear pixels in the tile), so
  persistently cloudy places and seasons are rarer than in the archive.
- Splits keep to blocks of about 100 km, so that no block has tiles on both sides of a split."""


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _counts(head: str, counts: Mapping[str, int]) -> str:
    return _table([head, "tiles"], counts.items())


def _header(facts: Facts) -> str:
    size = next(
        name
        for most, name in (
            (10**3, "n<1K"),
            (10**4, "1K<n<10K"),
            (10**5, "10K<n<100K"),
            (10**6, "100K<n<1M"),
            (0, "n>1M"),
        )
        if facts.tiles < most or not most
    )
    return "\n".join(
        [
            "---",
            f"pretty_name: {TITLE}",
            "license: other",
            "license_name: several-see-card",
            "tags: [earth-observation, remote-sensing, multimodal, self-supervised-learning, zarr]",
            f"size_categories: [{size}]",
            "---",
        ]
    )


def _modality_row(facts: Facts, modality: Modality) -> list[object]:
    available = facts.availability[modality.name]
    shape = f"{len(modality.bands)} × {facts.tile_pixels}²" if modality.scope == "pixel" else str(len(modality.bands))
    return [
        f"`{modality.name}`",
        modality.long_name,
        shape,
        modality.dtype,
        f"{modality.nodata:g}",
        modality.units if modality.scale_factor == 1.0 else f"{modality.units} × {modality.scale_factor:g}",
        available[Status.COMPLETE],
        available[Status.PARTIAL],
        available[Status.ABSENT],
        f"{facts.bytes[modality.name] / 1e6:.1f}",
    ]


def _terms_rows(facts: Facts) -> list[list[object]]:
    rows: list[list[object]] = []
    for modality in facts.modalities:
        for terms in terms_of(modality):
            licence = f"[{terms.licence}]({terms.text})"
            rows.append(
                [f"`{modality.name}`", f"[source]({terms.page})", licence, terms.attribution, modality.citation]
            )
    return rows


def readme(facts: Facts) -> str:
    """The text of README.md."""
    when = ""
    if facts.shards:
        first, last = min(s.first for s in facts.shards), max(s.last for s in facts.shards)
        west, south, east, north = facts.box
        when = (
            f"Acquired between {timestamp(first)[:10]} and {timestamp(last)[:10]}, centres between {west:.3f}° and "
            f"{east:.3f}° of longitude, {south:.3f}° and {north:.3f}° of latitude."
        )
    modalities = _table(
        ["name", "what", "shape", "dtype", "no-data", "units", "complete", "partial", "absent", "MB"],
        [_modality_row(facts, modality) for modality in facts.modalities],
    )
    made = "\n".join(f"- `{name}`: {value}" for name, value in sorted(facts.attrs.items()))
    parts = [
        _header(facts),
        f"# {TITLE}",
        f"{facts.what} on one UTM grid, in one Zarr v3 group. {when}".rstrip(),
        f"Version `{facts.version}`: the store's format, then a digest of every committed file.",
        "## Reading",
        '```python\nimport xarray as xr\n\ndataset = xr.open_zarr("DIR", chunks={"location": '
        f"{facts.shard_rows}}})\n```",
        "`locations.parquet` has a line per row with its place, time, product ids and reasons (GeoParquet 1.1); "
        "`statistics.json` counts, moments, percentiles and histograms per band and split; `stac/collection.json` and "
        "`croissant.json` are this card for catalogues.",
        "## Modalities",
        "Tiles by what they hold: every band that the level and orbit mode can have, some of them, none.",
        modalities,
        "## Tiles",
        *[
            _counts(head, counts)
            for head, counts in (
                ("split", facts.splits),
                ("level", facts.levels),
                ("year", facts.years),
                ("biome", facts.biomes),
            )
            if counts
        ],
        "## Licences and citations",
        "Each source keeps its own terms; a work that uses several must keep to all of theirs.",
        _table(["modality", "asset", "licence", "attribution", "citation"], _terms_rows(facts)),
        "The selection of modalities follows Nedungadi et al. 2024, MMEarth: Exploring Multi-Modal Pretext Tasks For "
        "Geospatial Representation Learning, ECCV.",
        "## Limits",
        # A store that was converted names its source, whose ways of choosing are not ours to tell.
        _OF_ALL_STORES if "source" in facts.attrs else f"{_OF_ALL_STORES}\n{_OF_COLLECTED_STORES}",
        *(["## How it was made", made] if made else []),
    ]
    return "\n\n".join(parts) + "\n"
