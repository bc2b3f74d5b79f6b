"""What the archive's plans depend on: where the planet has land and ice, and how cloudy each pass was."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.world import clouds, noise
from mmearth_data.emulator.world.biomes import ICE
from mmearth_data.emulator.world.planet import BOX, COLUMNS, ROWS, Planet, box_of

F64 = NDArray[np.float64]


class EarthSky:
    """The sky over a planet."""

    def __init__(self, planet: Planet, biomes: NDArray[np.uint8]) -> None:
        self._planet, self._biomes = planet, biomes
        # Sums over the rectangle from the South Pole and the antimeridian, twice around, to count land in any box.
        land = np.tile(planet.land, (1, 2)).astype(np.int64)
        self._land = np.pad(np.cumsum(np.cumsum(land, axis=0), axis=1), ((1, 0), (1, 0)))

    def imaged(self, west: float, south: float, east: float, north: float) -> bool:
        """Whether any half-degree box of land touches the area."""
        low = max(0, int(np.floor((south + 90.0) / BOX)))
        high = min(ROWS, int(np.floor((north + 90.0) / BOX)) + 1)
        first = int(np.floor((west + 180.0) / BOX))
        count = min(int(np.floor((east + 180.0) / BOX)) + 1 - first, COLUMNS)
        left = first % COLUMNS
        sums = self._land
        return bool(sums[high, left + count] - sums[low, left + count] - sums[high, left] + sums[low, left] > 0)

    def cloud(self, datatakes: NDArray[np.uint32], months: F64, lon: F64, lat: F64) -> F64:
        """Cloud fraction of each datatake at each point."""
        return clouds.fraction(clouds.weather(self._planet, datatakes, months, lon, lat))

    def radar_passes(self, lon: float, lat: float) -> tuple[str, ...]:
        """The directions from which a region is observed: most from both, some from one, a few not at all."""
        point = noise.sphere(np.array([lon]), np.array([lat]))
        value = float(noise.space(noise.salt(self._planet.seed, "radar plan"), point, (0.35,))[0, 0])
        # Quantiles of unit normal noise: 5 % nothing, 30 % descending, 20 % ascending, the rest both.
        if value < -1.64:
            return ()
        if value < -0.39:
            return ("DESCENDING",)
        return ("ASCENDING",) if value < 0.13 else ("ASCENDING", "DESCENDING")

    def cold(self, lon: float, lat: float) -> bool:
        """Whether the point lies on ice."""
        row, column = box_of(np.array([lon]), np.array([lat]))
        return bool(self._biomes[row[0], column[0]] == ICE)
