"""From a unit's subvolume to its probability map: normalise, tile, forward, blend."""
