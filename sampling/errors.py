"""What can be wrong with a request for a plan; every message is one line with the remedy."""

from __future__ import annotations


class SamplingError(ValueError):
    """A plan cannot be made from these inputs."""


class LayerError(SamplingError):
    """A vector layer cannot be used: not a vector file, no CRS, missing columns, unknown names, no area."""


class YearsError(SamplingError):
    """The years are not a range such as 2017-2020."""


class TooFewCellsError(SamplingError):
    """A biome has fewer eligible cells than the plan needs; ``most`` locations can be planned."""

    def __init__(self, message: str, most: int) -> None:
        super().__init__(message)
        self.most = most
