"""Mechanism of all jobs: manifests, markers, the unit loop, shards, signals, progress."""
