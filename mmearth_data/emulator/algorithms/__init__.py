"""Every algorithm that the emulator implements, one module per family; importing the package registers them all.

To add one, write a function with Earth Engine's parameter names in the module of its family and decorate it with
``@algorithm("Its.name")``.
"""

from mmearth_data.emulator.algorithms import (
    arithmetic,
    collections,
    composites,
    dates,
    elements,
    filters,
    geometries,
    images,
    masks,
    numbers,
    regions,
    terrain,
)

__all__ = [
    "arithmetic",
    "collections",
    "composites",
    "dates",
    "elements",
    "filters",
    "geometries",
    "images",
    "masks",
    "numbers",
    "regions",
    "terrain",
]
