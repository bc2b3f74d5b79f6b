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
    "Collection.randomColumn": "other numbers than the service's",
    "Date.format": "UTC",
    "Element.toDictionary": "collections have no properties here",
    "FeatureCollection.randomPoints": "other points than the service's",
    "Geometry.area": "on WGS 84",
    "Geometry.buffer": "in an equidistant plane around the shape",
    "Image.clip": "pixels are in or out by their centres; the service may weigh those on the edge",
    "Image.mask": "masks are 0 or 1, never between",
    "Image.pixelArea": "on WGS 84",
    "Image.random": "other numbers than the service's",
    "Image.reduceResolution": "takes pixels by their centres, not by their part",
    "Image.resample": "masked neighbours are left out of the weights",
    "Image.sample": "other pixels than the service chooses",
    "Image.visualize": "rounds to the nearest byte, which the service does not document",
    "ImageCollection.mosaic": "masks are 0 or 1: nothing is blended",
    "List.shuffle": "another order than the service's",
    "Reducer.countDistinct": "exact",
    "Reducer.first": "masked pixels are left out, as in Reducer.firstNonNull",
    "Reducer.median": "exact, where the service counts in buckets",
    "Reducer.mode": "exact, where the service counts in buckets",
    "Reducer.percentile": "exact, interpolated between the middles of weights",
    "String.match": "Python's expressions",
    "String.replace": "Python's expressions",
    "String.split": "Python's expressions",
    "Terrain.slope": "four neighbours, on native pixels",
}
"""What is known to be answered otherwise than by the service."""
_FOCAL = ("Max", "Mean", "Median", "Min", "Mode")
REFUSED = {
    "Collection.randomColumn": "distributions but uniform",
    "Date.advance": "parts of months and years",
    "Date.format": "letters but Y y M d H h m s S D w e E a",
    "Date.parse": "letters but Y y M d H m s, and months by name",
    **dict.fromkeys(("Element.set", "Element.setMulti"), "system:footprint"),
    **dict.fromkeys(
        (f"Filter.{name}" for name in ("contains", "disjoint", "intersects", "isContained", "withinDistance")),
        "geometries of fields but .geo and .all",
    ),
    "Geometry.buffer": "distances beyond 10,000 km",
    **dict.fromkeys(
        (
            f"GeometryConstructors.{name}"
            for name in ("LineString", "LinearRing", "MultiLineString", "MultiPolygon", "Polygon", "Rectangle")
        ),
        "geodesic edges in degrees of another datum than WGS 84",
    ),
    "GeometryConstructors.MultiGeometry": "crs",
    **dict.fromkeys(
        (f"Image.{name}" for kind in _FOCAL for name in (f"focal{kind}", f"focal_{kind.lower()}")),
        "units but pixels, octagons, more than 20 iterations",
    ),
    "Image.reduceNeighborhood": "reducers of several inputs",
    "Image.reduceResolution": "reducers of several inputs or outputs",
    "Image.resample": "bicubic",
    "Image.visualize": "colours by names that CSS 2.1 lacks",
    **dict.fromkeys(
        (f"Kernel.{name}" for name in ("circle", "cross", "diamond", "gaussian", "plus", "rectangle", "square")),
        "units but pixels, radii beyond 512",
    ),
    "Number.format": "letters but d f e g x o s",
    **dict.fromkeys(("Reducer.forEach", "Reducer.forEachBand"), "reducers of several outputs"),
    **dict.fromkeys(("Reducer.mode", "reduce.mode"), "more than 256 distinct values in a stack"),
    "Reducer.setOutputs": "names that are null or empty, which drop an output",
    **dict.fromkeys(
        ("String.match", "String.replace", "String.split"), "flags but g and i, and expressions that may run for ever"
    ),
    **dict.fromkeys(("List.join", "String"), "values but numbers and texts"),
    "Terrain.slope": "rotated grids",
}
"""What of an argument is refused with a message, beyond arguments that are refused whole."""


def _refused(name: str, known: Algorithm) -> list[str]:
    missing = [parameter for parameter in known.signature.parameters if parameter not in known.takes]
    refused = [*missing, *([REFUSED[name]] if name in REFUSED else [])]
    return [f"refuses {', '.join(refused)}"] if refused else []


def _no_effect(known: Algorithm) -> list[str]:
    return [f"{name} without effect: {why}" for name, why in _NO_EFFECT.items() if name in known.takes]


def table() -> str:
    """One row per handler: the algorithms that it serves, what it does, and what is known to differ."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for name, known in sorted(ALGORITHMS.items()):
        family = known.handler.__module__.rpartition(".")[2]
        semantics = " ".join((known.handler.__doc__ or "").split("\n\n")[0].split())
        notes = [*([DIFFERENCES[name]] if name in DIFFERENCES else []), *_refused(name, known), *_no_effect(known)]
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
