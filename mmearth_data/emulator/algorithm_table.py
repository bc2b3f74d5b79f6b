"""What the emulator covers, as a table made of what is registered; run as a module it rewrites a page that has one.

python -m mmearth_data.emulator.algorithm_table docs/emulator.md
"""

from __future__ import annotations

import sys
from pathlib import Path

import mmearth_data.emulator.algorithms  # noqa: F401 - registers every algorithm
from mmearth_data.emulator.registry import ALGORITHMS, Algorithm
from mmearth_data.emulator.wheel import signatures

BEGIN, END = "<!-- algorithms: generated -->\n", "<!-- algorithms: end -->\n"
_NO_EFFECT = {
    "maxError": "geometry is exact",
    "tileScale": "nothing is tiled",
    "parallelScale": "nothing is tiled",
    "evenOdd": "rings are as GeoJSON's",
    "optimization": "one way computes all",
}
"""Arguments that are taken and change nothing, and why."""
DIFFERENCES = {
    "Collection.geometry": "an image without a footprint counts as the whole Earth",
    "Collection.randomColumn": "other numbers than the service's; uniform only",
    "Element.toDictionary": "collections have no properties here",
    "FeatureCollection.randomPoints": "other points than the service's",
    "Filter.intersects": "geometries of .geo and .all only",
    "Image.clip": "pixels are in or out by their centres; the service may weigh those on the edge",
    "Image.mask": "masks are 0 or 1, never between",
    "Image.pixelArea": "on WGS 84",
    "Image.random": "other numbers than the service's",
    "Image.reduceResolution": "takes pixels by their centres, not by their part",
    "Image.resample": "bilinear only; masked neighbours are left out of the weights",
    "Image.visualize": "rounds to the nearest byte, which the service does not document",
    "Image.sample": "other pixels than the service chooses",
    "ImageCollection.mosaic": "masks are 0 or 1: nothing is blended",
    "List.shuffle": "another order than the service's",
    "Number.format": "%s, and the letters d, f, e, g, x, o with width and precision",
    "Reducer.countDistinct": "exact",
    "Reducer.first": "masked pixels are left out, as in Reducer.firstNonNull",
    "Reducer.median": "exact, where the service counts in buckets",
    "Reducer.mode": "exact, where the service counts in buckets; of a stack 256 values at most",
    "Reducer.percentile": "exact, interpolated between the middles of weights",
    "Reducer.setOutputs": "drops no outputs: names that are null or empty are refused",
    "String.match": "Python's expressions; those that could run for ever are refused",
    "Terrain.slope": "four neighbours, on native pixels",
    "Date.format": "UTC; letters Y y M d H h m s S D w e E a",
    "Geometry.buffer": "in an equidistant plane around the shape, up to 10,000 km",
    "Geometry.area": "on WGS 84",
}
"""What is known to differ from the service or to be left out, beyond what the signature shows."""


def _left_out(known: Algorithm) -> list[str]:
    missing = [name for name in known.signature.parameters if name not in known.takes]
    return [f"refuses {', '.join(missing)}"] if missing else []


def _no_effect(known: Algorithm) -> list[str]:
    return [f"{name} without effect: {why}" for name, why in _NO_EFFECT.items() if name in known.takes]


def table() -> str:
    """One row per handler: the algorithms that it serves, what it does, and what is known to differ."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for name, known in sorted(ALGORITHMS.items()):
        family = known.handler.__module__.rpartition(".")[2]
        semantics = " ".join((known.handler.__doc__ or "").split("\n\n")[0].split())
        notes = [*([DIFFERENCES[name]] if name in DIFFERENCES else []), *_left_out(known), *_no_effect(known)]
        rows.setdefault((family, semantics, "; ".join(notes)), []).append(name)
    lines = [
        f"{len(ALGORITHMS)} of the {len(signatures())} algorithms that the client knows:",
        "",
        "| family | algorithms | semantics | known differences |",
        "|---|---|---|---|",
    ]
    for (family, semantics, differences), names in sorted(rows.items()):
        lines.append(f"| {family} | {', '.join(names)} | {semantics} | {differences} |".replace("  ", " "))
    return "\n".join(lines) + "\n"


def rewritten(page: str) -> str:
    """A page with its table made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(rewritten(path.read_text(encoding="utf-8")), encoding="utf-8")
