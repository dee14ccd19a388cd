"""Photographs below separate objects: decoded as a whole, because picture files cannot be read in parts."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.data.datasets.picture_layers import decode_picture
from inkbatch.errors import ConfigError, MismatchError
from inkbatch.io.store.location import Location
from inkbatch.text import bytes_text
from inkbatch.view.blocks import level_shape


@dataclass(frozen=True)
class Photograph:
    """A picture file.

    Attributes:
        place: The file.
        shape_yx: (height, width) that it has to have.
    """

    place: Location
    shape_yx: tuple[int, int]

    def halved(self, level: int, room_bytes: int) -> NDArray[np.uint8]:
        """Decode the picture at a level: (height, width, 3), red, green, blue.

        Args:
            level: Halvings of full size.
            room_bytes: What the decoded picture may take.

        Raises:
            ConfigError: It does not fit.
            MismatchError: It has another size.
        """
        height, width = self.shape_yx
        if height * width * 3 > room_bytes:
            raise ConfigError(
                f"view: the photograph {self.place.name} takes {bytes_text(height * width * 3)} in memory, more than "
                f"the {bytes_text(room_bytes)} for decoded pieces; give a larger --memory"
            )
        found = np.ascontiguousarray(decode_picture(self.place, in_colour=True).transpose(1, 2, 0))
        if found.shape[:2] != self.shape_yx:
            raise MismatchError(
                f"view: expected the photograph {self.place.name} to be {width} × {height} px like its objects, got "
                f"{found.shape[1]} × {found.shape[0]} px; run inkbatch instances again"
            )
        small_y, small_x = level_shape(self.shape_yx, level)
        if level:
            found = cv2.resize(found, (small_x, small_y), interpolation=cv2.INTER_AREA)
        return np.asarray(found, np.uint8)
