"""A promptable network whose right answer is known, and the pictures that it reads it from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.models.prompting import MASKS, Features
from inkbatch.testing.instances import three_classes


class Oracle:
    """A promptable network that reads the answer: the picture's first two channels number the objects.

    Attributes:
        tiles: Shapes of the tiles that it was shown.
    """

    def __init__(self) -> None:
        self.tiles: list[tuple[int, ...]] = []

    def embed(self, tile: NDArray[np.uint8]) -> Features:
        """See `PromptedSegmenter.embed`."""
        self.tiles.append(tile.shape)
        self.numbers = tile[..., 0].astype(int) * 256 + tile[..., 1]
        return Features((), (tile.shape[0], tile.shape[1]))

    def masks(
        self, features: Features, points_yx: NDArray[Any], boxes: NDArray[Any] | None = None
    ) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """See `PromptedSegmenter.masks`; the second of three is the object, with a predicted IoU of 1."""
        masks = np.zeros((len(points_yx), MASKS, *features.shape_yx), bool)
        for number, (y, x) in enumerate(np.rint(points_yx).astype(int)):
            masks[number, 1] = (self.numbers == self.numbers[y, x]) & (self.numbers > 0)
        return masks, np.tile(np.array([0.2, 1.0, 0.1], np.float32), (len(points_yx), 1))


def numbered(instances: NDArray[Any]) -> NDArray[np.uint8]:
    """Draw the numbers of objects as a picture, (Y, X, 3) RGB."""
    return np.stack([instances // 256, instances % 256, np.zeros_like(instances)], axis=-1).astype(np.uint8)


def write_numbered(folder: Path, name: str, instances: NDArray[Any]) -> None:
    """Write ``maps/NAME.npy`` of three classes and ``pictures/NAME.png`` for the oracle to `folder`."""
    for part in ("maps", "pictures"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    np.save(folder / f"maps/{name}.npy", three_classes(instances))
    cv2.imwrite(str(folder / f"pictures/{name}.png"), numbered(instances)[..., ::-1])
