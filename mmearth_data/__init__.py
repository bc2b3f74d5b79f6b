"""What is collected, and how it is fetched, checked and kept: registry, grid, source, plan, store."""
