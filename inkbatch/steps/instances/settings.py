"""Settings of `inkbatch instances`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from inkbatch.config import JobConfig
from inkbatch.data.instances.settings import ProposalRules, RefinementRules, SelectionRules
from inkbatch.io.shard_size import ShardPx
from inkbatch.predict.names import DeviceName

Form = Literal["geojson", "coco", "csv", "parquet", "npy", "overlay", "svg"]
UNIT_PX = 2048


class InstancesConfig(JobConfig):
    """Settings of `inkbatch instances`.

    Attributes:
        subject: Segment id; with `maps` a name for these pictures.
        name: Name or address of the segment's prediction; None takes the only one.
        maps: Folder of maps ``NAME.npy`` (float32, height x width, or 3 x height x width: background, object,
            boundary), as `inkbatch infer-pictures` writes them; None takes a segment's prediction.
        pictures: Folder of the pictures of `maps`, for intensities and overlays; None takes those that
            `infer-pictures` read.
        result: Name of the result; None is the prediction's name, or that of the folder of maps.
        refine: What outlines objects: ``none`` is the watershed of the first pass alone; else folder or URI of a
            network that `inkbatch import-promptable` wrote.
        refinement: Tiles and prompts of that network.
        device: Where it computes; ``auto`` takes CUDA, then MPS, then the CPU.
        proposals: Rules from a map to proposals.
        selection: Rules that reject objects.
        forms: Files to write beside ``labels/NAME/labels.zarr``; None is all of them but ``svg`` (outlines, in
            millimetres where the edge of a pixel is known), ``npy`` for pictures only.
        pixel_um: Edge of a picture's pixel in micrometres; None: not known, millimetres stay empty. A segment states
            its own.
        root: ROOT: a folder or ``s3://bucket/prefix``.
        output_root: ROOT of the result, if it is not stored beside its inputs.
        unit_px: Edge of a unit, a power of two of at least 32.
    """

    job: ClassVar[str] = "instances"
    spelled: ClassVar[Mapping[str, str]] = {"subject": "SUBJECT"}

    subject: str
    name: str | None = None
    maps: str | None = None
    pictures: str | None = None
    result: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    refine: str = Field("none", min_length=1)
    refinement: RefinementRules = Field(default_factory=RefinementRules)
    device: DeviceName = "auto"
    proposals: ProposalRules = Field(default_factory=ProposalRules)
    selection: SelectionRules = Field(default_factory=SelectionRules)
    forms: tuple[Form, ...] | None = None
    pixel_um: float | None = Field(None, gt=0)
    root: str = "root"
    output_root: str | None = None
    unit_px: ShardPx = UNIT_PX

    @model_validator(mode="after")
    def _one_source(self) -> InstancesConfig:
        if self.maps is None and (self.pictures is not None or self.pixel_um is not None):
            raise ValueError("pictures and pixel_um belong to maps; a segment states its own")
        if self.maps is not None and self.name is not None:
            raise ValueError("give maps (a folder) or name (a prediction of the segment), one of them")
        return self

    @model_validator(mode="after")
    def _largest_by_first_pass(self) -> InstancesConfig:
        if self.refine != "none" and self.selection.keep == "largest":
            raise ValueError("selection.keep=largest goes with refine=none; leave one of them out")
        return self

    @model_validator(mode="after")
    def _whole_cells(self) -> InstancesConfig:
        cell_px = self.refinement.cell_px
        if self.refine != "none" and self.unit_px % cell_px:
            raise ValueError(f"unit_px={self.unit_px}: expected a multiple of refinement.cell_px={cell_px}")
        return self
