"""How cloudy the archive's clear products are where a tile lies, by the rule that collections go by."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
import shapely

from mmearth_data.checks import CLEAR_FRACTION, CLEAR_SCORE, QA60_CLOUD_BITS
from mmearth_data.emulator.world import setting
from mmearth_data.emulator.world.planet import LATITUDE, LONGITUDE
from tests.procedural import Y2019, Y2020, band, collection

L1C, SCORE = "COPERNICUS/S2_HARMONIZED", "GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED"
SIDE = 120


class Seen(NamedTuple):
    """Of a square in a product: the product's published cloud share, what Cloud Score+ calls clear, QA60's clouds."""

    published: float
    clear: np.ndarray
    flagged: np.ndarray


@cache
def seen(most_cloud: float, seed: int, per_biome: int) -> tuple[Seen, ...]:
    """Squares in random products, of those that have less cloud, at random places on land, as many in each biome."""
    biomes, rng, found = setting.world(0).biomes, np.random.default_rng(seed), []
    for biome in range(1, 15):
        rows, columns = np.nonzero((biomes == biome) & (LATITUDE[:, None] > -56) & (LATITUDE[:, None] < 80))
        count = 0
        while count < per_biome:
            k = rng.integers(len(rows))
            lon, lat = LONGITUDE[columns[k]] + rng.uniform(-0.25, 0.25), LATITUDE[rows[k]] + rng.uniform(-0.25, 0.25)
            products = [
                product
                for product in collection(L1C).query((lon, lat, lon, lat), Y2019, Y2020)
                if product.properties["CLOUDY_PIXEL_PERCENTAGE"] < most_cloud
                and shapely.contains_xy(product.footprint, lon, lat)
            ]
            if not products:
                continue
            product = products[rng.integers(len(products))]
            score = collection(SCORE).image(product.id.rsplit("/", 1)[1])
            if score is None:
                continue
            count += 1
            published = product.properties["CLOUDY_PIXEL_PERCENTAGE"] / 100.0
            for row, column in rng.integers(0, 10980 // 6 - SIDE // 6, (3, 2)).tolist():
                values, valid = band(score, "cs_cdf").read(6 * row, 6 * column, SIDE, SIDE)
                if valid.all():
                    flags = band(product, "QA60").read(row, column, SIDE // 6, SIDE // 6)[0]
                    clear = np.rint(values * 100) >= CLEAR_SCORE * 100
                    found.append(Seen(published, clear, (flags & QA60_CLOUD_BITS) > 0))
    return tuple(found)


@pytest.mark.parametrize("side", [15, 60, 120])
def test_of_tiles_in_scenes_below_ten_percent_of_cloud_eight_percent_are_too_cloudy(side: int) -> None:
    clear = np.stack([one.clear for one in seen(10.0, 3, 9)])
    parts = clear.reshape(len(clear), SIDE // side, side, SIDE // side, side).mean(axis=(2, 4))
    cloudy = float((parts < CLEAR_FRACTION).mean())
    assert 0.08 <= cloudy <= 0.25


def test_the_published_percentage_is_that_of_the_cloud_mask() -> None:
    places = seen(100.1, 4, 4)
    published, flagged = np.array([p.published for p in places]), np.array([p.flagged.mean() for p in places])
    assert published.mean() == pytest.approx(flagged.mean(), abs=0.06)
    assert np.corrcoef(published, flagged)[0, 1] > 0.7
    # The mask misses thin clouds and shadows, which Cloud Score+ does not.
    assert flagged.mean() < np.mean([1.0 - p.clear.mean() for p in places])
