"""An Earth Engine to run against offline: a loopback server over a deterministic procedural Earth."""
