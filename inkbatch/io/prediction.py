"""The stored ink map: float16 probability with a pyramid, written unit by unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.geometry import Box
from inkbatch.io.half_floats import to_half
from inkbatch.io.multiscale import CHUNK_PX, Multiscale
from inkbatch.io.shards.reading import Region
from inkbatch.io.store.location import Location

__all__ = ["CHUNK_PX", "MAP_NAME", "Prediction", "Region"]

MAP_NAME = "prediction.zarr"


@dataclass(frozen=True)
class Prediction:
    """A prediction of one segment: pyramid (Y, X) of float16 probability in [0, 1]; 0 outside the mask."""

    pyramid: Multiscale

    @staticmethod
    def create(
        folder: Location,
        shape_yx: tuple[int, int],
        unit_px: int,
        voxel_size_um: float,
        provenance: Mapping[str, Any],
        name: str = MAP_NAME,
        codec: str = "zstd",
    ) -> Prediction:
        """Write the metadata of the map `name` in `folder`; an equal one that is there is used on.

        Raises:
            MismatchError: Something else is there.
        """
        pyramid = Multiscale.create(
            folder / name,
            shape_yx,
            dtype="float16",
            chunk=(CHUNK_PX, CHUNK_PX),
            shard_px=unit_px,
            voxel_size_um=voxel_size_um,
            provenance=provenance,
            codec=codec,
        )
        return Prediction(pyramid)

    @staticmethod
    def open(folder: Location, name: str = MAP_NAME) -> Prediction:
        """Open the map `name` in `folder`.

        Raises:
            DataError: None is there.
        """
        return Prediction(Multiscale.open(folder / name))

    @property
    def shape_yx(self) -> tuple[int, int]:
        """(height, width) in pixels at full resolution."""
        return self.pyramid.shape[0], self.pyramid.shape[1]

    def write(self, write_box: Box, probability: NDArray[np.float32] | NDArray[np.float16]) -> int:
        """Store one unit.

        Args:
            write_box: The unit's write box: whole zarr shards, clipped to the border.
            probability: (height, width); float32 is rounded to float16.

        Returns:
            Bytes stored.
        """
        half = probability if probability.dtype == np.float16 else to_half(probability.astype(np.float32, copy=False))
        return self.pyramid.write(write_box, half)

    def read(self, box: Box, level: int = 0) -> NDArray[np.float16]:
        """Read a box of one level.

        Args:
            box: In pixels of that level, inside it.
            level: Pyramid level, 0 is full resolution.
        """
        return self.pyramid.levels[level].read(box.slices)
