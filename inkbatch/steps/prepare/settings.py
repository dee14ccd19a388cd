"""Settings of `inkbatch prepare`, and the plan that follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from inkbatch.config import JobConfig, LayerPair
from inkbatch.data.segments.catalog import spacing_text
from inkbatch.errors import DataError
from inkbatch.io.intensity import IntensityMap, LutPoints
from inkbatch.io.layers.base import LayerSource
from inkbatch.io.layers.zarr_holes import Holes
from inkbatch.io.store.location import Location
from inkbatch.io.surface import ClaheSettings, DepthOrder, SurfaceProvenance
from inkbatch.io.surface_writer import SurfaceLayers
from inkbatch.run.record import RunManifest
from inkbatch.steps.prepare.units import UnitPlan

MAX_MISSING = 0.5


class PrepareConfig(JobConfig):
    """Settings of `inkbatch prepare`; a None is taken from the catalog, then from the source.

    Attributes:
        segment: Segment id.
        root: ROOT: a folder or ``s3://bucket/prefix``.
        source: Location of the layers, or of the surface mesh (tifxyz) to render; may hold ``{segment}``.
        catalog: The user's catalog file.
        layers: Half-open range of layer numbers; None takes all.
        depth_order: ``forward`` or ``reversed``.
        voxel_size_um: Edge of a pixel in micrometres; of rendered layers the spacing of pixels that is wished.
        z_spacing_um: Spacing of layers in micrometres; None: as the source says, or as its pixels.
        intensity: ``keep``, ``high-byte``, ``window:LO:HI`` or ``percentile:LO:HI``; None keeps 8 bits as they are and
            takes the high byte of 16.
        lut: Control points of a lookup table, for example ``[[0, 0], [128, 64], [255, 255]]``.
        clahe: ``{clip_limit: 2.0, cell_px: 128}``.
        mask: A 2-D image, non-zero where there is papyrus; None derives it: pixels that are zero in every layer are
            outside.
        axes: Axis order of a plain zarr array.
        level: Pyramid level of an OME-Zarr source, or of the volume.
        volume: The scroll's volume; layers are rendered from it around the mesh.
        layers_count: Layers to render.
        step_um: Spacing of rendered layers in micrometres; None: that of pixels.
        volume_um: Voxel edge of the volume's level 0 in micrometres, where it does not state it.
        flip_normals: Render against the mesh's normals.
        resample: Spacing to bring stored layers to, in micrometres (``9.6``, or ``z,y,x``), or a pooling rule's name.
        resample_depth: ``mean`` (default) averages the layers that one covers, ``linear`` interpolates at its centre.
        resample_finer: Interpolate where the target is finer than the source.
        max_outside: Share of the mesh that may leave the volume; None: 0.05.
        box: (y0, x0, y1, x1), the region to take, in pixels of the source; None takes all.
        shard_px: Edge of the surface's zarr shards.
        codec: ``lz4`` (fastest), ``lz4-bit``, ``zstd`` (smallest).
        memory: Memory budget of the process.
        scratch: Local folder for layers that must be decoded whole; None takes the system's.
        max_missing: Share of a zarr source's chunks that may be not stored (they read as its fill value).
    """

    job: ClassVar[str] = "prepare"

    segment: str
    root: str = "root"
    source: str | None = None
    catalog: str | None = None
    layers: LayerPair | None = None
    depth_order: DepthOrder | None = None
    voxel_size_um: float | None = Field(None, gt=0, allow_inf_nan=False)
    z_spacing_um: float | None = Field(None, gt=0, allow_inf_nan=False)
    intensity: str | None = None
    lut: LutPoints | None = None
    clahe: ClaheSettings | None = None
    mask: str | None = None
    axes: str | None = None
    level: int | None = Field(None, ge=0)
    volume: str | None = None
    layers_count: int | None = Field(None, ge=1)
    step_um: float | None = Field(None, gt=0, allow_inf_nan=False)
    volume_um: float | None = Field(None, gt=0, allow_inf_nan=False)
    flip_normals: bool | None = None
    max_outside: float | None = Field(None, ge=0, le=1)
    resample: Annotated[str | None, BeforeValidator(spacing_text)] = None
    resample_depth: Literal["mean", "linear"] | None = None
    resample_finer: bool | None = None
    box: tuple[int, int, int, int] | None = None
    shard_px: int = 1024
    codec: str = "lz4"
    memory: str = "2GiB"
    scratch: str | None = None
    max_missing: float = Field(MAX_MISSING, ge=0, le=1)


class EmptyMaskError(DataError):
    """No pixel of the segment is papyrus."""


@dataclass(frozen=True)
class PreparePlan:
    """Everything that is decided before a pixel is read.

    Attributes:
        source: Opened layers.
        mask_source: Opened mask image, or None where it is derived.
        provenance: Stored in the surface's attributes.
        mapping: Grey values.
        units: The units and their memory.
        folder: ``ROOT/segments/{segment}``.
        manifest: The run's manifest.
        holes: Chunks of layers and mask that are not stored.
    """

    source: LayerSource
    mask_source: LayerSource | None
    provenance: SurfaceProvenance
    mapping: IntensityMap
    units: UnitPlan
    folder: Location
    manifest: RunManifest
    holes: tuple[Holes, ...] = ()

    @property
    def layers(self) -> range:
        """Source layer numbers, ascending."""
        return range(*self.provenance.source_layers)

    @property
    def surface_layers(self) -> SurfaceLayers:
        """Layers and the rules that turn them into the surface."""
        return SurfaceLayers(
            self.source,
            self.provenance.layer_numbers,
            self.mapping,
            self.provenance.clahe,
            self.mask_source,
            self.units.group_layers,
        )

    @property
    def shape_yx(self) -> tuple[int, int]:
        """(height, width) of the surface."""
        return self.source.shape_zyx[1], self.source.shape_zyx[2]
