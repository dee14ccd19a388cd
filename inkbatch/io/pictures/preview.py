"""The small picture beside a prediction."""

from __future__ import annotations

import io
import math
import threading
import time

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.geometry import Box
from inkbatch.io.half_floats import to_single
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.pictures.bands import MapView
from inkbatch.io.pictures.png import write_png
from inkbatch.io.pictures.tones import ToneMap
from inkbatch.io.store.ledger import unrecorded
from inkbatch.io.store.location import Location

NOT_STORED = 48  # grey of what this process has not stored


def preview_level(pyramid: Multiscale, longest_px: int) -> int:
    """Return the number of the finest level whose longest side fits `longest_px`, else of the coarsest."""
    fitting = [number for number, array in enumerate(pyramid.levels) if max(array.layout.shape) <= longest_px]
    return fitting[0] if fitting else len(pyramid.levels) - 1


def write_preview(
    pyramid: Multiscale, place: Location, longest_px: int = 2000, display_range: tuple[float, float] = (0.0, 1.0)
) -> None:
    """Write a map as an 8-bit grey PNG; equal maps give equal bytes.

    Args:
        pyramid: (Y, X), float16 probability.
        place: The file to write.
        longest_px: The finest level that fits this along both axes is taken, else the coarsest.
        display_range: Probabilities that become black and white.

    Raises:
        CorruptDataError: A stored object is damaged, or holds something else than probabilities.
    """
    view = MapView.of(pyramid, preview_level(pyramid, longest_px))
    tones = ToneMap(np.dtype(np.uint8), display_range=display_range)
    picture = io.BytesIO()
    rows = (tones.apply(band, str(view.array.location)) for band in view.bands(view.chunk_rows))
    write_png(picture, view.shape_yx, tones.dtype, rows)
    place.write_bytes(picture.getbuffer())


class LivePicture:
    """A small picture that grows while units are stored; grey where this process has stored nothing.

    Args:
        shape_yx: (height, width) of the map.
        place: The file, renewed at most every `every_s` seconds.
        longest_px: Longest side at most.
        every_s: See `place`.
    """

    def __init__(self, shape_yx: tuple[int, int], place: Location, longest_px: int = 1000, every_s: float = 15) -> None:
        self.place, self._every_s = place, every_s
        self._factor = 1
        while max(shape_yx) > longest_px * self._factor:
            self._factor *= 2
        self._pixels = np.full(Box(0, 0, *shape_yx).downscale(self._factor).shape, NOT_STORED, np.uint8)
        self._written, self._lock = -math.inf, threading.Lock()

    def add(self, box: Box, probability: NDArray[np.float32] | NDArray[np.float16]) -> None:
        """Draw a unit; any thread may call.

        Args:
            box: Its write box; starts at a multiple of the picture's reduction.
            probability: (height, width), or reduced alike along both axes.
        """
        part = box.downscale(self._factor)
        is_half = probability.dtype == np.float16
        single = to_single(probability) if is_half else probability  # type: ignore[arg-type]  # no checker follows dtypes
        small = cv2.resize(single, (part.width, part.height), interpolation=cv2.INTER_AREA)
        with self._lock:
            self._pixels[part.slices] = np.rint(np.clip(small, 0, 1) * 255).astype(np.uint8)
            if time.monotonic() - self._written < self._every_s:
                return
            self._written = time.monotonic()
            picture = io.BytesIO()
            write_png(picture, (self._pixels.shape[0], self._pixels.shape[1]), self._pixels.dtype, [self._pixels])
        with unrecorded():  # it goes when the run is whole
            self.place.write_bytes(picture.getbuffer())
