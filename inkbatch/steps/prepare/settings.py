"""Settings of `inkbatch prepare`, and the plan that follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from inkbatch.config import JobConfig
from inkbatch.data.segments.catalog import LayerFacts
from inkbatch.errors import DataError
from inkbatch.io.intensity import IntensityMap, LutPoints
from inkbatch.io.layers.base import LayerSource
from inkbatch.io.layers.zarr_holes import Holes
from inkbatch.io.store.location import Location
from inkbatch.io.surface import ClaheSettings, SurfaceProvenance
from inkbatch.io.surface_writer import SurfaceLayers
from inkbatch.run.record import RunManifest
from inkbatch.steps.prepare.opened import OpenedLayers
from inkbatch.steps.prepare.units import UnitPlan

MAX_MISSING = 0.5


class PrepareConfig(LayerFacts, JobConfig):
    """Settings of `inkbatch prepare`; a None is taken from the catalog, then from the source.

    Attributes:
        segment: Segment id.
        root: ROOT: a folder or ``s3://bucket/prefix``.
        catalog: The user's catalog file.
        lut: Control points of a lookup table, for example ``[[0, 0], [128, 64], [255, 255]]``.
        clahe: ``{clip_limit: 2.0, cell_px: 128}``.
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
    catalog: str | None = None
    lut: LutPoints | None = None
    clahe: ClaheSettings | None = None
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
        opened: Layers.
        mask_source: Opened mask image, or None where it is derived.
        provenance: Stored in the surface's attributes.
        mapping: Grey values.
        units: The units and their memory.
        folder: ``ROOT/segments/{segment}``.
        manifest: The run's manifest.
        holes: Chunks of layers and mask that are not stored.
    """

    opened: OpenedLayers
    mask_source: LayerSource | None
    provenance: SurfaceProvenance
    mapping: IntensityMap
    units: UnitPlan
    folder: Location
    manifest: RunManifest
    holes: tuple[Holes, ...] = ()

    @property
    def source(self) -> LayerSource:
        """Layers in the pixels of the surface."""
        return self.opened.source

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
