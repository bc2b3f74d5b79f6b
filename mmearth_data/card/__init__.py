"""The card of a store: what it holds, where that comes from and under which terms, for people and for catalogues.

README.md for people, croissant.json for machine-learning tools, stac/ for geospatial catalogues. All of it is made from
the registry and the committed rows alone, so the same store has the same card, byte for byte.
"""

from __future__ import annotations

from mmearth_data.card.croissant import croissant
from mmearth_data.card.facts import ShardFacts, gather
from mmearth_data.card.pages import as_json
from mmearth_data.card.readme import readme
from mmearth_data.card.stac import collection, item
from mmearth_data.store.files import each, write_atomic
from mmearth_data.store.objects import Place, at

__all__ = ["write_card"]


def write_card(path: str | Place) -> None:
    """Write README.md, croissant.json and stac/ into the store at ``path``, which must have tables and statistics.

    Raises StoreError where the store cannot be read or a file cannot be written.
    """
    facts = gather(path)
    root = at(path)
    write_atomic(root / "README.md", readme(facts).encode())
    write_atomic(root / "croissant.json", as_json(croissant(facts)))

    def write_item(shard: ShardFacts) -> None:
        write_atomic(root / "stac" / "items" / f"{shard.name}.json", as_json(item(facts, shard)))

    for _ in each(root, write_item, facts.shards):
        pass
    write_atomic(root / "stac" / "collection.json", as_json(collection(facts)))
