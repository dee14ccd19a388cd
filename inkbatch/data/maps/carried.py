"""Map of another scan, carried onto the pixels of a segment: a teacher's map as labels.

Both surfaces flatten one piece of papyrus over the same extent, as two renderings of one grid of vertices do; then the
ratio of their sizes is the scale between them. A finer map is averaged by area over the papyrus that it saw, a coarser
one gives each pixel the nearest value. Nothing is shifted, turned or registered.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.config import digest
from inkbatch.data.maps.label_source import LabelSource
from inkbatch.data.maps.scoring import threshold_of
from inkbatch.data.maps.stored import StoredMap, open_map
from inkbatch.errors import ConfigError, DataError, MismatchError
from inkbatch.geometry import Box
from inkbatch.io.layers.base import CheckedLayerSource
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.store.location import Location
from inkbatch.io.surface import SurfaceVolume

SCALE_TOLERANCE = 0.05  # between the ratio of the sizes and that of the pixels in micrometres
SEEN_SHARE = np.float32(0.5)  # of a pixel, from which the map saw it
BAND = 0.1  # on either side of the threshold

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Taps:
    """Pixels of the map that make pixels of the segment, along one axis.

    Attributes:
        indices: (pixels, taps) in the map.
        weights: (pixels, taps) float32; those of a pixel add up to 1.
    """

    indices: NDArray[np.intp]
    weights: Floats

    @staticmethod
    def of(start: int, stop: int, source_px: int, target_px: int) -> Taps:
        """Find the taps of pixels ``[start, stop)``: by area where the map is finer, else the nearest pixel."""
        scale, places = source_px / target_px, np.arange(start, stop)
        if scale <= 1:
            nearest = np.floor((places + 0.5) * scale).astype(np.intp)[:, None]
            return Taps(np.minimum(nearest, source_px - 1), np.ones(nearest.shape, np.float32))
        first, last = places * scale, (places + 1) * scale
        indices = np.floor(first).astype(np.intp)[:, None] + np.arange(int(np.ceil(scale)) + 1)
        inside = np.minimum(indices + 1, last[:, None]) - np.maximum(indices, first[:, None])
        weights = np.where(indices < source_px, np.clip(inside, 0, 1), 0)
        weights /= weights.sum(axis=1, keepdims=True)
        return Taps(np.minimum(indices, source_px - 1), weights.astype(np.float32))

    @property
    def span(self) -> tuple[int, int]:
        """Half-open range of the map's pixels."""
        return int(self.indices.min()), int(self.indices.max()) + 1

    def apply(self, values: Floats) -> Floats:
        """Resample the rows of `values` (span, columns); each result is the same sum however boxes are cut."""
        first, out = self.span[0], np.zeros((len(self.indices), values.shape[1]), np.float32)
        for indices, weights in zip((self.indices - first).T, self.weights.T, strict=True):
            out += weights[:, None] * values[indices]
        return out


class Carried(LabelSource):
    """Map of another scan, read on the pixels of a segment; 0 where it saw no papyrus (see `seen`).

    Args:
        found: The map.
        mask: Papyrus of the map's own segment; of the map's size.
        shape_yx: (height, width) of the segment.
    """

    how: str  # a line for the plan
    map_pixels: float  # pixels of the map per pixel of the segment

    def __init__(self, found: StoredMap, mask: Multiscale, shape_yx: tuple[int, int]) -> None:
        self.map, self.mask, self.shape_yx = found, mask, shape_yx
        self.mask_digest = digest(mask.attributes["inkbatch"])
        self.identity = {"prediction": found.folder.name, "of_segment": found.segment, "digest": found.digest}
        self.request = {"from_map": found.folder.uri}

    @abstractmethod
    def seen(self, box: Box) -> NDArray[np.bool_]:
        """Mark pixels of a box that the map's own segment has as papyrus."""

    def band(self, width: float | None) -> tuple[float, float] | None:
        """Return the values around the map's threshold that are ignored: (low, high), half-open; None for width 0.

        Args:
            width: On either side; None is `BAND`.

        Raises:
            ConfigError: Nothing below the band, or nothing above it, would be left.
        """
        width, threshold = BAND if width is None else width, threshold_of(self.map.threshold)
        if width == 0:
            return None
        low, high = round(threshold - width, 6), round(threshold + width, 6)
        if not 0 < low < high < 1:
            raise ConfigError(
                f"map {self.map.name}: expected a band inside 0 to 1, got {low:g} to {high:g} around its threshold "
                f"{threshold:g}; set a smaller band, or ignore.uncertain"
            )
        return low, high

    def papyrus(self, part: Box) -> Floats:
        """Read the mask of the map's own segment, 0 or 1."""
        return np.asarray(self.mask.levels[0].read(part.slices) != 0, np.float32)


class CarriedMap(Carried):
    """Map of the same extent, resampled by the ratio of the sizes."""

    def __init__(self, found: StoredMap, mask: Multiscale, shape_yx: tuple[int, int]) -> None:
        super().__init__(found, mask, shape_yx)
        self.scale_yx = (found.shape_yx[0] / shape_yx[0], found.shape_yx[1] / shape_yx[1])
        resampling = "area" if max(self.scale_yx) > 1 else "nearest"
        self.identity |= {"scale_yx": list(self.scale_yx), "resampling": resampling}
        self.how = f"{max(self.scale_yx):.4g} of the map's pixels per pixel, resampled by {resampling}"
        self.map_pixels = self.scale_yx[0] * self.scale_yx[1]

    def read(self, box: Box) -> Floats:
        """Read a box; see `LabelSource.read`."""
        rows, columns, part = self._taps(box)
        papyrus = self.papyrus(part)
        values = self.map.prediction.read(part).astype(np.float32)
        values *= papyrus
        share = _both(papyrus, rows, columns)
        return np.divide(_both(values, rows, columns), share, out=np.zeros(box.shape, np.float32), where=share > 0)

    def seen(self, box: Box) -> NDArray[np.bool_]:
        """Mark pixels of a box at least half of which is papyrus in the map's own segment."""
        rows, columns, part = self._taps(box)
        return np.asarray(_both(self.papyrus(part), rows, columns) >= SEEN_SHARE)

    def _taps(self, box: Box) -> tuple[Taps, Taps, Box]:
        """Find the taps of rows and columns, and the box of the map that they touch."""
        (height, width), (rows_px, columns_px) = self.shape_yx, self.map.shape_yx
        rows, columns = Taps.of(box.y0, box.y1, rows_px, height), Taps.of(box.x0, box.x1, columns_px, width)
        (y0, y1), (x0, x1) = rows.span, columns.span
        return rows, columns, Box(y0, x0, y1, x1)


class SeenMask(CheckedLayerSource):
    """Pixels that a carried map saw, as a mask."""

    def __init__(self, carried: Carried) -> None:
        self.uri, self.dtype, self.shape_zyx = carried.mask.location.uri, np.dtype(np.uint8), (1, *carried.shape_yx)
        self.fingerprint = carried.mask_digest
        self._carried = carried

    def _fill(self, indices: range, box: Box, out: NDArray[np.generic]) -> None:
        out[...] = self._carried.seen(box)


@dataclass(frozen=True)
class Teacher:
    """A map of another scan, found and checked by itself.

    Attributes:
        map: The map.
        mask: Papyrus of its own segment.
        root: ROOT that holds both.
        place: What carries it onto what, for messages.
    """

    map: StoredMap
    mask: Multiscale
    root: Location
    place: str


def open_teacher(root: str, address: str, segment: str, surface: SurfaceVolume) -> Teacher:
    """Open a map of another scan.

    Args:
        root: ROOT of the segment.
        address: ``SEGMENT/NAME`` of a prediction in it, or the address of a prediction's folder.
        segment: The segment that it is carried onto, for messages.
        surface: Its surface.

    Raises:
        DataError: The map or the mask of its segment is not there, or not whole.
        MismatchError: A surface is a part of its layers.
    """
    folder = Location.parse(address)
    if address.count("/") == 1 and not (folder / "manifest.json").exists():
        folder = Location.parse(root) / "predictions" / address
    if not (folder / "manifest.json").exists():
        raise DataError(
            f"segment {segment}: expected a finished map at {folder}, nothing is there; give from_map as SEGMENT/NAME "
            "of this ROOT, or as the address of a prediction's folder"
        )
    own = str((folder / "manifest.json").read_mapping().get("config", {}).get("segment"))
    home = folder.parent.parent.parent
    found = open_map(home.uri, own, folder.uri)
    place = f"segment {segment}: map {own}/{folder.name}"
    if found.holds_ranks:
        raise DataError(f"{place}: expected probabilities, got ranks or z-scores; give a map of probabilities")
    if found.box is not None:
        raise DataError(f"{place}: expected a whole map, got a quick look at {found.box}; infer the whole segment")
    mask = _mask(home / "segments" / own / "mask.zarr", place, found.shape_yx)
    _require_whole(place, segment, surface.provenance.box)
    return Teacher(found, mask, home, place)


def open_carried(root: str, address: str, segment: str, surface: SurfaceVolume) -> CarriedMap:
    """Open a map of another scan of the same extent for the pixels of a segment; see `open_teacher`.

    Raises:
        DataError: See `open_teacher`.
        MismatchError: The two do not flatten one extent, as far as sizes and micrometres tell.
    """
    teacher = open_teacher(root, address, segment, surface)
    _require_one_extent(teacher.place, teacher.map.shape_yx, surface.shape_yx)
    _require_micrometres(teacher.place, teacher.map, surface)
    return CarriedMap(teacher.map, teacher.mask, surface.shape_yx)


def _mask(folder: Location, place: str, shape_yx: tuple[int, int]) -> Multiscale:
    if not (folder / "zarr.json").exists():
        raise DataError(
            f"{place}: expected the mask of its own segment at {folder}, nothing is there; keep the map in "
            "ROOT/predictions/SEGMENT of a ROOT where that segment is prepared, for what the map never saw is not bare"
        )
    mask = Multiscale.open(folder)
    if tuple(mask.shape) != shape_yx:
        raise MismatchError(
            f"{place}: expected {tuple(mask.shape)} (height, width) like its segment's mask, got {shape_yx}; "
            "infer it again"
        )
    attributes: Any = mask.attributes["inkbatch"]
    _require_whole(place, str(attributes.get("segment")), attributes.get("box"))
    return mask


def _require_whole(place: str, segment: str, box: Any) -> None:
    if box is not None:
        raise MismatchError(
            f"{place}: expected whole surfaces, {segment} is a part of its layers, {box}; prepare it without a box"
        )


def _require_one_extent(place: str, source: tuple[int, int], target: tuple[int, int]) -> None:
    """Refuse sizes that no single scale turns into each other, to within the rounding of both."""
    longer = int(target[1] > target[0])
    scale = source[longer] / target[longer]
    other = 1 - longer
    if abs(source[other] - scale * target[other]) > 2 * max(1.0, scale):
        raise MismatchError(
            f"{place}: expected equal shapes up to one scale, got {source[0]} x {source[1]} px for {target[0]} x "
            f"{target[1]} px; render both from one mesh (x/y/z.tif), or state reach_voxels to carry it by the nearest "
            "points of two meshes"
        )


def _require_micrometres(place: str, found: StoredMap, surface: SurfaceVolume) -> None:
    by_size = max(found.shape_yx) / max(surface.shape_yx)
    by_pixel = surface.provenance.voxel_size_um / found.pixel_um
    if abs(by_size / by_pixel - 1) > SCALE_TOLERANCE:
        raise MismatchError(
            f"{place}: expected {by_pixel:.4g} of its pixels per pixel, as {found.pixel_um:g} and "
            f"{surface.provenance.voxel_size_um:g} µm say, got {by_size:.4g} from the sizes; they do not show one "
            "extent, or a voxel size is wrong (prepare it again)"
        )


def _both(values: Floats, rows: Taps, columns: Taps) -> Floats:
    return columns.apply(rows.apply(values).T).T
