"""The registry of modalities: the one list from which fetching, storing, checking and training derive.

Adding a modality is adding one entry to ``MODALITIES`` (and an image builder in
``mmearth_data/earthengine/images.py``). Sources: MMEarth (Nedungadi et al., ECCV 2024), section 3, and the
Earth Engine catalogue page of each asset named in an entry.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Scope = Literal["pixel", "image"]
Kind = Literal["continuous", "categorical", "cyclic"]
Role = Literal["pretext", "quality", "downstream"]

ROCK_AND_ICE = "Rock and Ice"


@dataclass(frozen=True)
class Modality:
    """One aligned product: its bands, how it is stored, where it comes from, what its values mean.

    ``dtype`` and ``nodata`` are those of the store; physical value = stored value × ``scale_factor`` in ``units``.
    ``valid_range`` bounds stored valid values (inclusive). ``classes`` are (stored value, name) pairs.
    """

    name: str
    long_name: str
    bands: tuple[str, ...]
    scope: Scope
    kind: Kind
    dtype: str
    nodata: float
    units: str
    assets: tuple[str, ...]
    resampling: Literal["bilinear", "nearest"] | None
    valid_range: tuple[float, float]
    licence: str
    citation: str
    scale_factor: float = 1.0
    classes: tuple[tuple[int, str], ...] = ()
    wavelengths: tuple[float, ...] = ()
    """Central wavelength of each band in nanometres, where bands are optical."""
    stored: bool = True
    """False where the values are derived on reading from location and time (lat, lon, month)."""
    role: Role = "pretext"
    """What it is for: a decoder predicts it; it says which pixels to trust; or frozen encoders are asked for it.

    Only the first kind is ever predicted. The last is collected where it is asked for.
    """

    @property
    def pretext(self) -> bool:
        """Whether a decoder predicts it."""
        return self.role == "pretext"

    @property
    def numpy_dtype(self) -> np.dtype[np.generic]:
        """The dtype of the stored array."""
        return np.dtype(self.dtype)

    @property
    def class_values(self) -> NDArray[np.int64]:
        """Stored values of the classes in order of class index, shape (classes,)."""
        return np.array([value for value, _ in self.classes], dtype=np.int64)

    def valid(self, stored: NDArray[np.generic]) -> NDArray[np.bool_]:
        """Where stored values are data rather than no-data, same shape as ``stored``."""
        if math.isnan(self.nodata):
            return ~np.isnan(stored.astype(np.float64, copy=False))
        result: NDArray[np.bool_] = stored != self.numpy_dtype.type(self.nodata)
        return result


_COPERNICUS = "Copernicus Sentinel data, free and open (Legal notice on the use of Copernicus Sentinel Data)"
_MMEARTH = "Nedungadi et al. 2024, MMEarth, ECCV"
_S2 = ("COPERNICUS/S2_SR_HARMONIZED", "COPERNICUS/S2_HARMONIZED")
_RESOLVE = ("RESOLVE/ECOREGIONS/2017",)
_RESOLVE_CITATION = "Dinerstein et al. 2017, doi:10.1093/biosci/bix014"

WORLDCOVER_CLASSES = (
    (10, "Tree cover"),
    (20, "Shrubland"),
    (30, "Grassland"),
    (40, "Cropland"),
    (50, "Built-up"),
    (60, "Bare / sparse vegetation"),
    (70, "Snow and ice"),
    (80, "Permanent water bodies"),
    (90, "Herbaceous wetland"),
    (95, "Mangroves"),
    (100, "Moss and lichen"),
)
DYNAMIC_WORLD_CLASSES = (
    (1, "water"),
    (2, "trees"),
    (3, "grass"),
    (4, "flooded_vegetation"),
    (5, "crops"),
    (6, "shrub_and_scrub"),
    (7, "built"),
    (8, "bare"),
    (9, "snow_and_ice"),
)
SCL_CLASSES = (
    (1, "Saturated or defective"),
    (2, "Dark area pixels"),
    (3, "Cloud shadows"),
    (4, "Vegetation"),
    (5, "Bare soils"),
    (6, "Water"),
    (7, "Clouds low probability or unclassified"),
    (8, "Clouds medium probability"),
    (9, "Clouds high probability"),
    (10, "Cirrus"),
    (11, "Snow or ice"),
)


@cache
def _ecoregion_rows() -> tuple[tuple[str, str], ...]:
    """(biome, ecoregion) of RESOLVE Ecoregions 2017 in class order, Rock and Ice left out."""
    text = resources.files("mmearth_data").joinpath("ecoregions.csv").read_text(encoding="utf-8")
    return tuple((row["biome"], row["ecoregion"]) for row in csv.DictReader(text.splitlines()))


BIOME_NAMES: tuple[str, ...] = tuple(dict.fromkeys(biome for biome, _ in _ecoregion_rows()))
"""The 14 biomes; a biome's class id is its index here (first appearance in RESOLVE's OBJECTID order)."""
ECOREGION_NAMES: tuple[str, ...] = tuple(name for _, name in _ecoregion_rows())
"""The 846 ecoregions; an ecoregion's class id is its index here (biome by biome, in file order)."""
ECOREGION_BIOME: dict[str, str] = {name: biome for biome, name in _ecoregion_rows()}
"""The biome of each ecoregion, by name."""

_S2_WAVELENGTHS = (442.7, 492.4, 559.8, 664.6, 704.1, 740.5, 782.8, 864.7, 832.8, 945.1, 1373.5, 1613.7, 2202.4)
_ERA5_VARIABLES = ("temperature_2m", "temperature_2m_min", "temperature_2m_max", "total_precipitation_sum")
_ERA5_PERIODS = ("previous_month", "month", "year")

MODALITIES: dict[str, Modality] = {
    modality.name: modality
    for modality in (
        Modality(
            name="sentinel2",
            long_name="Sentinel-2 MSI reflectance (L1C top of atmosphere or L2A surface, see level)",
            bands=("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8A", "B8", "B9", "B10", "B11", "B12"),
            wavelengths=_S2_WAVELENGTHS,
            scope="pixel", kind="continuous", dtype="uint16", nodata=0, units="1", scale_factor=1e-4,
            assets=_S2, resampling="bilinear", valid_range=(1, 65535),
            licence=_COPERNICUS, citation="Drusch et al. 2012, doi:10.1016/j.rse.2011.11.026",
        ),
        Modality(
            name="sentinel2_cloudmask",
            long_name="Sentinel-2 cloud mask bits (QA60: bit 10 opaque cloud, bit 11 cirrus)",
            bands=("QA60",), scope="pixel", kind="continuous", dtype="uint16", nodata=65535, units="1",
            assets=_S2, resampling="nearest", valid_range=(0, 3072), role="quality",
            licence=_COPERNICUS, citation=_MMEARTH,
        ),
        Modality(
            name="sentinel2_cloudprod",
            long_name="Sentinel-2 L2A cloud probability (MSK_CLDPRB)",
            bands=("MSK_CLDPRB",), scope="pixel", kind="continuous", dtype="uint8", nodata=255, units="percent",
            assets=_S2[:1], resampling="nearest", valid_range=(0, 100), role="quality",
            licence=_COPERNICUS, citation=_MMEARTH,
        ),
        Modality(
            name="sentinel2_scl",
            long_name="Sentinel-2 L2A scene classification (SCL)",
            bands=("SCL",), scope="pixel", kind="categorical", dtype="uint8", nodata=255, units="1",
            assets=_S2[:1], resampling="nearest", valid_range=(1, 11), classes=SCL_CLASSES, role="quality",
            licence=_COPERNICUS, citation=_MMEARTH,
        ),
        Modality(
            name="cloud_score",
            long_name="Cloud Score+ clear-sky score (cs_cdf)",
            bands=("cs_cdf",), scope="pixel", kind="continuous", dtype="uint8", nodata=255, units="1",
            scale_factor=0.01, assets=("GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED",), resampling="nearest",
            valid_range=(0, 100), role="quality",
            licence="CC-BY-4.0", citation="Pasquarella et al. 2023, Cloud Score+, CVPR workshops",
        ),
        Modality(
            name="sentinel1",
            long_name="Sentinel-1 GRD backscatter, nearest ascending and descending pass",
            bands=("asc_VV", "asc_VH", "asc_HH", "asc_HV", "desc_VV", "desc_VH", "desc_HH", "desc_HV"),
            scope="pixel", kind="continuous", dtype="int16", nodata=-32768, units="dB", scale_factor=0.01,
            assets=("COPERNICUS/S1_GRD",), resampling="bilinear", valid_range=(-10000, 10000),
            licence=_COPERNICUS, citation="Torres et al. 2012, doi:10.1016/j.rse.2011.05.028",
        ),
        Modality(
            name="aster",
            long_name="ASTER GDEM elevation (m) and slope (hundredths of a degree)",
            bands=("elevation", "slope"), scope="pixel", kind="continuous", dtype="int16", nodata=-32768,
            units="m; 0.01 degree", assets=("projects/sat-io/open-datasets/ASTER/GDEM",), resampling="bilinear",
            valid_range=(-500, 9000),
            licence="Public domain", citation="Abrams et al. 2020, doi:10.3390/rs12071156",
        ),
        Modality(
            name="dynamic_world",
            long_name="Dynamic World land cover, mode of the calendar year",
            bands=("landcover",), scope="pixel", kind="categorical", dtype="uint8", nodata=0, units="1",
            assets=("GOOGLE/DYNAMICWORLD/V1",), resampling="nearest", valid_range=(1, 9),
            classes=DYNAMIC_WORLD_CLASSES,
            licence="CC-BY-4.0", citation="Brown et al. 2022, doi:10.1038/s41597-022-01307-4",
        ),
        Modality(
            name="canopy_height_eth",
            long_name="ETH global canopy top height 2020 and its standard deviation",
            bands=("height", "std"), scope="pixel", kind="continuous", dtype="uint8", nodata=255, units="m",
            assets=(
                "users/nlang/ETH_GlobalCanopyHeight_2020_10m_v1",
                "users/nlang/ETH_GlobalCanopyHeightSD_2020_10m_v1",
            ),
            resampling="bilinear", valid_range=(0, 100),
            licence="CC-BY-4.0", citation="Lang et al. 2023, doi:10.1038/s41559-023-02206-6",
        ),
        Modality(
            name="esa_worldcover",
            long_name="ESA WorldCover 2020 land cover",
            bands=("map",), scope="pixel", kind="categorical", dtype="uint8", nodata=0, units="1",
            assets=("ESA/WorldCover/v100",), resampling="nearest", valid_range=(10, 100),
            classes=WORLDCOVER_CLASSES,
            licence="CC-BY-4.0", citation="Zanaga et al. 2021, doi:10.5281/zenodo.5571936",
        ),
        Modality(
            name="era5",
            long_name="ERA5-Land monthly temperature (K) and precipitation (m): previous month, month, year",
            bands=tuple(f"{period}_{variable}" for period in _ERA5_PERIODS for variable in _ERA5_VARIABLES),
            scope="image", kind="continuous", dtype="float32", nodata=math.nan, units="K; m",
            assets=("ECMWF/ERA5_LAND/MONTHLY_AGGR",), resampling=None, valid_range=(0, 400),
            licence="CC-BY-4.0",
            citation="Muñoz-Sabater et al. 2021, doi:10.5194/essd-13-4349-2021",
        ),
        Modality(
            name="biome",
            long_name="RESOLVE biome", bands=("class",), scope="image", kind="categorical", dtype="uint8",
            nodata=255, units="1", assets=_RESOLVE, resampling=None, valid_range=(0, len(BIOME_NAMES) - 1),
            classes=tuple(enumerate(BIOME_NAMES)),
            licence="CC-BY-4.0", citation=_RESOLVE_CITATION,
        ),
        Modality(
            name="eco_region",
            long_name="RESOLVE ecoregion", bands=("class",), scope="image", kind="categorical", dtype="uint16",
            nodata=65535, units="1", assets=_RESOLVE, resampling=None,
            valid_range=(0, len(ECOREGION_NAMES) - 1), classes=tuple(enumerate(ECOREGION_NAMES)),
            licence="CC-BY-4.0", citation=_RESOLVE_CITATION,
        ),
        Modality(
            name="jrc_surface_water",
            long_name="JRC Global Surface Water: share of 1984–2021 with water, months with water in 2021",
            bands=("occurrence", "seasonality"), scope="pixel", kind="continuous", dtype="uint8", nodata=255,
            units="percent; months", assets=("JRC/GSW1_4/GlobalSurfaceWater",), resampling="nearest",
            valid_range=(0, 100), role="downstream",
            licence="Free use with attribution (European Commission)",
            citation="Pekel et al. 2016, doi:10.1038/nature20584",
        ),
        Modality(
            name="ghsl_built_surface",
            long_name="GHSL built-up surface of 2020 in each 100 m cell, and the part of it that is not residential",
            bands=("built_surface", "built_surface_nres"), scope="pixel", kind="continuous", dtype="uint16",
            nodata=65535, units="m2", assets=("JRC/GHSL/P2023A/GHS_BUILT_S",), resampling="nearest",
            valid_range=(0, 10000), role="downstream",
            licence="CC-BY-4.0", citation="Pesaresi and Politis 2023, doi:10.2905/9F06F36F-4B11-47EC-ABB0-4F8B7B1D72EA",
        ),
        *(
            Modality(
                name=name, long_name=long_name, bands=("sin", "cos"), scope="image", kind="cyclic",
                dtype="float32", nodata=math.nan, units="1", assets=(), resampling=None, valid_range=(-1, 1),
                stored=False, licence="not applicable", citation=_MMEARTH,
            )
            for name, long_name in (
                ("lat", "Latitude as sine and cosine of the angle"),
                ("lon", "Longitude as sine and cosine of the angle"),
                ("month", "Month of acquisition as sine and cosine of 2π(month − 1)/12"),
            )
        ),
    )
}  # fmt: skip
"""Every modality by name: the twelve of MMEarth, four Sentinel-2 masks, Cloud Score+, and what is asked downstream."""

STORED: tuple[Modality, ...] = tuple(m for m in MODALITIES.values() if m.stored and m.role != "downstream")
"""Modalities that have an array in every store, in store order."""
DOWNSTREAM: tuple[Modality, ...] = tuple(m for m in MODALITIES.values() if m.role == "downstream")
"""Modalities that have an array, after the others, in stores that were asked to hold them."""
PIXEL: tuple[Modality, ...] = tuple(m for m in STORED if m.scope == "pixel")
"""Modalities of every store that are fetched as pixels, in store order."""
PRETEXT: tuple[Modality, ...] = tuple(m for m in MODALITIES.values() if m.pretext)
"""Modalities that a decoder predicts: the twelve of MMEarth."""

MODEL_INPUT_BANDS: tuple[str, ...] = tuple(b for b in MODALITIES["sentinel2"].bands if b != "B10")
"""Bands of sentinel2 that enter and leave the model, for both levels: B10 exists in L1C only."""


class UnknownModalityError(ValueError):
    """A name that is not in the registry; the message lists those that are."""


def get(name: str) -> Modality:
    """The modality called ``name``; raises UnknownModalityError, naming the known ones, otherwise."""
    try:
        return MODALITIES[name]
    except KeyError:
        known = ", ".join(MODALITIES)
        raise UnknownModalityError(f"unknown modality {name!r}; choose from: {known}") from None


def stored_with(downstream: Iterable[str]) -> tuple[Modality, ...]:
    """What a store holds that was asked for these downstream modalities (``all``: every one), in store order.

    Raises UnknownModalityError for a name that is not in the registry or not downstream.
    """
    asked = set(downstream)
    known = {modality.name for modality in DOWNSTREAM}
    if unknown := sorted(asked - known - {"all"}):
        raise UnknownModalityError(
            f"{unknown[0]!r} is no downstream modality; choose from: all, {', '.join(sorted(known))}"
        )
    return (*STORED, *(modality for modality in DOWNSTREAM if asked & {modality.name, "all"}))
