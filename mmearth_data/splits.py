"""The splits that a location may belong to, in the order of their codes in a store."""

from __future__ import annotations

SPLITS = ("train", "val", "test", "held_out")
"""Blocks of about 100 km belong to one split whole; ``held_out`` is a continent or realm kept from the other three."""
