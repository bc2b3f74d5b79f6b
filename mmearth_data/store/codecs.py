"""How arrays are compressed: two named sets of codecs, `mid` and `bal`.

Measured on correlated tiles, one core (``make bench-loader``): `mid` is read three times as fast as `bal`, `bal`
written four times as fast as `mid`. On real Sentinel-2 `bal` is a fifth smaller, on correlated tiles 2 % larger. A tile
is written once and read in every epoch, so `mid` is the default: lz4hc after a byte shuffle, which beside the bit
shuffle saves bytes and half the time of reading, because the noisy low bytes are then copied whole. Above level 5
lz4hc takes three times as long to save 2 %. Blosc is told the item size, without which a shuffle does not see whole
values. The CRC-32C costs about a twentieth of the time of reading.
"""

from __future__ import annotations

from typing import Literal

from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from mmearth_data.modalities import Modality

CodecSet = Literal["bal", "mid"]
CODEC_SETS: tuple[CodecSet, ...] = ("bal", "mid")
DEFAULT_CODECS: CodecSet = "mid"


def _compressor(codecs: CodecSet, modality: Modality) -> BytesBytesCodec:
    typesize = modality.numpy_dtype.itemsize
    if codecs == "mid":
        shuffle: Literal["shuffle", "noshuffle"] = "shuffle" if typesize > 1 else "noshuffle"
        return BloscCodec(cname="lz4hc", clevel=5, shuffle=shuffle, typesize=typesize)
    if modality.kind == "categorical":
        return ZstdCodec(level=3)
    if modality.name == "sentinel1":
        # Speckle is nearly incompressible: zstd costs time there and saves nothing over lz4.
        return BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle", typesize=typesize)
    return BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle", typesize=typesize)


def compressors(codecs: CodecSet, modality: Modality) -> tuple[BytesBytesCodec, ...]:
    """The codecs from bytes to bytes of one modality's chunks; the last one adds a CRC-32C to each chunk."""
    return (_compressor(codecs, modality), Crc32cCodec())
