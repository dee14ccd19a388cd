"""Sources of labels: a 2-D picture or a prediction, read by box as shares of full scale."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.maps.stored import StoredMap, map_address
from inkbatch.errors import DataError
from inkbatch.geometry import Box, cut
from inkbatch.io.halving import halve
from inkbatch.io.layers.one_plane import OnePlane, Plane, open_plane
from inkbatch.io.layers.single import content_digest, read_one_layer
from inkbatch.io.store.location import Location

STATE_PLANE = "run inkbatch labels with a plane first, whose labels are then taken"


class LabelSource(ABC):
    """A map (Y, X) of values from 0 to 1. Safe to read from several threads.

    Attributes:
        shape_yx: (height, width) in pixels.
        identity: Entry of a manifest.
        request: The settings of `inkbatch labels` that name it from any folder.
        picture: Where its file or array lies; None for a prediction.
    """

    shape_yx: tuple[int, int]
    identity: dict[str, Any]
    request: dict[str, Any]
    picture: Location | None = None

    @property
    def volume(self) -> OnePlane | None:
        """The volume that it is a plane of, or None."""
        return None

    @abstractmethod
    def read(self, box: Box) -> NDArray[np.float32]:
        """Read a box that lies inside, float32 (box.height, box.width).

        Raises:
            DataError: A value outside [0, 1]; we never clamp.
        """

    def close(self) -> None:  # noqa: B027  # a prediction holds nothing
        """Release file handles and scratch files."""

    def overview(self, level: int, step_px: int) -> NDArray[np.float32]:
        """Read the whole map, halved `level` times by averaging, in blocks of `step_px` squared at full resolution."""
        height, width = (-(-size // 2**level) for size in self.shape_yx)
        out = np.empty((height, width), np.float32)
        for box in cut(self.shape_yx, step_px, step_px):
            block = self.read(box)
            for _ in range(level):
                block = halve(block, "mean")
            out[box.downscale(2**level).slices] = block
        return out


class PictureLabels(LabelSource):
    """A picture, a ``.npy`` file or a zarr array of one layer, or one plane of a label volume.

    Args:
        uri: Where it lies.
        white: Stored value of certain ink; None is the largest one of its dtype, 1 for floats.
        plane: Plane of a volume; None: the one that holds ink.
        level: Level of an OME-Zarr group; None: full resolution.
        cure: How to state a plane, for the message where several hold ink.
    """

    def __init__(
        self,
        uri: str,
        white: float | None = None,
        *,
        plane: Plane | None = None,
        level: int | None = None,
        cure: str = STATE_PLANE,
    ) -> None:
        self._source = open_plane(uri, plane, level, cure)
        self._source.fingerprint = content_digest(Location.parse(self._source.uri)) or self._source.fingerprint
        self.shape_yx = self._source.shape_zyx[1:]
        self._white = white if white is not None else full_scale(self._source.dtype)
        self.identity = {
            "image": self._source.uri,
            "dtype": self._source.dtype.name,
            "white": self._white,
            "shape_yx": list(self.shape_yx),
            "fingerprint": self._source.fingerprint,
        }
        if (volume := self.volume) is not None:
            self.identity |= {"planes": volume.planes, "plane": volume.plane}
        self.request = {"image": Location.parse(uri).uri}
        self.picture = Location.parse(self._source.uri)

    @property
    def volume(self) -> OnePlane | None:
        """The volume, of which one plane is taken; None for a picture."""
        return self._source if isinstance(self._source, OnePlane) else None

    def read(self, box: Box) -> NDArray[np.float32]:
        """Read a box; see `LabelSource.read`."""
        values = read_one_layer(self._source, box).astype(np.float32)
        values /= np.float32(self._white)
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
        if low < 0 or high > 1:
            raise DataError(
                f"labels {self._source.uri}: expected values from 0 to {self._white:g}, got "
                f"{low * self._white:g} to {high * self._white:g} at {box}; state the value of certain ink with white"
            )
        return values

    def close(self) -> None:
        """Release file handles."""
        self._source.close()


class PredictionLabels(LabelSource):
    """A finished prediction, `map`."""

    def __init__(self, found: StoredMap) -> None:
        self.map = found
        self.shape_yx = found.shape_yx
        self.identity = {"prediction": found.folder.name, "digest": found.digest}
        self.request = {"prediction": map_address(found.name)}

    def read(self, box: Box) -> NDArray[np.float32]:
        """Read a box; see `LabelSource.read`."""
        return self.map.prediction.read(box).astype(np.float32)

    def overview(self, level: int, step_px: int) -> NDArray[np.float32]:
        """Read the whole map from its pyramid, as far as that goes; see `LabelSource.overview`."""
        levels = self.map.prediction.pyramid.levels
        if level >= len(levels):
            return super().overview(level, step_px)
        whole = Box(0, 0, *levels[level].layout.shape)
        return self.map.prediction.read(whole, level).astype(np.float32)


def full_scale(dtype: np.dtype[Any]) -> float:
    """Return the stored value that stands for 1: the largest one of integers, 1 of floats."""
    return float(np.iinfo(dtype).max) if dtype.kind in "ui" else 1.0
