"""Our zarr shards: layout, codec, reading, writing, caches."""
