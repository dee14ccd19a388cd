"""A bar of one centimetre or millimetre on a picture, drawn into its bands of rows as they pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.errors import ConfigError

BarLength = Literal["1cm", "1mm"]
LENGTHS_UM: dict[BarLength, float] = {"1cm": 10_000.0, "1mm": 1_000.0}
SMALLEST_PX = 8  # a shorter bar cannot be read
FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True, eq=False)
class ScaleBar:
    """A white bar with its length in words on a black ground, at the lower left.

    Attributes:
        y0: Its first row in the picture.
        x0: Its first column.
        ink: (height, width) float32, 0 (black) to 1 (white).
        length_px: Length of the bar itself.
    """

    y0: int
    x0: int
    ink: NDArray[np.float32]
    length_px: int

    @staticmethod
    def fitting(length: BarLength, pixel_um: float, shape_yx: tuple[int, int]) -> ScaleBar:
        """Draw a bar for a picture.

        Args:
            length: Of the bar.
            pixel_um: Edge of a pixel in micrometres.
            shape_yx: (height, width) of the picture.

        Raises:
            ConfigError: It would be wider than the picture, or too short to be seen.
        """
        long = round(LENGTHS_UM[length] / pixel_um)
        height, width = shape_yx
        thick = max(2, long // 40)
        margin = 2 * thick
        words = f"{length[0]} {length[1:]}"
        size = max(0.4, long / 400)
        (text_width, text_height), below = cv2.getTextSize(words, FONT, size, max(1, thick // 3))
        box = (text_height + below + thick + 3 * margin, max(long, text_width) + 2 * margin)
        if long < SMALLEST_PX or box[1] > width or box[0] > height:
            other = "1mm" if length == "1cm" else "1cm"
            raise ConfigError(
                f"export: a scale bar of {length} takes {box[1]} × {box[0]} px (width × height) here and is {long} px "
                f"long, the picture has {width} × {height} px; choose {other}, a finer level, or leave scale_bar out"
            )
        canvas = np.zeros(box, np.uint8)
        at = (margin, margin + text_height)
        cv2.putText(canvas, words, at, FONT, size, 255, max(1, thick // 3), cv2.LINE_AA)
        bottom = box[0] - margin
        canvas[bottom - thick : bottom, margin : margin + long] = 255
        return ScaleBar(height - box[0], 0, np.divide(canvas, 255, dtype=np.float32), long)

    def drawn(self, rows: Iterator[NDArray[Any]]) -> Iterator[NDArray[Any]]:
        """Draw into consecutive rows of a picture, from its top."""
        y = 0
        for block in rows:
            first, last = max(y, self.y0), min(y + len(block), self.y0 + self.ink.shape[0])
            if first < last:
                block = block.copy()
                part = self.ink[first - self.y0 : last - self.y0]
                white = np.iinfo(block.dtype).max
                block[first - y : last - y, self.x0 : self.x0 + part.shape[1]] = np.rint(part * white)
            y += len(block)
            yield block
