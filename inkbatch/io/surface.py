"""The prepared surface volume: what `inkbatch prepare` wrote and every other job reads.

``ROOT/segments/{segment}/surface.zarr`` holds the layers in depth order, ``mask.zarr`` beside it says where the segment
has papyrus. How the intensities came about is stated in the provenance, which a bundle is checked against.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from inkbatch.errors import DataError, LayerRangeError
from inkbatch.geometry import Box
from inkbatch.io.multiscale import CHUNK_PX, Multiscale
from inkbatch.io.store.location import Location

DepthOrder = Literal["forward", "reversed"]
LATER_KEYS = (
    "z_spacing_um",
    "scale_reading",
    "box",
    "rendered",
    "resampled",
)  # of the provenance, not in surfaces of older versions
CHUNK_LAYERS = 16  # see benchmarks/README.md


def in_order(layers: NDArray[Any], order: DepthOrder) -> NDArray[Any]:
    """Return layers (Z, …), or their numbers (Z,), as they are, or for ``reversed`` the last first; a view."""
    return layers[::-1] if order == "reversed" else layers


class ClaheSettings(BaseModel):
    """Contrast-limited adaptive histogram equalisation, one grid over the whole segment.

    Attributes:
        clip_limit: Largest share of one bin, as a multiple of the mean bin count.
        cell_px: Edge of a grid cell in full-resolution pixels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    clip_limit: float
    cell_px: int


class RenderedFrom(BaseModel):
    """Origin of layers that were rendered from a surface mesh.

    Attributes:
        volume: URI of the volume.
        level: Its level that was sampled.
        volume_um: Its voxel edge at level 0.
        layers_count: Layers around the surface.
        flip_normals: Whether layers run against the mesh's normals.
        outside: Share of the mesh whose layers leave the volume; those pixels are outside the mask.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    volume: str
    level: int
    volume_um: float | None
    layers_count: int
    flip_normals: bool
    outside: float


class ResampledFrom(BaseModel):
    """Way in which stored layers were brought to another spacing.

    Attributes:
        rule: What was done.
        layers: Half-open range of the source's layer numbers that were read.
        uri: The level that was read.
        spacing_zyx_um: Its spacing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: str
    layers: tuple[int, int]
    uri: str
    spacing_zyx_um: tuple[float, float, float]


class SurfaceProvenance(BaseModel):
    """Source of a surface volume and treatment of its intensities, stored in its attributes.

    Attributes:
        segment: Segment id.
        source: URI of the layers.
        source_dtype: Stored dtype of the layers.
        source_layers: Half-open range of source layer numbers that were taken.
        depth_order: ``reversed`` if the source's order was flipped on reading. The volume itself always runs in
            depth order.
        intensity: The 16 -> 8 bit rule: ``keep``, ``high-byte`` or ``window:LO:HI`` (percentiles are resolved).
        lut: Control points of the lookup table, or None.
        clahe: CLAHE settings, or None.
        voxel_size_um: Edge of a pixel in micrometres.
        mask: ``derived`` or the mask's URI.
        z_spacing_um: Spacing of layers in micrometres where it is not the voxel edge, else None.
        scale_reading: How the two were found, where that is more than one plain statement, else None.
        box: (y0, x0, y1, x1) in pixels of the source, where only a region was taken, else None.
        rendered: How the layers were rendered, or None where they were stored.
        resampled: How they were resampled, or None; source layer numbers then count the result's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    segment: str
    source: str
    source_dtype: str
    source_layers: tuple[int, int]
    depth_order: DepthOrder
    intensity: str
    lut: tuple[tuple[int, int], ...] | None = None
    clahe: ClaheSettings | None = None
    voxel_size_um: float
    mask: str
    z_spacing_um: float | None = None
    scale_reading: str | None = None
    box: tuple[int, int, int, int] | None = None
    rendered: RenderedFrom | None = None
    resampled: ResampledFrom | None = None

    @property
    def layer_um(self) -> float:
        """Spacing of layers in micrometres; older surfaces state none of their own."""
        return self.z_spacing_um or self.voxel_size_um

    def document(self) -> dict[str, Any]:
        """Return the stored form; keys that older surfaces do not have are left out when they say nothing."""
        values = self.model_dump(mode="json")
        return {key: value for key, value in values.items() if value is not None or key not in LATER_KEYS}

    @property
    def layer_numbers(self) -> range:
        """Source layer numbers in depth order: the one place where a source's order is turned."""
        low, high = self.source_layers
        return range(low, high) if self.depth_order == "forward" else range(high - 1, low - 1, -1)

    def index_range(self, numbers: tuple[int, int]) -> range:
        """Turn a half-open range of source layer numbers into indices of the volume (depth order).

        Raises:
            LayerRangeError: The range leaves the prepared layers. We never clamp: the model would see another depth.
        """
        low, high = self.source_layers
        start, stop = numbers
        if not low <= start < stop <= high:
            raise LayerRangeError(
                f"segment {self.segment}: expected layers inside {low}:{high} (all of the surface), got {start}:{stop};"
                f" pass --layers inside that, or prepare it again with --layers {min(low, start)}:{max(high, stop)}"
            )
        ends = sorted((self.layer_numbers.index(start), self.layer_numbers.index(stop - 1)))
        return range(ends[0], ends[1] + 1)

    def numbers_of(self, indices: range) -> tuple[int, int]:
        """Turn indices (at least one) into a half-open range of source layer numbers; the inverse of `index_range`."""
        numbers = self.layer_numbers
        ends = sorted(numbers.start + index * numbers.step for index in (indices.start, indices.stop - 1))
        return ends[0], ends[1] + 1


@dataclass(frozen=True)
class SurfaceVolume:
    """An opened surface volume with its mask.

    Attributes:
        volume: Pyramid (Z, Y, X), uint8 or uint16.
        mask: Pyramid (Y, X), uint8, non-zero where there is papyrus.
        provenance: Its source and treatment.
    """

    volume: Multiscale
    mask: Multiscale
    provenance: SurfaceProvenance

    @staticmethod
    def create(
        segment_folder: Location,
        shape_zyx: tuple[int, int, int],
        dtype: np.dtype[Any],
        provenance: SurfaceProvenance,
        *,
        shard_px: int,
        codec: str,
    ) -> SurfaceVolume:
        """Write the metadata of ``surface.zarr`` and ``mask.zarr``; equal ones that are already there are used on.

        Args:
            segment_folder: The segment's folder.
            shape_zyx: (layers, height, width).
            dtype: uint8 or uint16.
            provenance: Stored in the attributes of both.
            shard_px: Edge of a zarr shard, a power of two of at least 32.
            codec: ``lz4``, ``lz4-bit`` or ``zstd``.

        Raises:
            MismatchError: A surface that was made from other inputs or settings is there.
        """
        stored = provenance.document()
        volume = Multiscale.create(
            segment_folder / "surface.zarr",
            shape_zyx,
            dtype=dtype.name,
            chunk=(min(CHUNK_LAYERS, shape_zyx[0]), CHUNK_PX, CHUNK_PX),
            shard_px=shard_px,
            voxel_size_um=provenance.voxel_size_um,
            provenance=stored,
            codec=codec,
            z_spacing_um=provenance.z_spacing_um,
        )
        mask = Multiscale.create_mask(
            segment_folder / "mask.zarr",
            shape_zyx[1:],
            shard_px=shard_px,
            voxel_size_um=provenance.voxel_size_um,
            provenance=stored,
        )
        return SurfaceVolume(volume, mask, provenance)

    @staticmethod
    def open(segment_folder: Location) -> SurfaceVolume:
        """Open ``surface.zarr`` and ``mask.zarr`` in a segment's folder.

        Raises:
            DataError: One is missing, was not written by `inkbatch prepare`, or their sizes differ.
        """
        volume = Multiscale.open(segment_folder / "surface.zarr")
        mask = Multiscale.open(segment_folder / "mask.zarr")
        try:
            provenance = SurfaceProvenance.model_validate(volume.attributes["inkbatch"])
        except ValidationError as error:
            raise DataError(f"{volume.location}: its provenance cannot be read; run inkbatch prepare again") from error
        if mask.shape != volume.shape[1:]:
            raise DataError(
                f"{mask.location}: expected the surface's size {volume.shape[1:]}, got {mask.shape}; "
                "run inkbatch prepare again"
            )
        return SurfaceVolume(volume, mask, provenance)

    @property
    def shape_yx(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.volume.shape[1], self.volume.shape[2]

    @property
    def layer_count(self) -> int:
        """Stored layers."""
        return self.volume.shape[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Stored dtype."""
        return np.dtype(self.volume.levels[0].layout.dtype)

    def read(self, layers: range, box: Box) -> NDArray[Any]:
        """Read one box, zero-filled outside the borders.

        Args:
            layers: Indices in depth order, inside the volume.
            box: In full-resolution pixels; may leave the volume.

        Returns:
            (len(layers), box.height, box.width), depth order, stored dtype.

        Raises:
            LayerRangeError: The layers leave the volume.
            CorruptDataError: A stored object is damaged or missing.
        """
        if not 0 <= layers.start <= layers.stop <= self.layer_count:
            raise LayerRangeError(
                f"{self.volume.location}: expected layers inside 0:{self.layer_count}, got {layers.start}:{layers.stop}"
            )
        return _read_padded(self.volume, (slice(layers.start, layers.stop),), box)

    def read_mask(self, box: Box) -> NDArray[np.bool_]:
        """Read the segment mask in a box; False outside the borders.

        Args:
            box: In full-resolution pixels; may leave the volume.

        Returns:
            Boolean (box.height, box.width).
        """
        return _read_padded(self.mask, (), box).astype(bool)


def _read_padded(array: Multiscale, lead: tuple[slice, ...], box: Box) -> NDArray[Any]:
    level = array.levels[0]
    inside = box.intersect(Box(0, 0, *array.shape[-2:]))
    if inside == box:
        return level.read((*lead, *box.slices))
    shape = (*(part.stop - part.start for part in lead), *box.shape)
    out = np.zeros(shape, level.layout.dtype)
    if inside.area:
        out[(..., *inside.within(box))] = level.read((*lead, *inside.slices))
    return out
