"""A label version as the input of `inkbatch labels`: its ink, what is ignored, and where it counts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.labels.painting import IGNORE, INK, NOT_INK, SUPERVISION
from inkbatch.data.labels.painting_version import FACTS, STATE, PaintedVersion, labels_folder, version_folder
from inkbatch.data.labels.versions import FIRST, Versions
from inkbatch.data.maps.label_source import LabelSource
from inkbatch.geometry import Box
from inkbatch.io.layers.base import CheckedLayerSource
from inkbatch.io.store.location import Location


class PaintedLabels(LabelSource):
    """Ink of a label version: 1 where it was painted."""

    def __init__(self, version: PaintedVersion) -> None:
        self.version = version
        self.shape_yx = version.shape_yx
        self.identity = {"painted": version.folder.uri, "stroke": version.revision}
        self.request = {"painted": version.folder.uri}
        state = version.folder / STATE  # changes when something was painted
        self.picture = state if state.exists() else version.folder / FACTS

    def read(self, box: Box) -> NDArray[np.float32]:
        """Read a box; see `LabelSource.read`."""
        return np.asarray(self.version.tiles.read(box) & INK > 0, np.float32)


class PaintedMask(CheckedLayerSource):
    """Marks of a label version as a mask.

    Args:
        version: The version.
        bits: A pixel is marked where it has one of these.
    """

    def __init__(self, version: PaintedVersion, bits: int) -> None:
        self.uri, self.dtype, self.shape_zyx = version.folder.uri, np.dtype(np.uint8), (1, *version.shape_yx)
        self.fingerprint = f"{version.revision}-{bits}"
        self._version, self._bits = version, np.uint8(bits)

    def _fill(self, indices: range, box: Box, out: NDArray[np.generic]) -> None:
        out[...] = self._version.tiles.read(box) & self._bits

    def close(self) -> None:
        """See `LayerSource.close`."""


def open_painted(root: str, segment: str, painted: str) -> tuple[PaintedLabels, PaintedMask | None, PaintedMask | None]:
    """Open a version by its name or address.

    Where anything was marked as not ink or as supervision area, what is neither that nor ink counts nowhere. Else all
    that is not ink is bare, as in a picture.

    Returns:
        The ink, what is ignored (or None), and where labels count (or None: everywhere).

    Raises:
        DataError: There is no such version.
    """
    folder = labels_folder(root, segment)
    place = Location.parse(painted) if "/" in painted else version_folder(folder, painted)
    version = PaintedVersion.open(place)
    ignored = PaintedMask(version, IGNORE) if version.counts["ignore"] else None
    says_where = version.counts["not_ink"] or version.counts["supervision"]
    counts = PaintedMask(version, INK | NOT_INK | SUPERVISION) if says_where else None
    return PaintedLabels(version), ignored, counts


def own_version(place: str) -> Versions:
    """Return a painted version as one that stands alone."""
    return Versions(place, FIRST, {FIRST: Location.parse(place).name})
