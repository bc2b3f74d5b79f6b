"""Where published data sets lie: the figures that a plan is compared with.

Source: M. Schmitt et al., There Are No Data Like More Data: Datasets for deep learning in Earth observation, IEEE
Geoscience and Remote Sensing Magazine 11(3), 2023, pp. 63–97, doi:10.1109/MGRS.2023.3293459.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

CITATION = "Schmitt et al. 2023, doi:10.1109/MGRS.2023.3293459"
DATA_SETS = 400
"""Published data sets that the survey looked at, about."""
SHARES: Mapping[str, float] = MappingProxyType(
    {"Europe": 0.21, "North America": 0.18, "Africa": 0.05, "South America": 0.04, "Oceania": 0.01}
)
"""Share of those data sets that lie on one continent, Australia's under Oceania; the rest is worldwide or elsewhere.

Each data set counts once, however many images it has: shares tell where people looked, not how densely.
"""
