"""Reflectances: what pure surfaces look like to Sentinel-2, and what the atmosphere makes of them.

Typical values of spectral libraries and of Sentinel-2 scenes, × 10⁴, rounded; bands in the order of ``BANDS``.
"""

from __future__ import annotations

import numpy as np

BANDS = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")
INDEX = {name: number for number, name in enumerate(BANDS)}

BROADLEAF, CONIFER, HERB, DRY, GREY_SOIL, RED_SOIL, WATER, TURBID, SNOW, BUILT, MOSS, WET = range(12)
_ENDMEMBERS = np.array(
    [
        # B1    B2    B3    B4    B5    B6    B7    B8   B8A    B9  B10   B11   B12
        [190, 240, 500, 270, 880, 2650, 3350, 3500, 3700, 3650, 3500, 1750, 800],
        [140, 175, 340, 205, 540, 1500, 1850, 1950, 2050, 2000, 1900, 900, 410],
        [310, 420, 820, 560, 1280, 2700, 3150, 3350, 3500, 3450, 3300, 2350, 1280],
        [560, 760, 1150, 1560, 1900, 2150, 2350, 2560, 2750, 2850, 2900, 3600, 2700],
        [900, 1080, 1420, 1800, 1980, 2100, 2220, 2350, 2480, 2520, 2600, 3050, 2750],
        [620, 800, 1250, 2150, 2450, 2600, 2720, 2850, 3000, 3050, 3150, 3850, 3250],
        [430, 390, 290, 170, 145, 120, 112, 95, 85, 75, 60, 40, 28],
        [720, 880, 1180, 1060, 950, 560, 520, 430, 400, 350, 250, 90, 55],
        [9100, 9250, 9200, 9100, 8900, 8600, 8500, 8300, 8100, 7700, 2500, 950, 850],
        [1150, 1300, 1480, 1640, 1720, 1820, 1900, 2010, 2060, 2080, 2050, 2200, 2000],
        [420, 540, 880, 920, 1280, 1900, 2120, 2280, 2420, 2420, 2400, 2600, 1620],
        [380, 470, 640, 740, 860, 990, 1070, 1130, 1190, 1190, 1150, 1050, 740],
    ],
    dtype=np.float32,
)
ENDMEMBERS = _ENDMEMBERS
"""Surface reflectance of pure covers, shape (12, 13)."""

CLOUD = np.array(
    [6600, 6500, 6300, 6400, 6500, 6600, 6700, 6800, 6900, 5200, 350, 4700, 3700], dtype=np.float32
)  # fmt: skip
"""A thick water cloud from above."""
CIRRUS = np.array(
    [5200, 5000, 4800, 4700, 4700, 4700, 4700, 4700, 4700, 4300, 2600, 3300, 2800], dtype=np.float32
)  # fmt: skip
"""Dense ice cloud from above; B10 sees it because it lies over the water vapour."""

PATH = np.array([1090, 790, 420, 240, 190, 150, 130, 95, 85, 35, 9, 12, 6], dtype=np.float32)
"""Reflectance that clear air itself adds at the top of the atmosphere, at mean aerosol and a high sun."""
TRANSMISSION = np.array(
    [0.82, 0.85, 0.87, 0.91, 0.92, 0.93, 0.94, 0.94, 0.95, 0.34, 0.003, 0.95, 0.92], dtype=np.float32
)  # fmt: skip
"""Two-way transmission of clear air."""
CORRECTION_ERROR = np.array([95, 60, 35, 25, 18, 14, 12, 10, 10, 30, 0, 8, 8], dtype=np.float32)
"""By how much a product's atmospheric correction is typically wrong (standard deviation)."""
