"""Every array of a store: dimensions, dtype, chunks and CF attributes, derived from the registry.

Conventions: CF 1.11 (flag_values and flag_meanings, section 3.5; scale_factor and _FillValue, section 8.1).
Categorical arrays have no _FillValue: their no-data is one of their flag values, so that decoding keeps integers.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zarr.abc.codec import BytesBytesCodec

from mmearth_data.modalities import MODALITIES, STORED, Modality
from mmearth_data.splits import SPLITS
from mmearth_data.store.codecs import CodecSet, compressors

LEVELS = ("L1C", "L2A")
VACANT_FLAG = 255
"""Value of ``level`` and ``split`` in a row that holds no tile."""
NO_TIME = int(np.iinfo(np.int64).min)
"""Value of ``time`` in a row that holds no tile; xarray decodes it to NaT."""
ROWS_PER_CHUNK = 65536
"""Rows per chunk of the per-row arrays: few large chunks, because they are always read whole."""

_TARGET_CHUNK_PIXELS = 8 * 128 * 128


class Status(IntEnum):
    """What a row holds of a modality."""

    VACANT = 0
    """No tile was stored in the row."""
    COMPLETE = 1
    """Every band that this processing level and these orbit modes can have."""
    PARTIAL = 2
    """Some of those bands."""
    ABSENT = 3
    """Nothing; the row table says why."""


@dataclass(frozen=True)
class ArraySpec:
    """One array: what Zarr is told about it. ``shards`` is None where a chunk is a file of its own."""

    name: str
    dimensions: tuple[str, ...]
    dtype: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    fill_value: float | int | str
    attributes: dict[str, Any] = field(default_factory=dict)
    shards: tuple[int, ...] | None = None
    compressors: tuple[BytesBytesCodec, ...] | None = None
    """None leaves the choice to Zarr's default."""
    values: NDArray[Any] | None = None
    """Content that is known when the store is made (coordinates of bands)."""


def chunk_rows(tile_pixels: int, shard_rows: int) -> int:
    """Tiles per inner chunk: 8 at 128 px, 32 at 64 px, in proportion otherwise, as a divisor of the shard's rows."""
    target = max(1, _TARGET_CHUNK_PIXELS // tile_pixels**2)
    return max(n for n in range(1, min(target, shard_rows) + 1) if shard_rows % n == 0)


def tile_shape(modality: Modality, tile_pixels: int) -> tuple[int, ...]:
    """Shape of one row of a modality's array: (bands, y, x), or (bands,) for one value per location."""
    if modality.scope == "pixel":
        return (len(modality.bands), tile_pixels, tile_pixels)
    return (len(modality.bands),)


def _flags(values: Sequence[tuple[int, str]]) -> dict[str, Any]:
    """CF flag attributes; a meaning is one word, so everything but letters, digits and ``_-.+@`` becomes ``_``."""
    words = [re.sub(r"[^A-Za-z0-9_.+@-]+", "_", meaning).strip("_") for _, meaning in values]
    return {"flag_values": [value for value, _ in values], "flag_meanings": " ".join(words)}


def _encoded_fill(modality: Modality) -> int | str:
    """``_FillValue`` as xarray writes it in Zarr v3 attributes: floats as base64 of a little-endian double."""
    if modality.numpy_dtype.kind == "f":
        return base64.standard_b64encode(struct.pack("<d", modality.nodata)).decode()
    return int(modality.nodata)


def modality_attributes(modality: Modality) -> dict[str, Any]:
    """CF attributes of a modality's array."""
    attributes: dict[str, Any] = {
        "long_name": modality.long_name,
        "units": modality.units,
        "licence": modality.licence,
        "citation": modality.citation,
        "assets": list(modality.assets),
    }
    if modality.kind == "categorical":
        attributes |= _flags([*modality.classes, (int(modality.nodata), "no_data")])
    else:
        attributes["_FillValue"] = _encoded_fill(modality)
        if modality.scale_factor != 1.0:
            attributes["scale_factor"] = modality.scale_factor
    return attributes


def _modality_array(modality: Modality, tile_pixels: int, shard_rows: int, codecs: CodecSet) -> ArraySpec:
    pixels = modality.scope == "pixel"
    tile = tile_shape(modality, tile_pixels)
    fill = "NaN" if modality.numpy_dtype.kind == "f" else int(modality.nodata)
    band = f"{modality.name}_band"
    return ArraySpec(
        name=modality.name,
        dimensions=("location", band, "y", "x") if pixels else ("location", band),
        dtype=modality.dtype,
        shape=(0, *tile),
        chunks=(chunk_rows(tile_pixels, shard_rows) if pixels else shard_rows, *tile),
        shards=(shard_rows, *tile) if pixels else None,
        fill_value=fill,
        attributes=modality_attributes(modality),
        compressors=compressors(codecs, modality),
    )


def _band_arrays(modality: Modality) -> list[ArraySpec]:
    band, bands = f"{modality.name}_band", (len(modality.bands),)
    arrays = [
        ArraySpec(
            name=band,
            dimensions=(band,),
            dtype="str",
            shape=bands,
            chunks=bands,
            fill_value="",
            attributes={"long_name": f"band of {modality.name}"},
            values=np.array(modality.bands, dtype=object),
        )
    ]
    if modality.wavelengths:
        arrays.append(
            ArraySpec(
                name=f"{modality.name}_wavelength",
                dimensions=(band,),
                dtype="float64",
                shape=bands,
                chunks=bands,
                fill_value="NaN",
                attributes={
                    "long_name": "central wavelength",
                    "standard_name": "radiation_wavelength",
                    "units": "nm",
                },
                values=np.array(modality.wavelengths, dtype=np.float64),
            )
        )
    return arrays


_PER_ROW: tuple[tuple[str, str, int | str, dict[str, Any]], ...] = (
    (
        "location_id",
        "int64",
        0,
        {"long_name": "cell of the tile grid; 0 where no location has the row, negative where a tile is no cell"},
    ),
    (
        "lon",
        "float64",
        "NaN",
        {"long_name": "longitude of the cell's centre", "standard_name": "longitude", "units": "degrees_east"},
    ),
    (
        "lat",
        "float64",
        "NaN",
        {"long_name": "latitude of the cell's centre", "standard_name": "latitude", "units": "degrees_north"},
    ),
    ("epsg", "int32", 0, {"long_name": "EPSG code of the cell's UTM zone"}),
    ("x0", "int32", 0, {"long_name": "easting of the upper-left corner; 0 where it is not known", "units": "m"}),
    ("y0", "int32", 0, {"long_name": "northing of the upper-left corner; 0 where it is not known", "units": "m"}),
    (
        "time",
        "int64",
        NO_TIME,
        {
            "long_name": "acquisition of the Sentinel-2 product",
            "standard_name": "time",
            "units": "milliseconds since 1970-01-01",
            "calendar": "proleptic_gregorian",
            "_FillValue": NO_TIME,
        },
    ),
    ("year", "int16", 0, {"long_name": "calendar year asked for; 0 where no location has the row"}),
    (
        "level",
        "uint8",
        VACANT_FLAG,
        {"long_name": "Sentinel-2 processing level", **_flags([*enumerate(LEVELS), (VACANT_FLAG, "vacant")])},
    ),
    (
        "split",
        "uint8",
        VACANT_FLAG,
        {"long_name": "geographic split", **_flags([*enumerate(SPLITS), (VACANT_FLAG, "vacant")])},
    ),
)
PER_ROW_ARRAYS: tuple[str, ...] = tuple(name for name, *_ in _PER_ROW)
"""Arrays with one value per row, which root attribute ``coordinates`` makes coordinates in xarray."""


def _row_arrays(stored: Sequence[Modality]) -> list[ArraySpec]:
    arrays = [
        ArraySpec(name, ("location",), dtype, (0,), (ROWS_PER_CHUNK,), fill, attributes)
        for name, dtype, fill, attributes in _PER_ROW
    ]
    names = [modality.name for modality in stored]
    arrays.append(
        ArraySpec(
            name="modality",
            dimensions=("modality",),
            dtype="str",
            shape=(len(names),),
            chunks=(len(names),),
            fill_value="",
            attributes={"long_name": "modality"},
            values=np.array(names, dtype=object),
        )
    )
    arrays.append(
        ArraySpec(
            name="status",
            dimensions=("location", "modality"),
            dtype="uint8",
            shape=(0, len(names)),
            chunks=(ROWS_PER_CHUNK, len(names)),
            fill_value=int(Status.VACANT),
            attributes={
                "long_name": "what the row holds of each modality",
                **_flags([(int(status), status.name.lower()) for status in Status]),
            },
        )
    )
    for modality in stored:
        bands = len(modality.bands)
        arrays.append(
            ArraySpec(
                name=f"valid_fraction_{modality.name}",
                dimensions=("location", f"{modality.name}_band"),
                dtype="float32",
                shape=(0, bands),
                chunks=(ROWS_PER_CHUNK, bands),
                fill_value=0.0,
                attributes={"long_name": f"fraction of {modality.name} that is data, per band", "units": "1"},
            )
        )
    return arrays


def arrays(tile_pixels: int, shard_rows: int, codecs: CodecSet, stored: Sequence[Modality] = STORED) -> list[ArraySpec]:
    """Every array of a store of ``stored`` with tiles of ``tile_pixels`` and shards of ``shard_rows``, at zero rows."""
    bands = [spec for modality in stored for spec in _band_arrays(modality)]
    data = [_modality_array(modality, tile_pixels, shard_rows, codecs) for modality in stored]
    return [*data, *bands, *_row_arrays(stored)]


def coordinate_names() -> list[str]:
    """Arrays that are coordinates but do not share their dimension's name, for the root attribute ``coordinates``."""
    return [*PER_ROW_ARRAYS, *(f"{name}_wavelength" for name, m in MODALITIES.items() if m.wavelengths)]
