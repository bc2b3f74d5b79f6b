"""Quotas: how many locations each stratum and each ecoregion is owed, so that larger plans contain smaller ones.

Everything here is house-monotone: adding a location never takes one away from a stratum, an ecoregion or a rank.
Source of the apportionment: the divisor method of Sainte-Laguë (Balinski and Young, Fair Representation, 2001).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmearth_data.grid import FloatArray
from sampling.keyed import IntArray, mix

RESERVE_SHARE = 0.2
LEAST_RESERVES = 4
FLOOR = 0.1
"""Least weight of an ecoregion as a fraction of its biome's mean; the floor is on weights, so seats stay monotone."""


def primaries(locations: int, years: int, biomes: int) -> IntArray:
    """Primaries of each stratum, shape (years, biomes): equal to within one, and so are the biomes' sums.

    What does not divide evenly goes to the first strata, year by year.
    """
    strata = years * biomes
    return (locations // strata + (np.arange(strata) < locations % strata)).reshape(years, biomes)


def reserves(primary: IntArray) -> IntArray:
    """Reserves of strata with these primaries: a fifth, rounded up, at least 4; none for a stratum without any."""
    fifth = -(-primary // round(1 / RESERVE_SHARE))
    return np.where(primary > 0, np.maximum(fifth, LEAST_RESERVES), 0)


def depth(locations: int, years: int, biomes: int) -> int:
    """Locations in the largest stratum, reserves included: the rounds that a plan of this size draws in each biome."""
    largest = primaries(locations, years, biomes).max()
    return int(largest + reserves(np.array(largest)))


def largest_plan(cells: int, years: int, biomes: int) -> int:
    """The most locations, in whole rounds, for which no biome needs more than ``cells`` cells; 0 if none."""
    low, high = 0, cells
    while low < high:
        middle = (low + high + 1) // 2
        if depth(middle * years * biomes, years, biomes) * years <= cells:
            low = middle
        else:
            high = middle - 1
    return low * years * biomes


def weights(areas: FloatArray) -> FloatArray:
    """Weights of one biome's ecoregions by area, shape (n,): small ones are lifted to ``FLOOR`` of the mean."""
    result: FloatArray = np.maximum(areas, FLOOR * areas.mean())
    return result


def apportion(weight: FloatArray, caps: IntArray, seats: int) -> IntArray:
    """Which claimant gets each seat, in order, shape (min(seats, sum of caps),).

    The next seat goes to the claimant below its cap with the least (2·held + 1) / weight, the first of equals. A
    sequence for fewer seats is the beginning of one for more, and caps that do not bind do not matter.
    """
    open_ = caps > 0
    if not (weight[open_] > 0).all():
        raise ValueError("a claimant with seats to take needs a weight above zero")
    seats = min(seats, int(caps.sum()))
    if not seats:
        return np.empty(0, dtype=np.int64)

    def held_at(quotient: float) -> IntArray:
        """Seats of each claimant once all quotients up to this one are served."""
        return np.minimum(caps, np.floor((np.minimum(quotient * weight, 2.0**52) + 1) / 2).astype(np.int64))

    low, high = 0.0, 1.0 / float(weight[open_].max())
    while held_at(high).sum() < seats:
        low, high = high, high * 2
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if held_at(middle).sum() >= seats else (middle, high)
    # One seat more each, so that rounding of the threshold cannot lose a seat; the exact order decides below.
    offers = np.minimum(caps, held_at(high) + 1)
    claimant = np.repeat(np.arange(len(weight)), offers)
    held = np.arange(len(claimant)) - np.repeat(np.cumsum(offers) - offers, offers)
    quotient = (2 * held + 1) / weight[claimant]
    order: npt.NDArray[np.int64] = np.lexsort((claimant, quotient))[:seats]
    return claimant[order]


def apportion_in_groups(weight: FloatArray, caps: IntArray, group: IntArray, seats: int) -> IntArray:
    """Which claimant gets each seat where groups share equally, and claimants of a group by their weights.

    Seats go to groups first, each capped by what its claimants can take together; as in ``apportion``, a sequence for
    fewer seats is the beginning of one for more.
    """
    names, member = np.unique(group, return_inverse=True)
    held = np.bincount(member, weights=caps).astype(np.int64)
    which = apportion(np.ones(len(names)), held, seats)
    claimant = np.empty_like(which)
    for number in range(len(names)):
        mine, taken = np.flatnonzero(member == number), which == number
        claimant[taken] = mine[apportion(weight[mine], caps[mine], int(taken.sum()))]
    return claimant


def year_order(key: int, rounds: int, years: int) -> IntArray:
    """Which year the seats of each round get, shape (rounds, years): a keyed permutation of the years per round.

    Every round gives each year one seat, so strata stay equal; a fixed order would tie years to ecoregions, since
    seats alternate between ecoregions with a period of their own.
    """
    numbers = mix(key, np.arange(rounds * years)).reshape(rounds, years)
    return np.argsort(numbers, axis=1, kind="stable").astype(np.int64)
