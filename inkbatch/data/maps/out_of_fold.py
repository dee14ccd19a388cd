"""Maps out of fold: at each pixel only networks speak that never saw it, nor anything within a tile of it.

A network that was trained with some of the labels scores, proposes and labels only where its training boxes, grown by a
tile and its context, do not reach. What two networks or more say there is averaged; their spread is their disagreement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.datasets.trained_pixels import TrainedPixels
from inkbatch.data.maps.stored import StoredMap
from inkbatch.errors import DataError
from inkbatch.geometry import Box
from inkbatch.text import count_text

Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class OutOfFold:
    """Word of the networks that never saw a pixel; arrays (Y, X).

    Attributes:
        mean: Mean probability, float32; 0 where no network may speak.
        spread: Standard deviation between networks, 0 to 0.5; 0 where fewer than two may speak.
        networks: Number of networks that may speak, uint8.
    """

    mean: Floats
    spread: Floats
    networks: NDArray[np.uint8]

    @property
    def doubt(self) -> Floats:
        """Disagreement, 0 to 1: twice the spread; of one network alone, half of how undecided it is."""
        alone = np.minimum(self.mean, 1 - self.mean)
        found: Floats = np.where(self.networks > 1, 2 * self.spread, np.where(self.networks == 1, alone, 0))
        return found.astype(np.float32)


def may_speak(trained: TrainedPixels, box: Box, reach_px: int) -> Bools:
    """Mark the pixels of a box from which every training box is at least `reach_px` away along y or x.

    Args:
        trained: Pixels that a network was trained on.
        box: The box.
        reach_px: A tile and its context: what the network sees around a pixel.
    """
    grow = np.array([-reach_px, -reach_px, reach_px, reach_px], np.int64)
    return ~TrainedPixels(trained.train + grow, trained.validation).trained(box)


def joined(maps: Sequence[Floats], speaking: Sequence[Bools]) -> OutOfFold:
    """Average maps where they may speak.

    Args:
        maps: (Y, X) probabilities, one per network.
        speaking: Of each, where it may speak; see `may_speak`.
    """
    may = np.stack(speaking)
    values = np.where(may, np.stack(maps).astype(np.float32), np.float32(0))
    networks = may.sum(axis=0, dtype=np.uint8)
    count = np.maximum(networks, 1).astype(np.float32)
    mean = values.sum(axis=0) / count
    away = np.where(may, values - mean, np.float32(0))
    return OutOfFold(mean, np.sqrt((away * away).sum(axis=0) / count), networks)


def read_out_of_fold(maps: Sequence[StoredMap], trained: Sequence[TrainedPixels], box: Box, reach_px: int) -> OutOfFold:
    """Read the maps of all folds in a box, and join them."""
    speaking = [may_speak(one, box, reach_px) for one in trained]
    return joined([found.prediction.read(box).astype(np.float32) for found in maps], speaking)


def require_unseen(
    segment: str, box: Box, wanted: Bools, networks: NDArray[np.uint8], least: int, what: str, reach_px: int
) -> None:
    """Refuse pixels that would be used although a network was trained on them, or near them.

    Args:
        segment: Segment id.
        box: The box that the arrays (Y, X) show.
        wanted: Pixels that are to be used.
        networks: Number of networks that may speak at each pixel.
        least: Networks that are needed there.
        what: Use of the pixels, for the message: ``scored``.
        reach_px: A tile and its context.

    Raises:
        DataError: There are such pixels; the first is named.
    """
    leaking = wanted & (networks < least)
    if not leaking.any():
        return
    y, x = (int(place) for place in np.argwhere(leaking)[0])
    raise DataError(
        f"segment {segment}: {count_text(int(leaking.sum()), 'pixel')} would be {what} by networks that were trained "
        f"there or within {reach_px} px (a tile and its context), the first at y {box.y0 + y}, x {box.x0 + x}; leave "
        "model.start_from out, set start: fresh, or begin a series of rounds with another name"
    )
