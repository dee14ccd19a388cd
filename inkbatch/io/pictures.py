"""The small picture beside a prediction."""

from __future__ import annotations

import io

import numpy as np

from inkbatch.io.bands import MapView
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.png import write_png
from inkbatch.io.storage import Location
from inkbatch.io.tones import ToneMap


def preview_level(pyramid: Multiscale, longest_px: int) -> int:
    """Number of the finest level whose longest side fits `longest_px`, else of the coarsest."""
    fitting = [number for number, array in enumerate(pyramid.levels) if max(array.layout.shape) <= longest_px]
    return fitting[0] if fitting else len(pyramid.levels) - 1


def write_preview(pyramid: Multiscale, place: Location, longest_px: int = 2000) -> None:
    """Write a map as an 8-bit grey PNG; equal maps give equal bytes.

    Args:
        pyramid: (Y, X), float16 probability; 0 becomes black, 1 white.
        place: The file to write.
        longest_px: The finest level that fits this along both axes is taken, else the coarsest.

    Raises:
        CorruptDataError: A stored object is damaged, or holds something else than probabilities.
    """
    view = MapView.of(pyramid, preview_level(pyramid, longest_px))
    tones = ToneMap(np.dtype(np.uint8))
    picture = io.BytesIO()
    rows = (tones.apply(band, str(view.array.location)) for band in view.bands(view.chunk_rows))
    write_png(picture, view.shape_yx, tones.dtype, rows)
    place.write_bytes(picture.getbuffer())
