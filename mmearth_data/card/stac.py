"""The card for geospatial catalogues: a STAC 1.1 collection with one item per shard that holds a tile.

A shard's tiles are spread over the Earth, so an item's geometry is the set of its tiles' centres. No extension is
used: fields that STAC has no name for begin with ``mmearth:``.
"""

from __future__ import annotations

from typing import Any

from mmearth_data.card.facts import Facts, ShardFacts, box_of
from mmearth_data.card.pages import timestamp
from mmearth_data.card.readme import TITLE
from mmearth_data.card.terms import terms_of
from mmearth_data.modalities import Modality
from mmearth_data.store.commits import array_file_name, table_name

_VERSION = "1.1.0"
_ZARR, _PARQUET, _JSON = "application/vnd.zarr; version=3", "application/vnd.apache.parquet", "application/json"
_ROOT_OF_COLLECTION, _ROOT_OF_ITEM = "../", "../../"


def _bands(modality: Modality) -> list[dict[str, Any]]:
    return [
        {
            "name": band,
            "data_type": modality.dtype,
            "nodata": "nan" if modality.nodata != modality.nodata else int(modality.nodata),
            "unit": modality.units,
        }
        for band in modality.bands
    ]


def _described(modality: Modality) -> dict[str, Any]:
    """What every asset of a modality has in common."""
    terms = terms_of(modality)
    return {
        "title": modality.name,
        "description": modality.long_name,
        "type": _ZARR,
        "roles": ["data"],
        "bands": _bands(modality),
        "mmearth:scale_factor": modality.scale_factor,
        "mmearth:licences": [found.licence for found in terms],
        "mmearth:attributions": [found.attribution for found in terms],
        "mmearth:citation": modality.citation,
    }


def _file_asset(shard: ShardFacts, name: str, media_type: str, title: str, role: str) -> dict[str, Any]:
    record = shard.files[name]
    return {
        "href": _ROOT_OF_ITEM + name,
        "type": media_type,
        "title": title,
        "roles": [role],
        "mmearth:size": record.size,
        "mmearth:sha256": record.sha256,
    }


def item(facts: Facts, shard: ShardFacts) -> dict[str, Any]:
    """The STAC item of one shard."""
    name = table_name(shard.number)
    assets = {
        modality.name: _file_asset(shard, array_file_name(modality, shard.number), _ZARR, modality.long_name, "data")
        for modality in facts.modalities
    }
    return {
        "type": "Feature",
        "stac_version": _VERSION,
        "id": f"{facts.name}-{shard.name}",
        "collection": facts.name,
        "geometry": {"type": "MultiPoint", "coordinates": shard.points.tolist()},
        "bbox": list(box_of(shard.points)),
        "properties": {
            "datetime": None,
            "start_datetime": timestamp(shard.first),
            "end_datetime": timestamp(shard.last),
            "mmearth:shard": shard.number,
            "mmearth:tiles": len(shard.points),
            "mmearth:rows": [shard.number * facts.shard_rows, (shard.number + 1) * facts.shard_rows],
        },
        "links": [
            {"rel": relation, "href": "../collection.json", "type": _JSON}
            for relation in ("root", "parent", "collection")
        ],
        "assets": {**assets, "rows": _file_asset(shard, name, _PARQUET, "row table of the shard", "metadata")},
    }


def _licence_links(facts: Facts) -> list[dict[str, Any]]:
    by_text: dict[str, str] = {}
    for terms in (terms for modality in facts.modalities for terms in terms_of(modality)):
        by_text.setdefault(terms.text, terms.licence)
    return [{"rel": "license", "href": text, "title": licence} for text, licence in by_text.items()]


def collection(facts: Facts) -> dict[str, Any]:
    """The STAC collection of the store."""
    first = timestamp(min(s.first for s in facts.shards)) if facts.shards else None
    last = timestamp(max(s.last for s in facts.shards)) if facts.shards else None
    counted = {"splits": facts.splits, "levels": facts.levels, "years": facts.years, "biomes": facts.biomes}
    summaries = {f"mmearth:{name}": list(counts) for name, counts in counted.items() if counts}
    return {
        "type": "Collection",
        "stac_version": _VERSION,
        "id": facts.name,
        "title": TITLE,
        "description": (
            f"{facts.what}, in one Zarr v3 group. Terms differ by modality: see item_assets and the licence links."
        ),
        "keywords": ["earth observation", "multimodal", "zarr", "sentinel-1", "sentinel-2"],
        "license": "other",
        "version": facts.version,
        "extent": {"spatial": {"bbox": [list(facts.box)]}, "temporal": {"interval": [[first, last]]}},
        **({"summaries": summaries} if summaries else {}),
        "item_assets": {modality.name: _described(modality) for modality in facts.modalities},
        "links": [
            {"rel": "root", "href": "./collection.json", "type": _JSON},
            *_licence_links(facts),
            *(
                {"rel": "item", "href": f"./items/{shard.name}.json", "type": "application/geo+json"}
                for shard in facts.shards
            ),
        ],
        "assets": {
            "zarr": {"href": _ROOT_OF_COLLECTION, "type": _ZARR, "title": "the whole store", "roles": ["data"]},
            "locations": {
                "href": _ROOT_OF_COLLECTION + "locations.parquet",
                "type": _PARQUET,
                "title": "every row",
                "roles": ["metadata"],
            },
            "statistics": {
                "href": _ROOT_OF_COLLECTION + "statistics.json",
                "type": _JSON,
                "title": "statistics per band, level and split",
                "roles": ["metadata"],
            },
        },
    }
