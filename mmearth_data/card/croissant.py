"""The card for machine-learning tools: Croissant 1.0 (MLCommons), a JSON-LD vocabulary over schema.org.

Croissant has no words for Zarr arrays: files are described as sets, and records are those of the table and of the lists
of classes.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from mmearth_data.card.facts import Facts
from mmearth_data.card.readme import TITLE
from mmearth_data.card.terms import terms_of
from mmearth_data.modalities import Modality
from mmearth_data.store.layout import LOCATIONS, STATISTICS
from mmearth_data.store.rows import commit_schema

_TERMS_OF_CROISSANT = (
    "citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject", "fileSet", "format",
    "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex",
    "repeated", "replace", "samplingRate", "separator", "source", "subField", "transform",
)  # fmt: skip
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    **{term: f"cr:{term}" for term in _TERMS_OF_CROISSANT},
}
"""The context that Croissant 1.0 asks for."""
_TABLE = "locations-table"


def _type_of(column: pa.DataType) -> str | None:
    """The Croissant type of a table's column; None for columns that are lists."""
    if pa.types.is_boolean(column):
        return "sc:Boolean"
    if pa.types.is_integer(column):
        return "sc:Integer"
    if pa.types.is_floating(column):
        return "sc:Float"
    return "sc:Text" if pa.types.is_string(column) else None


def _file(identifier: str, name: str, facts: Facts, media_type: str, description: str) -> dict[str, Any]:
    record = facts.tables[name]
    return {
        "@type": "cr:FileObject",
        "@id": identifier,
        "name": name,
        "description": description,
        "contentUrl": name,
        "contentSize": f"{record.size} B",
        "encodingFormat": media_type,
        "sha256": record.sha256,
    }


def _files_of(modality: Modality) -> dict[str, Any]:
    terms = "; ".join(f"{found.licence}, {found.attribution}" for found in terms_of(modality))
    return {
        "@type": "cr:FileSet",
        "@id": f"{modality.name}-files",
        "name": f"{modality.name}-files",
        "description": (
            f"{modality.long_name}. Zarr v3 array {modality.name} of {modality.dtype}, "
            f"bands {', '.join(modality.bands)}; no-data {modality.nodata:g}. Terms: {terms}. "
            f"Cite: {modality.citation}."
        ),
        "encodingFormat": "application/vnd.zarr; version=3",
        "includes": f"{modality.name}/c/**",
    }


def _table_records(facts: Facts) -> dict[str, Any]:
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"locations/{column.name}",
            "name": f"locations/{column.name}",
            "dataType": _type_of(column.type),
            "source": {"fileObject": {"@id": _TABLE}, "extract": {"column": column.name}},
        }
        for column in commit_schema(facts.modalities)
        if _type_of(column.type)
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": "locations",
        "name": "locations",
        "description": "One record per committed row of the store: place, time, products, and what it holds.",
        "key": {"@id": "locations/row"},
        "field": fields,
    }


def _class_records(modality: Modality) -> dict[str, Any]:
    name = f"{modality.name}_classes"
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": f"Meaning of the stored values of {modality.name}; {modality.nodata:g} is no-data.",
        "dataType": "sc:Enumeration",
        "key": {"@id": f"{name}/value"},
        "field": [
            {"@type": "cr:Field", "@id": f"{name}/value", "name": f"{name}/value", "dataType": "sc:Integer"},
            {"@type": "cr:Field", "@id": f"{name}/name", "name": f"{name}/name", "dataType": "sc:Text"},
        ],
        "data": [{f"{name}/value": value, f"{name}/name": meaning} for value, meaning in modality.classes],
    }


def croissant(facts: Facts) -> dict[str, Any]:
    """The document of croissant.json."""
    licences = dict.fromkeys(terms.text for modality in facts.modalities for terms in terms_of(modality))
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": facts.name,
        "description": f"{TITLE}: {facts.what}, in one Zarr v3 group.",
        "version": facts.version,
        "license": list(licences),
        "citeAs": "; ".join(dict.fromkeys(modality.citation for modality in facts.modalities)),
        "keywords": ["earth observation", "remote sensing", "multimodal", "self-supervised learning", "zarr"],
        "isLiveDataset": False,
        "distribution": [
            _file(_TABLE, LOCATIONS, facts, "application/x-parquet", "Every committed row (GeoParquet 1.1)."),
            _file("statistics", STATISTICS, facts, "application/json", "Statistics per band, level and split."),
            *(_files_of(modality) for modality in facts.modalities),
        ],
        "recordSet": [
            _table_records(facts),
            *(_class_records(modality) for modality in facts.modalities if modality.kind == "categorical"),
        ],
    }
