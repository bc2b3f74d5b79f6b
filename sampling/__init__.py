"""Where and when: locations on the tile grid, balanced over biomes and years, split by geography."""
