"""A page for people: the emulated world on a map, its collections and products, and what clients ask for."""
