"""estimate: tiles, seconds and money of a run."""
