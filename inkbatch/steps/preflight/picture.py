"""The map of a preflight: one pixel per tile in a zarr array, and one picture in colours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.geometry import Box
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.pictures.png import png_bytes
from inkbatch.io.shard_size import whole_shard_px
from inkbatch.io.store.location import Location
from inkbatch.steps.preflight.verdict import WORDS, Word
from inkbatch.steps.stored_preflight import MAP_NAME

COLOURS: Mapping[Word, tuple[int, int, int]] = {
    "fine": (214, 214, 208),
    "outside": (40, 40, 44),
    "blank": (120, 124, 132),
    "seam": (222, 60, 50),
    "no sheet": (120, 60, 20),
    "two sheets": (240, 150, 30),
    "off-centre": (40, 110, 200),
    "scale": (130, 60, 170),
    "lossy codec": (30, 150, 120),
}
LARGEST_CELL_PX, LONGEST_PX = 24, 1600


def coloured(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colour each tile by its verdict, (rows, columns, 3), enlarged to be seen."""
    table = np.array([COLOURS[word] for word in WORDS], np.uint8)
    cell = max(1, min(LARGEST_CELL_PX, LONGEST_PX // max(codes.shape)))
    size = (codes.shape[1] * cell, codes.shape[0] * cell)
    return np.asarray(cv2.resize(table[codes], size, interpolation=cv2.INTER_NEAREST), np.uint8)


def draw_tiles(codes: NDArray[np.uint8]) -> bytes:
    """Draw the verdicts; equal ones give equal bytes.

    Returns:
        A PNG.
    """
    return png_bytes(coloured(codes))


def write_map(folder: Location, codes: NDArray[np.uint8], tile_um: float, provenance: Mapping[str, Any]) -> None:
    """Store the verdicts as an array (rows, columns) of codes, one pixel per tile."""
    edge = whole_shard_px(max(codes.shape))
    array = Multiscale.create_mask(
        folder / MAP_NAME, (codes.shape[0], codes.shape[1]), shard_px=edge, voxel_size_um=tile_um, provenance=provenance
    )
    array.write(Box(0, 0, *codes.shape), codes)
