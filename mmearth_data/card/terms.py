"""Under which terms each source of the data may be used, and how its makers ask to be named.

Looked up on the pages named here in November 2026; the terms of whoever publishes a product rule, not this list.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmearth_data.modalities import Modality

CC_BY = "CC-BY-4.0"
_CC_BY_TEXT = "https://creativecommons.org/licenses/by/4.0/"
_CATALOGUE = "https://developers.google.com/earth-engine/datasets/catalog/"
_COMMUNITY = "https://gee-community-catalog.org/projects/"


@dataclass(frozen=True)
class Terms:
    """Terms of one source: its licence (an SPDX identifier where it has one) and where that is written down.

    ``attribution`` are the words to name the source with, ``page`` describes the asset.
    """

    licence: str
    text: str
    attribution: str
    page: str


_SENTINEL = (
    "Copernicus Sentinel data legal notice",
    "https://sentinels.copernicus.eu/documents/247904/690755/Sentinel_Data_Legal_Notice",
    "Contains modified Copernicus Sentinel data (years of the acquisitions)",
)

TERMS: dict[str, Terms] = {
    "COPERNICUS/S2_SR_HARMONIZED": Terms(*_SENTINEL, _CATALOGUE + "COPERNICUS_S2_SR_HARMONIZED"),
    "COPERNICUS/S2_HARMONIZED": Terms(*_SENTINEL, _CATALOGUE + "COPERNICUS_S2_HARMONIZED"),
    "COPERNICUS/S1_GRD": Terms(*_SENTINEL, _CATALOGUE + "COPERNICUS_S1_GRD"),
    "GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED": Terms(
        CC_BY, _CC_BY_TEXT, "Cloud Score+, Google", _CATALOGUE + "GOOGLE_CLOUD_SCORE_PLUS_V1_S2_HARMONIZED"
    ),
    # Version 3 is in the public domain (data policy, jspacesystems.or.jp/ersdac/GDEM/E/3.html); earlier ones were not.
    "projects/sat-io/open-datasets/ASTER/GDEM": Terms(
        "Public domain",
        "http://www.jspacesystems.or.jp/ersdac/GDEM/E/3.html",
        "ASTER GDEM courtesy of METI and NASA",
        _COMMUNITY + "aster/",
    ),
    "GOOGLE/DYNAMICWORLD/V1": Terms(
        CC_BY,
        _CC_BY_TEXT,
        "Dynamic World, Google with the National Geographic Society and the World Resources Institute; contains "
        "modified Copernicus Sentinel data",
        _CATALOGUE + "GOOGLE_DYNAMICWORLD_V1",
    ),
    "users/nlang/ETH_GlobalCanopyHeight_2020_10m_v1": Terms(
        CC_BY, _CC_BY_TEXT, "Lang, Jetz, Schindler and Wegner, ETH Zürich", _COMMUNITY + "canopy/"
    ),
    "users/nlang/ETH_GlobalCanopyHeightSD_2020_10m_v1": Terms(
        CC_BY, _CC_BY_TEXT, "Lang, Jetz, Schindler and Wegner, ETH Zürich", _COMMUNITY + "canopy/"
    ),
    "ESA/WorldCover/v100": Terms(
        CC_BY,
        _CC_BY_TEXT,
        "© ESA WorldCover project 2020, contains modified Copernicus Sentinel data (2020) processed by the ESA "
        "WorldCover consortium",
        _CATALOGUE + "ESA_WorldCover_v100",
    ),
    # The licence of Copernicus products gave way to CC-BY on 2 July 2025 (forum.ecmwf.int, announcement 13464).
    "ECMWF/ERA5_LAND/MONTHLY_AGGR": Terms(
        CC_BY,
        _CC_BY_TEXT,
        "Contains modified Copernicus Climate Change Service information; neither the European Commission nor ECMWF "
        "is responsible for any use of it",
        _CATALOGUE + "ECMWF_ERA5_LAND_MONTHLY_AGGR",
    ),
    "RESOLVE/ECOREGIONS/2017": Terms(
        CC_BY, _CC_BY_TEXT, "Ecoregions 2017, RESOLVE", _CATALOGUE + "RESOLVE_ECOREGIONS_2017"
    ),
    "JRC/GSW1_4/GlobalSurfaceWater": Terms(
        "Free use with attribution (European Commission)",
        "https://global-surface-water.appspot.com/download",
        "Source: EC JRC/Google",
        _CATALOGUE + "JRC_GSW1_4_GlobalSurfaceWater",
    ),
    "JRC/GHSL/P2023A/GHS_BUILT_S": Terms(
        CC_BY,
        _CC_BY_TEXT,
        "GHSL, European Commission, Joint Research Centre",
        _CATALOGUE + "JRC_GHSL_P2023A_GHS_BUILT_S",
    ),
}
"""Terms of every asset that the registry names."""


def terms_of(modality: Modality) -> tuple[Terms, ...]:
    """Terms of the modality's assets, each once, in the registry's order."""
    return tuple(dict.fromkeys(TERMS[asset] for asset in modality.assets))
