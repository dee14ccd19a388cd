"""Read ink from Python: prepare the demo segment, make its map, and run the network over an array.

python examples/read_ink.py [ROOT]
"""

from __future__ import annotations

import sys

import numpy as np

import inkbatch


def main(root: str = "root") -> None:
    """Print the shapes and the share of ink that two ways of reading find."""
    inkbatch.prepare("demo", root=root)
    report = inkbatch.infer("demo", bundle="demo", root=root)

    surface = inkbatch.open_surface("demo", root=root)
    ink = inkbatch.open_prediction("demo", report.location.name, root=root)
    print(f"surface {surface.layers.shape} {surface.layers.dtype}, {surface.voxel_size_um} µm")
    print(f"map {ink.shape}, ink in {np.mean(ink[:, :] >= (ink.threshold or 0.5)):.1%} of its pixels")

    # The same network over an array: here the upper left corner.
    network = inkbatch.Predictor("demo", device="cpu")
    count = network.bundle.contract.layers.count
    first = (surface.layers.shape[0] - count) // 2
    part = network.predict(
        surface.layers[first : first + count, :256, :256],
        voxel_size_um=surface.voxel_size_um,
        depth_order="forward",
        mask=surface.mask[:256, :256],
    )
    print(f"corner {part.shape}, mean probability {part.mean():.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
