"""Pictures of z maps: one range of grey for every map, so that a null beside a real one is seen for what it is."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from inkbatch.geometry import Box
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.pictures.png import write_png
from inkbatch.io.pictures.preview import preview_level
from inkbatch.io.store.location import Location

SHOWN_Z = (-1.0, 4.0)  # z values that become black and white


def grey_of_z(z: NDArray[np.float16]) -> NDArray[np.uint8]:
    """Turn z values into grey, 0 to 255 over `SHOWN_Z`; any shape."""
    black, white = SHOWN_Z
    share = (z.astype(np.float32) - black) / (white - black)
    grey: NDArray[np.uint8] = np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)
    return grey


def write_z_preview(pyramid: Multiscale, place: Location, longest_px: int = 2000) -> None:
    """Write a z map (Y, X) as an 8-bit grey PNG: the finest level that fits `longest_px`, else the coarsest."""
    array = pyramid.levels[preview_level(pyramid, longest_px)]
    height, width = array.layout.shape
    grey = grey_of_z(array.read(Box(0, 0, height, width).slices))
    picture = io.BytesIO()
    write_png(picture, (height, width), grey.dtype, [grey])
    place.write_bytes(picture.getbuffer())
