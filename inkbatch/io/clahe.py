"""CLAHE on one grid over the whole segment, computed box by box without seams.

OpenCV's CLAHE maps a pixel by the four nearest cells of its grid. A box that is cut on the grid and holds one more
cell on each side therefore gives the same values inside as the whole layer would. Cells are powers of two wide, which
makes the interpolation weights exact wherever the box begins.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.errors import ConfigError
from inkbatch.geometry import Box
from inkbatch.io.shard_size import is_power_of_two
from inkbatch.io.surface import ClaheSettings

SMALLEST_CELL_PX = 16


def check_clahe(settings: ClaheSettings) -> None:
    """Refuse settings that cannot be computed without seams.

    Raises:
        ConfigError: A cell edge that is no power of two of at least 16, or a clip limit that is not positive.
    """
    cell = settings.cell_px
    if not is_power_of_two(cell, SMALLEST_CELL_PX):
        raise ConfigError(
            f"clahe.cell_px {cell}: expected a power of two of at least {SMALLEST_CELL_PX}, for example 128"
        )
    if settings.clip_limit <= 0:
        raise ConfigError(f"clahe.clip_limit {settings.clip_limit}: expected a positive number, for example 2.0")


def clahe_box(box: Box, cell_px: int, shape_yx: tuple[int, int]) -> Box:
    """Return the box to read for equalising `box`: its cells and one more on each side, clipped to the layer."""
    grown = Box(
        max(0, box.y0 // cell_px - 1) * cell_px,
        max(0, box.x0 // cell_px - 1) * cell_px,
        (-(-box.y1 // cell_px) + 1) * cell_px,
        (-(-box.x1 // cell_px) + 1) * cell_px,
    )
    return grown.intersect(Box(0, 0, *shape_yx))


def equalise(layer: NDArray[np.uint8], read_box: Box, box: Box, settings: ClaheSettings) -> NDArray[Any]:
    """Equalise one layer's box.

    Args:
        layer: (height, width) of `read_box`, uint8.
        read_box: Result of `clahe_box` for `box`.
        box: Box of the result.
        settings: Clip limit and cell.

    Returns:
        uint8 (box.height, box.width), equal to the same box of the whole layer's result. Cells cut by the layer's
        far border are completed by mirroring (101), as OpenCV does.
    """
    cell = settings.cell_px
    bottom, right = -read_box.height % cell, -read_box.width % cell
    padded = cv2.copyMakeBorder(layer, 0, bottom, 0, right, cv2.BORDER_REFLECT_101) if bottom or right else layer
    grid = (padded.shape[1] // cell, padded.shape[0] // cell)
    result = cv2.createCLAHE(settings.clip_limit, grid).apply(np.ascontiguousarray(padded))
    return result[box.within(read_box)]
