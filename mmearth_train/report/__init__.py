"""The training half of the report: losses against constants, reconstructions, probes."""
