"""Fields of the world at any points, in whatever order and projection they were found."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.world import blocks, frames
from mmearth_data.emulator.world.blocks import CORE, MARGIN, Render

F64 = NDArray[np.float64]


def at(lon: F64, lat: F64, render: Render) -> NDArray[np.generic]:
    """A field's nearest values at 10 m, (…, n), at points in degrees (n,); only blocks that hold a point are made."""
    out: NDArray[np.generic] | None = None
    owner = frames.frame_of(lon, lat)
    for epsg in np.unique(owner).tolist():
        members = np.nonzero(owner == epsg)[0]
        east, north = frames.from_lonlat(epsg, lon[members], lat[members])
        row = np.floor(-north / frames.PIXEL).astype(np.int64)
        column = np.floor(east / frames.PIXEL).astype(np.int64)
        places, place = np.unique(np.stack([row // CORE, column // CORE], axis=1), axis=0, return_inverse=True)
        for number, (i, j) in enumerate(places.tolist()):
            inside = np.nonzero(place.ravel() == number)[0]
            field = render(blocks.block(epsg, i, j))
            values = field[..., row[inside] - i * CORE + MARGIN, column[inside] - j * CORE + MARGIN]
            if out is None:
                out = np.empty((*field.shape[:-2], len(lon)), dtype=field.dtype)
            out[..., members[inside]] = values
    if out is None:
        raise ValueError("a field must be asked for at one point at least")
    return out
