"""What the archive lists: products, their geometry, dates and properties."""
