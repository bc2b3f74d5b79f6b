"""The directory of a store: making it, growing it, and reading what it says of itself.

    zarr.json            the Zarr v3 group with consolidated metadata of every array
    <array>/zarr.json    and <array>/c/…, one file per shard for modalities
    _commits/            row table and commit record of each shard; a shard without a record does not exist
    _plan/, _quarantine/ belong to collection
    locations.parquet    consolidated row tables        statistics.json   of the train split

Metadata is written by hand from what Zarr itself makes of each array: consolidating through Zarr would take the
extra folders for broken arrays, and one write of the root makes growing atomic for readers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import zarr
from zarr.storage import MemoryStore

from mmearth_data.modalities import DOWNSTREAM, STORED, Modality
from mmearth_data.store import schema
from mmearth_data.store.codecs import DEFAULT_CODECS, CodecSet
from mmearth_data.store.files import StoreError, make_directory, remove_left_overs, write_atomic
from mmearth_data.store.objects import Place, at

FORMAT_VERSION = 1
"""Raised whenever a store written before could be misread; readers refuse every other version by name."""
COMMITS = "_commits"
LOCATIONS = "locations.parquet"
STATISTICS = "statistics.json"

_VERSION_KEY = "mmearth_format"
_OWN_ATTRIBUTES = ("Conventions", "title", "coordinates", _VERSION_KEY, "tile_pixels", "shard_rows", "codecs")


@dataclass(frozen=True)
class Layout:
    """What a store's root metadata says: sizes, the caller's attributes, each array's Zarr metadata by name."""

    path: Place
    tile_pixels: int
    shard_rows: int
    rows: int
    attrs: dict[str, Any]
    arrays: dict[str, dict[str, Any]]

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities that it holds, in store order."""
        return (*STORED, *(modality for modality in DOWNSTREAM if modality.name in self.arrays))

    @property
    def chunk_rows(self) -> int:
        """Rows per inner chunk of pixel modalities: reading aligned runs of this many rows decodes nothing twice."""
        return schema.chunk_rows(self.tile_pixels, self.shard_rows)

    @property
    def shards(self) -> int:
        """Number of shards that the store has room for."""
        return self.rows // self.shard_rows


def _json(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _array_files(spec: schema.ArraySpec) -> dict[str, bytes]:
    """Files of one array as Zarr writes them, by path below the array: metadata and any content known already."""
    memory: dict[str, Any] = {}
    array = zarr.create_array(
        MemoryStore(memory),
        shape=spec.shape,
        chunks=spec.chunks,
        shards=spec.shards,
        dtype=str if spec.dtype == "str" else spec.dtype,
        fill_value=spec.fill_value,
        compressors="auto" if spec.compressors is None else spec.compressors,
        attributes=spec.attributes,
        dimension_names=spec.dimensions,
        zarr_format=3,
    )
    if spec.values is not None:
        array[:] = spec.values
    return {name: value.to_bytes() for name, value in memory.items()}


def _root(attributes: dict[str, Any], arrays: dict[str, dict[str, Any]]) -> bytes:
    consolidated = {"kind": "inline", "must_understand": False, "metadata": arrays}
    return _json(
        {
            "zarr_format": 3,
            "node_type": "group",
            "attributes": attributes,
            "consolidated_metadata": consolidated,
        }
    )


def _check_free(path: Place, known: set[str]) -> None:
    if (path / "zarr.json").exists():
        raise StoreError(f"{path} already holds a store; choose another directory or go on with that store")
    if not path.is_dir():
        return
    foreign = sorted(entry.name for entry in path.iterdir() if entry.name not in known and entry.name[0] not in "._")
    if foreign:
        raise StoreError(f"{path} must be empty to become a store but holds {foreign[0]!r}; choose another directory")


def create(
    path: str | Place,
    *,
    tile_pixels: int,
    shard_rows: int,
    attrs: dict[str, Any],
    codecs: CodecSet = DEFAULT_CODECS,
    modalities: tuple[Modality, ...] = STORED,
) -> None:
    """Make an empty store of ``modalities`` with no rows at ``path``; ``attrs`` become attributes of the root group.

    Raises StoreError where a store or foreign files are there, the directory cannot be written, or ``attrs`` use a
    name of the layout's own. Killed half-way it leaves no store, and the next call starts over.
    """
    root = at(path)
    if tile_pixels < 1 or shard_rows < 1:
        raise StoreError(f"tile_pixels and shard_rows must be positive, not {tile_pixels} and {shard_rows}")
    taken = sorted(set(attrs) & set(_OWN_ATTRIBUTES))
    if taken:
        raise StoreError(f"attribute {taken[0]!r} belongs to the store's layout; choose another name")
    specs = schema.arrays(tile_pixels, shard_rows, codecs, modalities)
    _check_free(root, {spec.name for spec in specs})
    make_directory(root / COMMITS)
    documents: dict[str, dict[str, Any]] = {}
    for spec in specs:
        for name, content in _array_files(spec).items():
            if name == "zarr.json":
                documents[spec.name] = json.loads(content)
                content = _json(documents[spec.name])
            write_atomic(root / spec.name / name, content)
            remove_left_overs((root / spec.name / name).parent)
    attributes = {
        "Conventions": "CF-1.11",
        "title": "Aligned Earth observation modalities for balanced locations",
        "coordinates": " ".join(schema.coordinate_names()),
        _VERSION_KEY: FORMAT_VERSION,
        "tile_pixels": tile_pixels,
        "shard_rows": shard_rows,
        "codecs": codecs,
        **attrs,
    }
    write_atomic(root / "zarr.json", _root(attributes, documents))


def _document(root: Place) -> dict[str, Any]:
    if not root.exists():
        raise StoreError(f"{root} does not exist; make a store with: mmearth collect --store {root} --locations FILE")
    try:
        document = json.loads((root / "zarr.json").read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(f"{root} is not a store (it has no zarr.json); name the directory given to collect") from None
    except OSError as error:
        raise StoreError(f"cannot read {root / 'zarr.json'}: {error.strerror}; check its permissions") from error
    except ValueError as error:
        raise StoreError(f"{root / 'zarr.json'} is damaged ({error}); restore it from a copy") from error
    if not isinstance(document, dict) or _VERSION_KEY not in document.get("attributes", {}):
        raise StoreError(f"{root} is a Zarr group but not a store of mmearth; name the directory given to collect")
    return document


def _check_modalities(root: Place, arrays: dict[str, dict[str, Any]]) -> None:
    """Every stored modality of the registry must be there as the registry has it, and a downstream one if at all."""
    for modality in (*STORED, *(one for one in DOWNSTREAM if one.name in arrays)):
        array = arrays.get(modality.name)
        seen = (array["data_type"], array["shape"][1]) if array else None
        if seen != (modality.dtype, len(modality.bands)):
            found = f"as {seen[0]} with {seen[1]} bands" if seen else "not at all"
            raise StoreError(
                f"{root} was made with another list of modalities: {modality.name} must be {modality.dtype} with "
                f"{len(modality.bands)} bands and is there {found}; read it with the mmearth that wrote it"
            )


def read_layout(path: str | Place) -> Layout:
    """What the store at ``path`` says of itself.

    Raises StoreError where there is none, or one of another format version or list of modalities.
    """
    root = at(path)
    document = _document(root)
    attributes = dict(document["attributes"])
    version = attributes[_VERSION_KEY]
    if version != FORMAT_VERSION:
        remedy = (
            "upgrade mmearth to read it"
            if isinstance(version, int) and version > FORMAT_VERSION
            else "read it with the mmearth that wrote it, or collect it again"
        )
        raise StoreError(f"{root} has store format {version}, this mmearth reads format {FORMAT_VERSION}; {remedy}")
    arrays = document["consolidated_metadata"]["metadata"]
    _check_modalities(root, arrays)
    return Layout(
        path=root,
        tile_pixels=attributes["tile_pixels"],
        shard_rows=attributes["shard_rows"],
        rows=arrays["location_id"]["shape"][0],
        attrs={name: value for name, value in attributes.items() if name not in _OWN_ATTRIBUTES},
        arrays=arrays,
    )


def resize(path: str | Place, rows: int) -> None:
    """Grow the store to ``rows``, a multiple of its shard rows; nothing that is stored moves.

    Raises StoreError for a smaller size or a broken shard. The root is written last and at once: readers see the old
    size or the new one, and after a kill the next call finishes.
    """
    layout = read_layout(path)
    if rows % layout.shard_rows:
        raise StoreError(f"a store grows by whole shards of {layout.shard_rows} rows; {rows} is no multiple of that")
    if rows < layout.rows:
        raise StoreError(f"a store never shrinks: it has {layout.rows} rows, {rows} were asked for; make a new store")
    for name, document in layout.arrays.items():
        if document["dimension_names"][0] == "location":
            document["shape"][0] = rows
            write_atomic(layout.path / name / "zarr.json", _json(document))
            remove_left_overs(layout.path / name)
    attributes = _document(layout.path)["attributes"]
    write_atomic(layout.path / "zarr.json", _root(attributes, layout.arrays))
