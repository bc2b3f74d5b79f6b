"""What balancing by realm or continent costs and gains, beside balancing by area: the same plan in three ways.

    python benchmarks/plan_balance.py ECOREGIONS COUNTRIES [--locations 1200000]

ECOREGIONS is a vector file of RESOLVE Ecoregions 2017, COUNTRIES one with CONTINENT and ADMIN. Shares are of
primaries. "from land" and "from equal" are total variations by continent: 0 is the same shares, 1 none in common.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

from sampling.config import Balance, SampleConfig
from sampling.countries import read_countries
from sampling.ecoregions import read_ecoregions
from sampling.plan import sample_locations
from sampling.table import METADATA


def figures(plan: dict[str, Any]) -> dict[str, str]:
    """Shares by continent, and what they cost."""
    merit = plan["geography"]["merit"]["continent"]
    shares = {row["name"]: f"{100 * row['share']:.1f} %" for row in plan["geography"]["shares"]["continent"]}
    return {name: share for name, share in sorted(shares.items()) if name} | {
        "from land": f"{merit['from_land']:.2f}",
        "from equal": f"{merit['from_equal']:.2f}",
        "densest, per 1000 km²": f"{merit['densest']['name']} {merit['densest']['per_1000_km2']:.1f}",
        "sparsest, per 1000 km²": f"{merit['sparsest']['name']} {merit['sparsest']['per_1000_km2']:.1f}",
        "ecoregions used up": str(len(plan["ecoregions"]["used_up"])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ecoregions", type=Path)
    parser.add_argument("countries", type=Path)
    parser.add_argument("--locations", type=int, default=1_200_000)
    options = parser.parse_args()
    regions, nations = read_ecoregions(options.ecoregions), read_countries(options.countries)
    columns = {}
    for balance in get_args(Balance):
        config = SampleConfig(options.locations, Path(), str(options.ecoregions), balance=balance)
        columns[balance] = figures(sample_locations(config, regions, nations).attrs[METADATA])
    print(f"{'':28}" + "".join(f"{balance:>24}" for balance in columns))
    for name in columns["area"]:
        print(f"{name:28}" + "".join(f"{column[name]:>24}" for column in columns.values()))


if __name__ == "__main__":
    main()
