"""How arrays are compressed: two named sets of codecs, `mid` and `bal`.

Measured on correlated tiles, one core: `mid` is read nearly twice as fast as `bal` (``make bench-loader``), `bal`
written three times as fast as `mid`; it is the smaller one by up to 15 % where tiles are smooth. A tile is written once
and read in every epoch, so `mid` is the default. Above level 5 lz4hc takes twice the time to save half a percent.
Blosc is told the item size, without which its bit shuffle does not see whole values. The CRC-32C costs 2 % of the time
of reading.
"""

from __future__ import annotations

from typing import Literal

from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from mmearth_data.modalities import Modality

CodecSet = Literal["bal", "mid"]
CODEC_SETS: tuple[CodecSet, ...] = ("bal", "mid")
DEFAULT_CODECS: CodecSet = "mid"

_CLASS_LEVEL: dict[CodecSet, int] = {"bal": 3, "mid": 9}


def _numbers(codecs: CodecSet, modality: Modality) -> BloscCodec:
    typesize = modality.numpy_dtype.itemsize
    if codecs == "mid":
        return BloscCodec(cname="lz4hc", clevel=5, shuffle="bitshuffle", typesize=typesize)
    if modality.name == "sentinel1":
        # Speckle is nearly incompressible: zstd costs time there and saves nothing over lz4.
        return BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle", typesize=typesize)
    return BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle", typesize=typesize)


def compressors(codecs: CodecSet, modality: Modality) -> tuple[BytesBytesCodec, ...]:
    """The codecs from bytes to bytes of one modality's chunks; the last one adds a CRC-32C to each chunk."""
    if modality.kind == "categorical":
        return (ZstdCodec(level=_CLASS_LEVEL[codecs]), Crc32cCodec())
    return (_numbers(codecs, modality), Crc32cCodec())
