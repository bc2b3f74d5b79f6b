"""The Earth Engine source: the only place that imports ``ee``."""
