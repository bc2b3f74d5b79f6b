"""MP-MAE: read the store, mask, encode, predict every modality, and measure what the encoder learned."""
