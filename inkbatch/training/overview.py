"""Overview of a validated area: the stitched map beside its labels, small enough to look at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inkbatch.geometry import Box
from inkbatch.reports.charts import raster
from inkbatch.training.stitching import Rows

LONGEST_PX = 900
GAP_PX = 8
NOT_COUNTED = (60, 30, 20)  # blue, green, red; of pixels that do not count


@dataclass
class Overview:
    """A map of an area, shrunk by a whole factor while its rows come in.

    Attributes:
        bounds: The area.
        factor: Pixels per picture pixel.
        sums: (3, height, width): probability, labels and counted pixels, summed.
    """

    bounds: Box
    factor: int
    sums: NDArray[np.float64]

    @staticmethod
    def of(bounds: Box) -> Overview:
        """Make an empty overview."""
        factor = max(1, -(-max(bounds.shape) // LONGEST_PX))
        small = -(-bounds.height // factor), -(-bounds.width // factor)
        return Overview(bounds, factor, np.zeros((3, *small)))

    def add(self, rows: Rows) -> None:
        """Take finished rows in."""
        planes = np.stack([rows.probability * rows.counted, rows.labels * rows.counted, rows.counted])
        starts = np.arange(0, planes.shape[2], self.factor)
        shrunk = np.add.reduceat(planes, starts, axis=2, dtype=np.float64)
        targets = (np.arange(planes.shape[1]) + rows.y0 - self.bounds.y0) // self.factor
        for plane, sums in zip(shrunk, self.sums, strict=True):
            np.add.at(sums[:, : len(starts)], targets, plane)

    def png(self) -> bytes:
        """Encode map (left) and labels (right) as PNG; pixels that do not count are dark blue."""
        probability, labels, counted = self.sums
        share = np.maximum(counted, 1e-9)
        panels = []
        for values in (probability, labels):
            grey = np.where(counted > 0, np.clip(values / share, 0, 1) * 255, 0)
            colour = np.repeat(grey[..., None], 3, axis=2)
            colour[counted == 0] = NOT_COUNTED
            panels.append(colour)
        gap = np.full((len(probability), GAP_PX, 3), 255.0)
        return raster.png(np.rint(np.concatenate([panels[0], gap, panels[1]], axis=1)).astype(np.uint8))
