"""How jobs run: manifests, markers, the unit loop, shards, signals, progress."""
