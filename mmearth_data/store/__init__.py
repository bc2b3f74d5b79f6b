"""One Zarr v3 group for every modality, committed shard by shard."""
